"""A standing for people: the table of a terminal, and one page with the picture of accuracy against cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from rich.table import Table

from featstore.show import duration, grid, size
from featstore.whole import write_whole
from heads.contest.standing import Line, Standing
from heads.evaluation.compare import SIGNIFICANT
from heads.report.canvas import Plot, Theme, draw, legend
from heads.report.html import part, template
from heads.report.terminal import plain, with_interval

_HERE = Path(__file__).parent

NAME = "compare.html"
"""The page's name in its folder."""

_WIDE = 130
"""Columns of a terminal from which everything is shown."""


def front(lines: Sequence[Line]) -> tuple[Line, ...]:
    """The ways that no other beats in both accuracy and time (Pareto), from the quickest on; without unknown times."""
    found: list[Line] = []
    for _, line in sorted(_timed(lines), key=lambda pair: (pair[0], -pair[1].accuracy)):
        if not found or line.accuracy > found[-1].accuracy:
            found.append(line)
    return tuple(found)


def _timed(lines: Sequence[Line]) -> list[tuple[float, Line]]:
    """Those whose time is known, with it."""
    return [(line.seconds, line) for line in lines if line.seconds is not None]


def terminal(standing: Standing, width: int = _WIDE) -> Table:
    """A line for each way; those on the front are marked, the best is bold.

    In less than 130 columns of ``width``: accuracy, the test against the cheapest way in short, and time.
    """
    wide = width >= _WIDE
    numbers = (
        ("validation", "test", "against cheapest", "time", "images", "memory", "disk")
        if wide
        else ("validation", "ahead, p", "time")
    )
    table = grid("", "way", *numbers, right=numbers)
    best, on_front = standing.best, front(standing.lines)
    for line in standing.lines:
        cells = ("*" if line in on_front else "", *(_cells(line) if wide else _few_cells(line)))
        table.add_row(*map(plain, cells), style="bold" if line is best else "")
    notes = ["* no other way is better and quicker"]
    if wide:
        notes.append("images: pictures through the base, or its frozen part")
    else:
        notes.append("ahead: images called rightly more than by the cheapest way, and McNemar's p")
        notes += [f"the best on test: {with_interval(best.test.accuracy)}"] if best.test else []
    table.caption = "\n".join(notes)
    table.caption_justify = "left"
    return table


def _few_cells(line: Line) -> tuple[str, ...]:
    pair = line.pair
    ahead = "–" if pair is None else f"{pair.only_second - pair.only_first:+d}, {pair.adjusted:.1g}"
    return line.way.name, with_interval(line.held_out.accuracy), ahead, _time(line)


def _cells(line: Line) -> tuple[str, ...]:
    first = line.outcomes[0]
    seeds = line.accuracies
    several = f" ({min(seeds):.3f} to {max(seeds):.3f} over {len(seeds)} seeds)" if len(seeds) > 1 else ""
    return (
        line.way.name,
        with_interval(line.held_out.accuracy) + several,
        with_interval(line.test.accuracy) if line.test else "–",
        _verdict(line),
        _time(line),
        str(first.base_images),
        size(first.peak_bytes),
        size(first.bytes),
    )


def _time(line: Line) -> str:
    train = line.outcomes[0].train_seconds
    return f"{duration(train)} and the base" if line.seconds is None else duration(line.seconds)


def _verdict(line: Line) -> str:
    if line.pair is None:
        return "–"
    ahead = line.pair.only_second - line.pair.only_first
    sure = "" if line.pair.adjusted < SIGNIFICANT else ", may be chance"
    return f"{ahead:+d} images, p = {line.pair.adjusted:.2g}{sure}"


def picture(standing: Standing) -> Plot:
    """Validation accuracy with its interval against all seconds, and the front."""
    lines, on_front, timed = standing.lines, front(standing.lines), _timed(standing.lines)

    def paint(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        steps = [(seconds, line.accuracy) for line in on_front for seconds, other in timed if other is line]
        steps += [(max(seconds for seconds, _ in timed), steps[-1][1])] if steps else []
        if steps:
            axes.step(*zip(*steps, strict=True), where="post", color=theme.muted, linewidth=1.2, zorder=1)
        for seconds, line in timed:
            place = lines.index(line)
            low, high = line.held_out.accuracy.interval
            marked = line in on_front
            colour = theme.series[0] if line.way.head else theme.series[1]
            axes.plot([seconds] * 2, [low, high], color=colour, linewidth=1.2, alpha=0.6)
            axes.plot(
                seconds, line.accuracy, "o", color=colour, markersize=8 if marked else 6, zorder=3,
                markeredgecolor=theme.ink if marked else theme.surface, markeredgewidth=1.6 if marked else 0.6,
            )  # fmt: skip
            axes.annotate(
                str(place + 1), (seconds, line.accuracy), (6, 5), textcoords="offset points", fontsize=8.5,
                color=theme.ink,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="seconds, base and training together", ylabel="accuracy on validation")

    words = ", ".join(f"{place + 1} {line.way.name}: {line.accuracy:.3f}" for place, line in enumerate(lines))
    return draw("accuracy-against-cost", f"accuracy on validation against seconds: {words}", paint, (7.2, 4.2))


def by_views(standing: Standing) -> Plot | None:
    """Accuracy against the number of cached views, beside the frozen base on views that are always new."""
    curve = [line for line in standing.lines if line.way.head == standing.lines[0].way.head]
    live = [line for line in standing.lines if line.way.head is None and line.way.plan.way == "frozen"]
    if len(curve) < 2:
        return None

    def paint(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        views = [line.way.plan.request.views for line in curve]
        intervals = np.array([line.held_out.accuracy.interval for line in curve])
        axes.plot(views, [line.accuracy for line in curve], "o-", color=theme.series[0], label="cached views, logreg")
        axes.fill_between(views, *intervals.T, color=theme.series[0], alpha=0.15, linewidth=0)
        for line in live:
            axes.axhline(line.accuracy, color=theme.series[1], linestyle="--", label=line.way.name)
        axes.set(xlabel="views of each training image", ylabel="accuracy on validation", xticks=views)
        legend(figure, axes.get_legend_handles_labels())

    words = ", ".join(f"{line.way.plan.request.views}: {line.accuracy:.3f}" for line in curve)
    return draw(
        "accuracy-against-views", f"accuracy on validation by the number of cached views: {words}", paint, (4.6, 4.2)
    )


def write_page(folder: Path, standing: Standing) -> Path:
    """Write ``folder``/compare.html, one file that loads nothing, and its plots as PNG files; returns the page's path.

    Raises StorageError or one of its kin if the folder cannot be written.
    """
    plots = (picture(standing), *filter(None, [by_views(standing)]))
    rows = [(line in front(standing.lines), line is standing.best, _cells(line)) for line in standing.lines]
    css, allowed = part(_HERE / "page.css")
    page = template(_HERE / "page.html").render(
        standing=standing, best=standing.best, rows=rows, plots=plots, cells=_cells(standing.best), css=css, csp=allowed
    )
    for name, data in {**{f"{plot.name}.png": plot.png for plot in plots}, NAME: page.encode()}.items():
        write_whole(folder / name, "write the page", data)
    return folder / NAME
