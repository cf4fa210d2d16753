"""What very many images would need: arithmetic from what is known of a few of them, and of this machine.

Nothing here looks at a file. What grows with the number of images is either counted (bytes, segments) or goes by the
constants below, which benchmarks measure; docs/SCALE.md tells what came of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from featstore.dataset import MAX_LINES
from featstore.errors import InputError
from featstore.machine import LARGE_SHARE
from featstore.runtime import BATCH_SIZE
from featstore.scan import ENTRY_BYTES, MAX_CACHE_BYTES
from featstore.store import (
    BYTES_PER_COMMIT,
    KEY_BYTES,
    MAX_CHECKED,
    ROWS_PER_COMMIT,
    SECONDS_PER_COMMIT,
    segments_after,
)

MACHINES = (1, 10, 100, 1000)
"""How many of this machine the hours are told of."""

DRIVER_BYTES = 128 * 2**20
DRIVER_BYTES_A_FILE = 550
DRIVER_BYTES_A_LETTER = 3
"""Memory of the process that a run is started in: without images, of each listed one, and of each byte of its path
(benchmarks/driver.py)."""

INDEX_BYTES_A_ROW = 140
COMPACT_BYTES_A_ROW = 150
"""Memory of a process that looks rows up, and of one that compacts them (benchmarks/simulate.py)."""

OPEN_SECONDS = 0.004
"""To open a segment, its bytes not read: twice what a machine at rest takes (benchmarks/simulate.py)."""

_MOST = 10**12
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9}
_COUNT = re.compile(r"((?:[0-9]+|[0-9]{1,3}(?:[,_][0-9]{3})+)(?:\.[0-9]+)?)([kKmMgGbB]?)")
_SHARE = 2  # of the memory, for one thing


@dataclass(frozen=True, slots=True)
class Images:
    """What is known of a dataset of ``count`` images; of each on average: bytes of its path and of its file, seconds
    to list it, to look at it (one stat), and to read it and take its digest (None: none was read).
    """

    count: int
    name_bytes: float
    file_bytes: float
    list_seconds: float
    look_seconds: float
    read_seconds: float | None


@dataclass(frozen=True, slots=True)
class Features:
    """What is known of a spec: its rows for each image, the ``channels`` of a map and its ``area`` (height x width;
    None: not known), images a second on this machine (None: not known), and what that rests on.
    """

    backbone: str
    pooling: str
    dtype: str
    rows_an_image: float
    channels: int
    area: int | None
    images_per_second: float | None
    basis: str


@dataclass(frozen=True, slots=True)
class Prices:
    """What the user pays, in any currency: for an hour of one machine, for a GiB kept for a month. None: not told."""

    per_hour: float | None = None
    per_gib_month: float | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """All rows of a spec in one form: bytes of a row (its key with it) and of all, and how many segments they are, as
    they are committed and once they are compacted.
    """

    pooling: str
    dtype: str
    row_bytes: int
    bytes: int
    committed: int
    compacted: int


@dataclass(frozen=True, slots=True)
class SpecNeeds:
    """What one spec needs: ``seconds`` on one machine (None without a rate), ``hours`` on as many as are named, the
    spec's own form among ``forms`` (None: a map's size is not known), the keys on disk, the memory of a process that
    looks rows up, of one that compacts them, and of a table of all rows as float32; the seconds that opening compacted
    segments takes; costs where prices are told.
    """

    features: Features
    rows: int
    seconds: float | None
    hours: dict[int, float]
    forms: tuple[Stored, ...]
    asked: Stored | None
    key_bytes: int
    index_bytes: int
    compact_bytes: int
    open_seconds: float | None
    table_bytes: int | None
    cost: float | None
    cost_a_month: float | None


@dataclass(frozen=True, slots=True)
class Needs:
    """What ``count`` images need: seconds and bytes of listing, looking and reading, memory of the process that the run
    is started in, bytes of the stat cache; the least number of ``datasets`` that they must be dealt out to, of
    ``stores`` that the rows must, and the ``limits`` that say so, in words; ``copy_bytes`` are those of the copies on
    each machine (None: the store is on a disk, or how large a map is is not known).
    """

    count: int
    like: Images
    list_seconds: float
    look_seconds: float
    read_seconds: float | None
    file_bytes: int
    driver_bytes: int
    cache_bytes: int
    specs: tuple[SpecNeeds, ...]
    datasets: int
    stores: int
    limits: tuple[str, ...]
    copy_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The object ``scale`` of ``featstore plan --scale N --json``."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Limit:
    """Something that ``parts`` of the images keep to, or of the rows if ``of_rows``."""

    parts: int
    of_rows: bool
    words: str


def parse_count(text: str) -> int:
    """``1000000``, ``1_000_000``, ``1M``, ``2.5M``, ``1B`` → a number of images. Raises InputError."""
    found = _COUNT.fullmatch(text)
    count = Decimal(re.sub("[,_]", "", found[1])) * _UNITS[found[2].upper()] if found else 0
    if not 1 <= count <= _MOST or count != int(count):
        raise InputError(
            "this is no number of images", where="--scale", expected="1000000, 1_000_000, 100M or 1B", received=text
        )
    return int(count)


def needs(count: int, like: Images, specs: tuple[Features, ...], memory: int, prices: Prices = Prices()) -> Needs:
    """What ``count`` images ``like`` those of a dataset need on a machine with ``memory`` bytes (0: not known)."""
    driver = _driver_bytes(count, like.name_bytes)
    cache = round(count * (ENTRY_BYTES + 1 + like.name_bytes))
    each = tuple(_of_spec(count, features, prices) for features in specs)
    limits = [*_limits_of_files(count, driver, cache, memory)]
    for spec in each:
        limits += _limits_of_rows(spec, memory)
    return Needs(
        count=count,
        like=like,
        list_seconds=count * like.list_seconds,
        look_seconds=count * like.look_seconds,
        read_seconds=None if like.read_seconds is None else count * like.read_seconds,
        file_bytes=round(count * like.file_bytes),
        driver_bytes=driver,
        cache_bytes=cache,
        specs=each,
        datasets=max((limit.parts for limit in limits if not limit.of_rows), default=1),
        stores=max((limit.parts for limit in limits if limit.of_rows), default=1),
        limits=tuple(limit.words for limit in limits),
    )


def _driver_bytes(count: int, name_bytes: float) -> int:
    return DRIVER_BYTES + round(count * (DRIVER_BYTES_A_FILE + DRIVER_BYTES_A_LETTER * name_bytes))


def _of_spec(count: int, features: Features, prices: Prices) -> SpecNeeds:
    rows = math.ceil(count * features.rows_an_image)
    rate = features.images_per_second
    seconds = rows / rate if rate else None
    forms = tuple(_forms(features, rows))
    asked = next((one for one in forms if one.pooling == _kind(features.pooling) and one.dtype == features.dtype), None)
    width = features.channels * (1 if _kind(features.pooling) == "avg" else features.area or 0)
    return SpecNeeds(
        features=features,
        rows=rows,
        seconds=seconds,
        hours={machines: seconds / 3600 / machines for machines in MACHINES} if seconds is not None else {},
        forms=forms,
        asked=asked,
        key_bytes=rows * KEY_BYTES,
        index_bytes=rows * INDEX_BYTES_A_ROW,
        compact_bytes=rows * COMPACT_BYTES_A_ROW,
        open_seconds=None if asked is None else asked.compacted * OPEN_SECONDS,
        table_bytes=4 * rows * width or None,
        cost=None if prices.per_hour is None or seconds is None else seconds / 3600 * prices.per_hour,
        cost_a_month=None if prices.per_gib_month is None or not asked else asked.bytes / 2**30 * prices.per_gib_month,
    )


def _kind(pooling: str) -> str:
    """Of the forms that take the same room the one that is told of."""
    return {"max": "avg", "flatten": "map"}.get(pooling, pooling)


def _forms(features: Features, rows: int) -> Iterator[Stored]:
    """A row of averages, and one of a map if its size is known, of each stored type."""
    widths = {"avg": features.channels, "map": features.channels * (features.area or 0)}
    for pooling, width in widths.items():
        for dtype, size in (("float16", 2), ("float32", 4)):
            if taken := width * size:
                at_once = min(ROWS_PER_COMMIT, max(1, BYTES_PER_COMMIT // taken))
                if features.images_per_second:
                    batches = math.ceil(SECONDS_PER_COMMIT * features.images_per_second / BATCH_SIZE)
                    at_once = min(at_once, batches * BATCH_SIZE)
                committed = math.ceil(rows / at_once)
                yield Stored(
                    pooling=pooling,
                    dtype=dtype,
                    row_bytes=KEY_BYTES + taken,
                    bytes=rows * (KEY_BYTES + taken),
                    committed=committed,
                    compacted=segments_after(committed, at_once * taken),
                )


def _limits_of_files(count: int, driver: int, cache: int, memory: int) -> Iterator[_Limit]:
    if cache > MAX_CACHE_BYTES:
        parts = math.ceil(cache / MAX_CACHE_BYTES)
        yield _Limit(
            parts, False, f"what is known of files is not kept beyond {_gib(MAX_CACHE_BYTES)} a dataset: each run "
            f"would read every file of it again; {parts:,} datasets or more keep to that",
        )  # fmt: skip
    if memory and driver > memory // _SHARE:
        room = memory // _SHARE - DRIVER_BYTES
        parts = math.ceil((driver - DRIVER_BYTES) / room) if room > 0 else count
        yield _Limit(
            parts, False, f"the process that a run is started in would take {_gib(driver)}, more than half of this "
            f"machine's memory; {parts:,} datasets or more do not",
        )  # fmt: skip
    if count > MAX_LINES:
        parts = math.ceil(count / MAX_LINES)
        yield _Limit(parts, False, f"a manifest has at most {MAX_LINES:,} lines: {parts:,} or more list them all")


def _limits_of_rows(spec: SpecNeeds, memory: int) -> Iterator[_Limit]:
    name = spec.features.backbone
    if spec.asked and spec.asked.committed > max(MAX_CHECKED, spec.asked.compacted):
        yield _Limit(
            1, True, f"{name}: {spec.asked.committed:,} segments as they are committed take "
            f"{spec.asked.committed * OPEN_SECONDS / 60:,.0f} minutes to open, and of more than {MAX_CHECKED:,} every "
            "run reads all bytes: compact the store now and then",
        )  # fmt: skip
    if spec.asked and spec.asked.compacted > MAX_CHECKED:
        parts = math.ceil(spec.asked.compacted / MAX_CHECKED)
        yield _Limit(
            parts, True, f"{name}: of more than {MAX_CHECKED:,} segments, and compacted they are "
            f"{spec.asked.compacted:,}, every run reads all bytes; {parts:,} stores or more keep to that",
        )  # fmt: skip
    if memory and spec.compact_bytes > memory // _SHARE:
        parts = math.ceil(spec.compact_bytes / (memory // _SHARE))
        yield _Limit(
            parts, True, f"{name}: a process that looks rows up would take {_gib(spec.index_bytes)}, one that compacts "
            f"them {_gib(spec.compact_bytes)}: more than half of this machine's memory; {parts:,} stores or more do "
            "not",
        )  # fmt: skip
    if memory and spec.table_bytes and spec.table_bytes > memory // LARGE_SHARE:
        yield _Limit(
            1, True, f"{name}: a table of all rows takes {_gib(spec.table_bytes)} as float32 and stays in the store: "
            "logreg, linear-svm and dense heads train on it all the same, the others on a part of the images",
        )  # fmt: skip


def _gib(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"
