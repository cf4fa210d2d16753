"""Reports as people read them: small tables on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from featstore.records import SPLITS
from featstore.wording import counted, visible

if TYPE_CHECKING:  # the command line shows reports, and must not load what makes them
    from pathlib import Path

    from featstore.dataset import Dataset
    from featstore.doctor import Examination
    from featstore.extraction import ExtractReport, Profile
    from featstore.garbage import GarbageReport
    from featstore.planning import Plan
    from featstore.recompute import StoreCheck
    from featstore.store import CompactReport, Summary
    from featstore.table import Table as FeatureTable
    from featstore.top5 import Seen
    from featstore.weights import Base, Verdict

_LEAST_WIDTH = 80
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def console(stderr: bool = True) -> Console:
    """The console for people: plain where it is not a terminal or NO_COLOR is set.

    Tables are laid out for a terminal of at least 80 columns; in a file they are never wrapped.
    """
    stream = sys.stderr if stderr else sys.stdout
    width = 200
    if stream.isatty() or "COLUMNS" in os.environ:
        width = max(_LEAST_WIDTH, Console(file=stream).width)
    return Console(file=stream, highlight=False, emoji=False, width=width)


def literal(words: object) -> str:
    """Words from anywhere as they go into a line that is printed: no markup, and nothing that a screen would obey.

    Every name that is shown goes through here, or through the same for a table of Text (heads.report.terminal.plain).
    """
    return escape(visible(str(words)))


def say(text: str) -> None:
    """One line of plain words, as they are."""
    console().print(visible(text), markup=False, soft_wrap=True)


def sentences(lines: Iterable[str]) -> None:
    """Things a person should know, one a line."""
    for line in lines:
        console().print(f"[yellow]note[/yellow] {literal(line)}", soft_wrap=True)


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


def _unusual(preprocessing: str) -> str:
    """Nothing for the base's own preprocessing, which hardly anyone asks for by name."""
    return "" if preprocessing == "keras" else f" {preprocessing}"


def _reasons(counts: Mapping[str, int]) -> str:
    """``2 truncated, 1 file-too-large``, the most frequent first."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items(), key=lambda one: -one[1]))


def grid(*columns: str, right: Iterable[str] = ()) -> Table:
    """An empty table with these column heads, those in ``right`` aligned to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    aligned = set(right)
    for name in columns:
        is_number = name in aligned  # never broken: a half of one would be another
        table.add_column(name, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    return table


def notes(dataset: Dataset) -> None:
    """What a person should know of a dataset before it is used: its size, layout and oddities."""
    out = console()
    sizes = [(int((dataset.splits == code).sum()), name) for code, name in enumerate(SPLITS)]
    counts = [f"{count} {name}" for count, name in sizes if count]
    if (dataset.splits == -1).any():
        counts.append("split by content")
    classes = counted(len(dataset.classes), "class", "classes") if dataset.classes else "no labels"
    images = counted(len(dataset), "image")
    out.print(literal(f"{dataset.name}: {images}, {classes} ({dataset.layout}; {', '.join(counts)})"), soft_wrap=True)
    sentences(dataset.notes)


def extraction(report: ExtractReport) -> None:
    """What a run did."""
    out = console()
    counts = ("hits", "computed", "rejected", "images/s")
    table = grid("backbone", "features", *counts, right=counts)
    for spec in report.specs:
        rate = f"{spec.images_per_second:.1f}" if spec.computed else ""
        kind = f"{spec.pooling}{_unusual(spec.preprocessing)} {spec.precision} {spec.runtime}"
        kind += f" +{counted(spec.views, 'view')}" if spec.augmentation else ""
        table.add_row(literal(spec.backbone), kind, str(spec.hits), str(spec.computed), str(spec.rejected), rate)
    out.print(table)
    stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report.stages.items() if seconds >= 0.05)
    out.print(f"extraction {duration(report.seconds)}" + (f" (seconds by stage: {stages})" if stages else ""))
    out.print(literal(f"store {report.store}: {size(report.store_bytes)}"), soft_wrap=True)
    if report.quarantined:
        segments = counted(report.quarantined, "damaged segment")
        out.print(f"[yellow]damage[/yellow] {segments} set aside, the rows computed again")
    if report.rejects:
        where = f", listed in {report.ledger}" if report.ledger else ""
        images = counted(len(report.rejects), "image")
        out.print(
            f"[yellow]rejected[/yellow] {literal(f'{images}: {_reasons(report.reasons)}{where}')}", soft_wrap=True
        )


def profile(found: Profile) -> None:
    """Where the time of a run went, and what would help."""
    out = console()
    numbers = ("seconds", "of the run", "images/s alone")
    table = grid("stage", "", *numbers, right=numbers)
    for stage in found.stages:
        rate = f"{stage.images_per_second:.0f}" if stage.seconds >= 0.001 else ""
        name = f"[bold]{stage.name}[/bold]" if stage.name == found.limit else stage.name
        table.add_row(name, stage.about, f"{stage.seconds:.2f}", f"{100 * stage.share:.0f} %", rate)
    out.print(table)
    if found.busy:
        out.print(f"the base was busy for {100 * found.busy:.0f} % of the time after the start")
    for line in found.advice:
        out.print(f"[yellow]advice[/yellow] {literal(line)}", soft_wrap=True)


