"""What a million, a hundred million and a billion images need, from the rates that other benchmarks have kept.

    python benchmarks/needs.py [--save]

Nothing is measured here: the arithmetic is that of `featstore plan --scale` (featstore/scale.py), the rates are those
in benchmarks/results/. With --save the tables go into docs/SCALE.md, which says where the prices are from.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any

from harness import RESULTS, ROOT, with_text

from featstore.scale import Features, Images, Needs, Prices, needs
from featstore.show import duration, size

PAGE = ROOT / "docs" / "SCALE.md"
COUNTS = (10**6, 10**8, 10**9)
NAMES = ("1 M", "100 M", "1 B")

CPU_HOUR, GPU_HOUR, GIB_MONTH = 0.1785, 1.006, 0.023
"""US dollars: c7i.xlarge (2 cores, as 4 vCPUs), g5.xlarge (an A10G, 2 cores as 4 vCPUs), S3 Standard. A snapshot."""

GPU_FLOPS, GPU_SHARE = 62.5e12, 1 / 3
"""Published of an A10G in float16, and the share of it that a base is assumed to reach."""

_MEMORY = 24 * 2**30
_NAME_BYTES, _FILE_BYTES = 28, 25_000
_BASES = {"vgg16": (512, 4 * 4), "xception": (2048, 5 * 5), "resnet50": (2048, 7 * 7)}


def kept(benchmark: str, *words: str) -> dict[str, Any]:
    """The row of a benchmark whose case has all these words."""
    rows = json.loads((RESULTS / f"{benchmark}.json").read_text())["rows"]
    return next(row for row in rows if all(word in row["case"] for word in words))


def _features(base: str, rate: float, pooling: str = "avg", dtype: str = "float32") -> Features:
    channels, area = _BASES[base]
    return Features(base, pooling, dtype, 1.0, channels, area, rate, "measured")


def _needs(features: Features, like: Images | None = None, prices: Prices | None = None) -> list[Needs]:
    nobody = Images(1, _NAME_BYTES, _FILE_BYTES, 0, 0, None)
    return [needs(count, like or nobody, (features,), _MEMORY, prices or Prices()) for count in COUNTS]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _head(*cells: str) -> list[str]:
    return [_line(*cells), "|" + "---|" * len(cells)]


def times() -> Iterator[str]:
    """Hours of one machine, and what they cost."""
    yield from _head("base", "images/s", *(f"hours, {name}" for name in NAMES), "100 M, US dollars")
    for base, pixels in (("vgg16", 150), ("xception", 150), ("resnet50", 224)):
        for precision in ("bfloat16", "int8"):
            against = "against the loop" if precision == "bfloat16" else "against bfloat16"
            try:
                rate = kept("extract", f"{base} ", f"{pixels} px, {precision}", against)["ours"]
            except StopIteration:  # not measured
                continue
            yield _time_line(f"{base}, {pixels} px, {precision}, this CPU", base, rate, CPU_HOUR)
    computed = GPU_FLOPS * GPU_SHARE / 1e9 / 12.6
    read = kept("decode", "2 threads", "load_img")["ours"]
    yield _time_line("vgg16, 150 px, an A10G: **assumed**", "vgg16", computed, GPU_HOUR)
    yield _time_line("the same, if its 2 cores decode as fast as these: **assumed**", "vgg16", read, GPU_HOUR)


def _time_line(about: str, base: str, rate: float, price: float) -> str:
    found = _needs(_features(base, rate), prices=Prices(per_hour=price))
    hours = [f"{one.specs[0].hours[1]:,.{1 if one.specs[0].hours[1] < 100 else 0}f}" for one in found]
    return _line(about, f"{rate:,.1f}", *hours, f"{found[1].specs[0].cost:,.0f}")


def forms() -> Iterator[str]:
    """Bytes and segments of each form."""
    counts = (f"{what}, {name}" for what in ("bytes", "segments") for name in NAMES)
    yield from _head("features", "a row", *counts, "100 M a month, US dollars")
    for base in ("vgg16", "xception"):
        for pooling in ("avg", "map"):
            for dtype in ("float16", "float32"):
                asked = _needs(_features(base, 1e9, pooling, dtype), prices=Prices(per_gib_month=GIB_MONTH))
                rows = [spec.asked for one in asked for spec in one.specs if spec.asked]
                sizes = [size(row.bytes) for row in rows]
                segments = [f"{row.compacted:,}" for row in rows]
                cost = f"{asked[1].specs[0].cost_a_month:,.0f}"
                yield _line(f"{base} {pooling} {dtype}", f"{rows[0].row_bytes:,} B", *sizes, *segments, cost)


def rest() -> Iterator[str]:
    """What grows with the number of files and of rows."""
    driver = json.loads((RESULTS / "driver.json").read_text())["rows"]
    found_again = [row for row in driver if row["case"].startswith("all known")]
    whole = max(row.get("images", 0) for row in found_again)
    listing, known = (
        next(row["ours"] for row in found_again if name in row["case"]) for name in ("listing", "a whole run")
    )
    like = Images(whole, _NAME_BYTES, _FILE_BYTES, listing / whole, known / whole, None)
    found = _needs(_features("vgg16", 1e9), like)
    specs = [one.specs[0] for one in found]
    yield from _head("", *NAMES)
    yield _line("listing", *(duration(one.list_seconds) for one in found))
    yield _line("a run that finds all rows there, listing included", *(duration(one.look_seconds) for one in found))
    yield _line("memory of the process that a run is started in", *(size(one.driver_bytes) for one in found))
    yield _line("stat cache", *(size(one.cache_bytes) for one in found))
    yield _line("keys on disk", *(size(one.key_bytes) for one in specs))
    yield _line("memory to look rows up", *(size(one.index_bytes) for one in specs))
    yield _line("memory to compact them", *(size(one.compact_bytes) for one in specs))
    yield _line("opening the store, averages, compacted", *(duration(one.open_seconds) for one in specs))
    committed = [one.asked.committed for one in specs if one.asked]
    yield _line("segments as they are committed, of 192 rows", *(f"{count:,}" for count in committed))
    yield _line("a table of all averages, float32", *(size(one.table_bytes) for one in specs))
    yield _line("datasets to deal the images out to, at least", *(f"{one.datasets:,}" for one in found))
    yield _line("stores to deal the rows out to, at least", *(f"{one.stores:,}" for one in found))


TABLES = {"times": times, "forms": forms, "rest": rest}


def with_needs(page: str) -> str:
    """The ``page`` with the tables below their marks, ``<!-- needs: NAME -->``."""
    for name, lines in TABLES.items():
        page = with_text(page, f"<!-- needs: {name} -->\n", "\n".join(lines()))
    return page


def main(words: Sequence[str] | None = None) -> None:
    """Print the tables, or put them into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true", help="put the tables into docs/SCALE.md")
    if parser.parse_args(words).save:
        PAGE.write_text(with_needs(PAGE.read_text()))
        return
    print("\n\n".join("\n".join(lines()) for lines in TABLES.values()))


if __name__ == "__main__":
    main()
