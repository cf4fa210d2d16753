"""One HTML file that shows a comparison of heads, and its plots as PNG files. The owner of jinja2.

The file is whole: styles, script and pictures are inside, and its content security policy forbids everything else.
Names of files and classes are anyone's: jinja2 escapes them, and what a screen would obey or hide is written out.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from featstore.dataset import Dataset
from featstore.errors import from_os_error
from featstore.extraction import Extraction
from featstore.table import Table
from featstore.wording import counted, visible
from heads.evaluation.compare import SIGNIFICANT
from heads.evaluation.leaks import THRESHOLD
from heads.report import board, plots
from heads.report.content import MOST_ROWS, Content, content
from heads.report.terminal import setting, with_interval
from heads.training.results import Comparison

NAME = "report.html"
"""The file's name in its folder."""


def write_report(
    folder: Path,
    comparison: Comparison,
    dataset: Dataset,
    done: Extraction,
    tables: Mapping[str, Table],
    *,
    seed: int = 0,
    notes: tuple[str, ...] = (),
) -> Path:
    """Write ``folder``/report.html and ``folder``/plots/*.png, each whole or not at all; returns the page's path.

    tables : the features of the best head by split, for the map of the images.
    notes : what a person should know besides the comparison's own notes.
    Raises StorageError or one of its kin if the folder cannot be written.
    """
    page = content(comparison, dataset, done, tables, seed=seed)
    text = _render(page, comparison, dataset, done, tables, seed=seed, notes=notes + comparison.notes)
    files = {f"plots/{plot.name}.png": plot.png for plot in page.plots}
    try:
        (folder / "plots").mkdir(parents=True, exist_ok=True)
        for name, data in {**files, NAME: text.encode()}.items():
            _write(folder / name, data)
    except OSError as error:
        raise from_os_error(error, "write the report", folder) from error
    return folder / NAME


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _render(
    page: Content, comparison: Comparison, dataset: Dataset, done: Extraction, tables: Mapping[str, Table], *,
    seed: int, notes: tuple[str, ...],
) -> str:  # fmt: skip
    css, js = (_part(name) for name in ("page.css", "page.js"))
    best = comparison.best
    runtimes = [report.runtime for report in done.report.specs]
    return _template().render(
        page=page,
        comparison=comparison,
        results=comparison.results,
        best=best,
        dataset=dataset,
        done=done,
        seed=seed,
        notes=notes,
        specs=list(zip([job.spec for job in done.jobs], runtimes, strict=True)),
        snapshot=len(tables["train"].snapshot),
        equals=board.no_worse(comparison),
        cheap=board.cheaper(comparison),
        held_out_rows=board.metric_rows(best.held_out),
        test_rows=board.metric_rows(best.test) if best.test else [],
        most_lines=board.FIRST_LINES,
        most_rows=MOST_ROWS,
        most_confused=plots.MOST_CONFUSED,
        significant=SIGNIFICANT,
        threshold=THRESHOLD,
        css=css,
        js=js,
        css_hash=_hash(css),
        js_hash=_hash(js),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, finalize=_shown
    )
    environment.filters |= {
        "counted": counted,
        "interval": lambda found: with_interval(found).partition(" ")[2],
        "measure": with_interval,
        "setting": setting,
        "share": lambda value: f"{value:.3f}",
        "svg": lambda data: "data:image/svg+xml;base64," + base64.b64encode(data).decode("ascii"),
    }
    return environment.get_template("page.html")


def _shown(value: Any) -> Any:
    """What is put into the page, before it is escaped: our own markup as it is, all else as visible text."""
    return value if hasattr(value, "__html__") else visible(str(value))


def _part(name: str) -> str:
    """A file of ours, to be put into the page as it is."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _hash(part: str) -> str:
    """How a content security policy allows exactly this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(part.encode()).digest()).decode("ascii")