def plan(result: Plan, out: Console) -> None:
    """What a run would do, and why."""
    counts = ("hits", "rejected", "to compute", "bytes", "time")
    table = grid("backbone", "features", *counts, right=counts)
    for part in result.specs:
        spec = part.job.spec
        numbers = (str(part.hits), str(part.rejected), str(part.computed), size(part.bytes), duration(part.seconds))
        kind = f"{spec.pooling}{_unusual(spec.preprocessing)} {spec.precision} {part.job.runtime}"
        kind += f" +{counted(len(part.job.views), 'view')}" if spec.augmentation else ""
        table.add_row(literal(spec.backbone), kind, *numbers)
    out.print(table)
    for part in result.specs:
        for reason, count in part.misses.items():
            out.print(literal(f"{part.job.spec.backbone}: {count} not in the store: {reason}"))
        if part.computed:
            out.print(literal(f"{part.job.spec.backbone}: time is {part.estimate}"))


def examination(result: Examination, out: Console) -> None:
    """What the doctor found."""
    table = grid("", "")
    table.show_header = False
    for name, value in result.facts.items():
        table.add_row(f"[bold]{name}[/bold]", literal(value))
    out.print(table)
    for line in result.advice:
        out.print(f"[yellow]advice[/yellow] {literal(line)}", soft_wrap=True)
    if not result.advice:
        out.print("nothing would make it faster that featstore knows of")


def namespaces(found: Sequence[Summary], out: Console) -> None:
    """What a store holds."""
    table = grid("base", "features", "rows", "segments", "bytes", "rejects", right=("rows", "segments", "bytes"))
    for summary in found:
        spec = summary.spec
        damaged = f" [red]({summary.damaged} damaged)[/red]" if summary.damaged else ""
        table.add_row(
            literal(f"{spec.backbone} {spec.layer}"),
            f"{'x'.join(map(str, spec.image_size))} {spec.pooling}{_unusual(spec.preprocessing)} {spec.precision}",
            str(summary.rows),
            f"{summary.segments}{damaged}",
            size(summary.bytes),
            f"{summary.rejects} ({_reasons(summary.reasons)})" if summary.rejects else "0",
        )
    out.print(table if found else "this store holds nothing yet: featstore extract DATA --backbone vgg16")


def weights(found: Sequence[Base], out: Console) -> None:
    """The weights that are cached."""
    table = grid("backbone", "asked for", "bytes", "digest", "from", right=("bytes",))
    for base in found:
        length = base.tensors.stat().st_size
        table.add_row(
            literal(base.backbone.name), literal(base.origin), size(length), base.digest[:16], literal(base.source)
        )
    out.print(table if found else "no weights are cached yet: featstore weights pull vgg16")


def verdicts(found: Sequence[Verdict], out: Console) -> None:
    """What a check of the cached weights found."""
    for verdict in found:
        if verdict.problem:
            out.print(f"[red]damaged[/red] {literal(f'{verdict.path}: {verdict.problem}')}")
        else:
            out.print(literal(f"sound {verdict.name}"))
    if not found:
        out.print("no weights are cached yet: featstore weights pull vgg16")


def verification(result: StoreCheck, out: Console) -> None:
    """What a check of a store found."""
    report = result.report
    depth = "every byte read" if report.read_data else "names, sizes and structure"
    out.print(f"{counted(report.segments, 'segment')}, {counted(report.rows, 'row')}, {size(report.bytes)}: {depth}")
    if report.quarantined:
        out.print(f"{counted(report.quarantined, 'segment')} set aside earlier: no row is served from there")
    for damage in report.problems:
        out.print(f"[red]damaged[/red] {literal(f'{damage.path}: {damage.problem}')}")
    for drift in result.drifts:
        out.print(literal(str(drift)))
    if report.is_mendable:
        out.print("[yellow]to do[/yellow] run extract again: it sets damaged segments aside and computes their rows")
    out.print("sound" if result.sound else "[red]not sound[/red]")


def compaction(done: CompactReport, out: Console) -> None:
    """What a compaction did."""
    if done.segments_before == done.segments_after and not done.dropped:
        out.print(f"{counted(done.segments_after, 'segment')}: nothing to join")
        return
    out.print(
        f"{counted(done.segments_before, 'segment')} → {done.segments_after}, "
        f"{size(done.bytes_before)} → {size(done.bytes_after)}"
        + (f"; {counted(done.dropped, 'row')} that another one outranks dropped" if done.dropped else "")
    )


def garbage(done: GarbageReport, out: Console) -> None:
    """What was cleared away, or would be."""
    named = (
        counted(done.quarantined, "segment set aside", "segments set aside"),
        counted(done.leftovers, "leftover of a killed run", "leftovers of killed runs"),
        counted(done.caches, "cache of a folder that is gone", "caches of folders that are gone"),
        counted(done.rows, "row"),
    )
    parts = [words for words in named if not words.startswith("0 ")]
    would = "would go" if done.dry_run else "removed"
    out.print(f"{', '.join(parts)} {would}: {size(done.bytes)}" if parts else "nothing to remove")


def exported(tables: Mapping[str, FeatureTable], path: Path) -> None:
    """What an export wrote."""
    counts = ", ".join(f"{name} {table.X.shape[0]} x {table.X.shape[1]}" for name, table in tables.items())
    files = path.rglob("*") if path.is_dir() else [path]
    written = sum(file.stat().st_size for file in files if file.is_file())
    console().print(literal(f"{path}: {counts}, {size(written)}"))


def seen(found: Sequence[Seen], out: Console) -> None:
    """What a whole classifier sees: a line for each of an image's likeliest classes."""
    table = grid("image", "class", "probability", right=("probability",))
    for image in found:
        first = [literal(image.path), *([""] * max(0, len(image.classes) - 1))]
        for path, guess in zip(first, image.classes, strict=False):
            table.add_row(path, literal(guess.name), f"{guess.probability:.3f}")
        if not image.classes:
            table.add_row(first[0], f"rejected: {image.reason.code}", "")
    out.print(table)
