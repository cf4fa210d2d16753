"""What very many images would need, as people read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from featstore.show import duration, grid, size

if TYPE_CHECKING:
    from featstore.scale import Needs, SpecNeeds

_FORMS = {"avg": "avg, max", "map": "map, flatten"}


def needs(found: Needs, out: Console) -> None:
    """Three tables: time, bytes, and what grows with the number of files; then the limits that are met."""
    like = f"{found.like.count:,} image{'' if found.like.count == 1 else 's'}"
    out.print(f"\n[bold]{found.count:,} images like these {like}[/bold]")
    _times(found, out)
    _forms(found, out)
    _rest(found, out)
    for spec in found.specs:
        out.print(escape(f"{spec.features.backbone}: the rate is {_basis(spec)}"))
    for line in found.limits:
        out.print(f"[yellow]limit[/yellow] {escape(line)}", soft_wrap=True)


def _basis(spec: SpecNeeds) -> str:
    basis = spec.features.basis
    return basis if basis.startswith("measured") else f"{basis}: `featstore extract` of some hundred images measures it"


def _times(found: Needs, out: Console) -> None:
    machines = sorted({count for spec in found.specs for count in spec.hours})
    heads = [f"{count:,} machine{'' if count == 1 else 's'}" for count in machines]
    table = grid("backbone", "rows", "images/s", *heads, "cost", right=("rows", "images/s", *heads, "cost"))
    for spec in found.specs:
        rate = spec.features.images_per_second
        hours = [f"{spec.hours[count]:,.1f} h" if count in spec.hours else "?" for count in machines]
        words = (f"{spec.rows:,}", f"{rate:,.1f}" if rate else "?", *hours, _price(spec.cost))
        table.add_row(spec.features.backbone, *words)
    out.print(table)


def _forms(found: Needs, out: Console) -> None:
    numbers = ("a row", "bytes", "segments", "compacted", "cost a month")
    table = grid("backbone", "features", *numbers, right=numbers)
    for spec in found.specs:
        for form in spec.forms:
            is_asked = form == spec.asked
            what = f"{_FORMS[form.pooling]} {form.dtype}{' (asked for)' if is_asked else ''}"
            counts = (f"{form.row_bytes:,} B", size(form.bytes), f"{form.committed:,}", f"{form.compacted:,}")
            table.add_row(spec.features.backbone, what, *counts, _price(spec.cost_a_month) if is_asked else "")
        if spec.features.area is None:
            table.add_row(spec.features.backbone, _FORMS["map"], "? until the store holds one", "", "", "", "")
    out.print(table)


def _rest(found: Needs, out: Console) -> None:
    table = grid("", "time", "bytes", right=("time", "bytes"))
    table.add_row("listing the files", duration(found.list_seconds), "")
    table.add_row("looking at them (one stat each)", duration(found.look_seconds), "")
    table.add_row("reading them once, digests", duration(found.read_seconds), size(found.file_bytes))
    table.add_row("memory of the process that lists them", "", size(found.driver_bytes))
    table.add_row("what is kept of them (stat cache)", "", size(found.cache_bytes))
    for spec in found.specs:
        name = spec.features.backbone
        table.add_row(f"{name}: keys on disk", "", size(spec.key_bytes))
        table.add_row(
            f"{name}: opening the store; memory to look rows up", duration(spec.open_seconds), size(spec.index_bytes)
        )
        table.add_row(f"{name}: memory to compact it", "", size(spec.compact_bytes))
        table.add_row(f"{name}: a table of all rows, float32", "", size(spec.table_bytes))
    out.print(table)
    if found.read_seconds is None:
        out.print("reading: none of these files had to be read just now; --rehash does, and so measures it")


def _price(cost: float | None) -> str:
    return "" if cost is None else f"{cost:,.2f}"
