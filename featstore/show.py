"""Reports as people read them: small tables on stderr."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from featstore.records import SPLITS

if TYPE_CHECKING:  # the command line shows reports, and must not load what makes them
    from featstore.dataset import Dataset
    from featstore.extraction import ExtractReport
    from featstore.planning import Plan

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def console() -> Console:
    """The console for people: stderr, plain where it is not a terminal or NO_COLOR is set."""
    return Console(stderr=True, highlight=False, soft_wrap=False)


def size(count: int | None) -> str:
    """Bytes as people read them: ``2.7 MiB``."""
    if count is None:
        return "?"
    value = float(count)
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def duration(seconds: float | None) -> str:
    """Seconds as people read them: ``0.4 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def grid(*columns: str, right: Iterable[str] = ()) -> Table:
    """An empty table with these column heads, those in ``right`` aligned to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    aligned = set(right)
    for name in columns:
        table.add_column(name, justify="right" if name in aligned else "left", overflow="fold")
    return table


def notes(dataset: Dataset) -> None:
    """What a person should know of a dataset before it is used: its size, layout and oddities."""
    out = console()
    counts = [f"{int((dataset.splits == i).sum())} {name}" for i, name in enumerate(SPLITS) if (dataset.splits == i).any()]
    if (dataset.splits == -1).any():
        counts.append("split by content")
    classes = f"{len(dataset.classes)} classes" if dataset.classes else "no labels"
    out.print(escape(f"{dataset.name}: {len(dataset)} images, {classes} ({dataset.layout}; {', '.join(counts)})"))
    for note in dataset.notes:
        out.print(f"[yellow]note[/yellow] {escape(note)}")


def extraction(report: ExtractReport) -> None:
    """What a run did."""
    out = console()
    table = grid(
        "backbone", "pooling", "precision", "runtime", "hits", "computed", "rejected", "seconds", "images/s",
        right=("hits", "computed", "rejected", "seconds", "images/s"),
    )  # fmt: skip
    for spec in report.specs:
        table.add_row(
            spec.backbone,
            spec.pooling,
            spec.precision,
            spec.runtime,
            str(spec.hits),
            str(spec.computed),
            str(spec.rejected),
            f"{spec.seconds:.1f}",
            f"{spec.images_per_second:.1f}" if spec.computed else "",
        )
    out.print(table)
    stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report.stages.items() if seconds >= 0.05)
    out.print(f"{duration(report.seconds)} in all" + (f" (seconds by stage: {stages})" if stages else ""))
    out.print(escape(f"store {report.store}: {size(report.store_bytes)}"))
    if report.rejects:
        reasons = ", ".join(f"{count} {reason}" for reason, count in report.reasons.items())
        where = f", listed in {report.ledger}" if report.ledger else ""
        out.print(f"[yellow]rejected[/yellow] {escape(f'{len(report.rejects)} images: {reasons}{where}')}")


def plan(result: Plan) -> None:
    """What a run would do, and why."""
    out = console()
    table = grid(
        "backbone", "pooling", "precision", "hits", "rejected", "to compute", "new bytes", "time",
        right=("hits", "rejected", "to compute", "new bytes", "time"),
    )  # fmt: skip
    for part in result.specs:
        spec = part.job.spec
        table.add_row(
            spec.backbone,
            spec.pooling,
            spec.precision,
            str(part.hits),
            str(part.rejected),
            str(part.computed),
            size(part.bytes),
            duration(part.seconds),
        )
    out.print(table)
    for part in result.specs:
        for reason, count in part.misses.items():
            out.print(escape(f"{part.job.spec.backbone}: {count} to compute: {reason}"))
        if part.computed:
            out.print(escape(f"{part.job.spec.backbone}: time is {part.estimate}"))


def facts(title: str, values: Mapping[str, str]) -> None:
    """Names and values, one a line."""
    out = console()
    table = grid(title, "")
    for name, value in values.items():
        table.add_row(name, escape(value))
    out.print(table)
