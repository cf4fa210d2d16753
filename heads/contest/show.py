"""A standing for people: the table of a terminal, and one page with the picture of accuracy against cost."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from rich.table import Table

from featstore.errors import from_os_error
from featstore.show import duration, grid, size
from featstore.wording import counted, visible
from heads.contest.standing import Line, Standing
from heads.evaluation.compare import SIGNIFICANT
from heads.report.canvas import Plot, Theme, draw
from heads.report.terminal import plain, with_interval

NAME = "compare.html"
"""The page's name in its folder."""

_WIDE = 130
"""Columns of a terminal from which all costs are shown."""


def front(lines: Sequence[Line]) -> tuple[Line, ...]:
    """The ways that no other beats in both accuracy and time (Pareto), from the quickest on."""
    found: list[Line] = []
    for line in sorted(lines, key=lambda one: (one.seconds, -_accuracy(one))):
        if not found or _accuracy(line) > _accuracy(found[-1]):
            found.append(line)
    return tuple(found)


def terminal(standing: Standing, width: int = _WIDE) -> Table:
    """A line for each way; those on the front are marked, the best is bold.

    Less than 130 columns of ``width`` leave out what it costs but time.
    """
    numbers: tuple[str, ...] = ("validation", "test", "against cheapest", "time", "images", "memory", "disk")
    numbers = numbers if width >= _WIDE else numbers[:4]
    table = grid("", "way", *numbers, right=numbers)
    best, on_front = standing.best, front(standing.lines)
    for line in standing.lines:
        cells = ("*" if line in on_front else "", *_cells(line)[: 1 + len(numbers)])
        table.add_row(*map(plain, cells), style="bold" if line is best else "")
    images = "; images: pictures through the base, or its frozen part" if width >= _WIDE else ""
    table.caption = f"* no other way is better and quicker{images}"
    table.caption_justify = "left"
    return table


def _cells(line: Line) -> tuple[str, ...]:
    first = line.outcomes[0]
    seeds = line.accuracies
    several = f" ({min(seeds):.3f} to {max(seeds):.3f} over {len(seeds)} seeds)" if len(seeds) > 1 else ""
    return (
        line.way.name,
        with_interval(line.held_out.accuracy) + several,
        with_interval(line.test.accuracy) if line.test else "–",
        _verdict(line),
        duration(line.seconds) + (" and the base" if first.base_seconds is None else ""),
        str(first.base_images),
        size(first.peak_bytes),
        size(first.bytes),
    )


def _verdict(line: Line) -> str:
    if line.pair is None:
        return "–"
    ahead = line.pair.only_second - line.pair.only_first
    sure = "" if line.pair.adjusted < SIGNIFICANT else ", may be chance"
    return f"{ahead:+d} images, p = {line.pair.adjusted:.2g}{sure}"


def _accuracy(line: Line) -> float:
    return float(np.mean(line.accuracies))


def picture(standing: Standing) -> Plot:
    """Validation accuracy with its interval against all seconds, and the front."""
    lines, on_front = standing.lines, front(standing.lines)

    def paint(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        steps = [(line.seconds, _accuracy(line)) for line in on_front]
        steps.append((max(line.seconds for line in lines), steps[-1][1]))
        axes.step(*zip(*steps, strict=True), where="post", color=theme.muted, linewidth=1.2, zorder=1)
        for place, line in enumerate(lines):
            low, high = line.held_out.accuracy.interval
            marked = line in on_front
            colour = theme.series[0] if line.way.head else theme.series[1]
            axes.plot([line.seconds] * 2, [low, high], color=colour, linewidth=1.2, alpha=0.6)
            axes.plot(
                line.seconds, _accuracy(line), "o", color=colour, markersize=8 if marked else 6, zorder=3,
                markeredgecolor=theme.ink if marked else theme.surface, markeredgewidth=1.6 if marked else 0.6,
            )  # fmt: skip
            axes.annotate(
                str(place + 1), (line.seconds, _accuracy(line)), (6, 5), textcoords="offset points", fontsize=8.5,
                color=theme.ink,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="seconds, base and training together", ylabel="accuracy on validation")

    words = ", ".join(f"{place + 1} {line.way.name}: {_accuracy(line):.3f}" for place, line in enumerate(lines))
    return draw("accuracy-against-cost", f"accuracy on validation against seconds: {words}", paint, (7.2, 4.2))


def write_page(folder: Path, standing: Standing) -> Path:
    """Write ``folder``/compare.html, one file that loads nothing, and its picture as PNG; returns the page's path.

    Raises StorageError or one of its kin if the folder cannot be written.
    """
    plot = picture(standing)
    rows = [(line in front(standing.lines), line is standing.best, _cells(line)) for line in standing.lines]
    css = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    text = _template().render(
        standing=standing, best=standing.best, rows=rows, plot=plot, css=css, cells=_cells(standing.best),
        light=_data(plot.light), dark=_data(plot.dark), counted=counted, csp=_hash(css),
    )  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in ((f"{plot.name}.png", plot.png), (NAME, text.encode())):
            temporary = folder / f".{name}.{os.getpid()}.tmp"
            temporary.write_bytes(data)
            temporary.replace(folder / name)
    except OSError as error:
        raise from_os_error(error, "write the page", folder) from error
    return folder / NAME


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, finalize=_shown)
    return environment.get_template("page.html")


def _shown(value: Any) -> Any:
    return value if hasattr(value, "__html__") else visible(str(value))


def _data(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")


def _hash(part: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(part.encode()).digest()).decode("ascii")
