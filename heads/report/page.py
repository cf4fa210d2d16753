"""One HTML file that shows a comparison of heads, and its plots as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from featstore.dataset import Dataset
from featstore.extraction import Extraction
from featstore.table import Table
from featstore.whole import write_whole
from heads.evaluation.compare import SIGNIFICANT
from heads.evaluation.leaks import THRESHOLD
from heads.report import board, plots
from heads.report.content import MOST_ROWS, Content, content
from heads.report.html import part, template
from heads.training.results import Comparison

_HERE = Path(__file__).parent

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
    for name, data in {**files, NAME: text.encode()}.items():
        write_whole(folder / name, "write the report", data)
    return folder / NAME


def _render(
    page: Content, comparison: Comparison, dataset: Dataset, done: Extraction, tables: Mapping[str, Table], *,
    seed: int, notes: tuple[str, ...],
) -> str:  # fmt: skip
    css, js = (part(_HERE / name) for name in ("page.css", "page.js"))
    best = comparison.best
    runtimes = [report.runtime for report in done.report.specs]
    return template(_HERE / "page.html").render(
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
        css=css[0],
        js=js[0],
        css_hash=css[1],
        js_hash=js[1],
    )
