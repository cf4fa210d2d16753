"""What very many images would need, as people read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from featstore.show import duration, grid, literal, size
from featstore.wording import counted

if TYPE_CHECKING:
    from featstore.scale import Needs, SpecNeeds

_FORMS = {"avg": "avg, max", "map": "map, flatten"}


def needs(found: Needs, out: Console) -> None:
    """What grows with the files, then each spec by itself, and at last the limits that are met."""
    out.print(f"\n[bold]{found.count:,} images like these {counted(found.like.count, 'image')}[/bold]")
    table = grid("files", "time", "bytes", right=("time", "bytes"))
    table.add_row("listing them", duration(found.list_seconds), "")
    table.add_row("looking at each once (stat)", duration(found.look_seconds), "")
    table.add_row("reading each once, for its digest", duration(found.read_seconds), size(found.file_bytes))
    table.add_row("memory of the process that lists them", "", size(found.driver_bytes))
    table.add_row("what is kept of them (stat cache)", "", size(found.cache_bytes))
    if found.copy_bytes is not None:
        table.add_row("copies of the store, on each machine", "", size(found.copy_bytes))
    out.print(table)
    if found.read_seconds is None:
        out.print("none of these files had to be read just now; --rehash reads them, and measures it")
    for spec in found.specs:
        _spec(spec, out)
    for line in found.limits:
        out.print(f"[yellow]limit[/yellow] {literal(line)}", soft_wrap=True)


def _spec(spec: SpecNeeds, out: Console) -> None:
    about = spec.features
    out.print(f"\n[bold]{literal(about.backbone)}: {spec.rows:,} rows{_rate(spec)}[/bold]", soft_wrap=True)
    if spec.hours:
        on = ", ".join(f"{hours:,.1f} on {machines:,}" for machines, hours in spec.hours.items())
        out.print(f"hours by the number of machines like this one: {on}" + _price("; cost", spec.cost), soft_wrap=True)
    numbers = ("a row", "bytes", "segments", "compacted")
    table = grid("features", *numbers, right=numbers)
    for form in spec.forms:
        name = f"{_FORMS[form.pooling]} {form.dtype}{' *' if form == spec.asked else ''}"
        counts = (f"{form.row_bytes:,} B", size(form.bytes), f"{form.committed:,}", f"{form.compacted:,}")
        table.add_row(name, *counts)
    if about.area is None:
        table.add_row(_FORMS["map"], "?", "?", "", "")
    out.print(table)
    if spec.asked:
        out.print(f"* as asked for{_price('; a month of keeping them costs', spec.cost_a_month)}")
    if about.area is None:
        out.print("a map's size is known once the store holds one: extract a few images with --pooling map")
    table = grid("rows", "time", "bytes", right=("time", "bytes"))
    table.add_row("keys on disk", "", size(spec.key_bytes))
    table.add_row("opening the store, compacted; looking rows up", duration(spec.open_seconds), size(spec.index_bytes))
    table.add_row("compacting", "", size(spec.compact_bytes))
    table.add_row("a table of all of them, float32", "", size(spec.table_bytes))
    out.print(table)


def _rate(spec: SpecNeeds) -> str:
    rate, basis = spec.features.images_per_second, spec.features.basis
    if not basis.startswith("measured"):
        basis += ": `featstore extract` of some hundred images measures it"
    return literal(f" at {rate:,.1f} images/s ({basis})" if rate else f" ({basis})")


def _price(words: str, cost: float | None) -> str:
    return "" if cost is None else f"{words} {cost:,.2f}"
