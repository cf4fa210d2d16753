"""The machine that a run is started on: its memory and its time, as the number of listed images grows.

    python benchmarks/driver.py [--images 1000000] [--engine local] [--engine ray] [--size 32] [--json | --save]

Folders of IMAGES tiny pictures, all different, of a half and of a quarter of them are extracted with a base of one
convolution: into an empty store, and once more when every row is there (whatever the engine). Each run is a process of
its own, and what is measured is its own peak: of a cluster (of Ray, on this machine) the driver's. The baseline of the
peaks is what is allowed, and for growth the step before: as much memory for as many images, and as much time. That is
CPU time of the process, which other work on the machine hardly changes; the clock's is kept beside it.

Same result: the first run computes every image, the second none, no peak is above what is allowed, and what grows
grows no faster than linearly, but for half as much again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import RESULTS, add_options, linear, report, row
from scale import STUB_BASE, run_python

_ENGINES = ("local", "ray")
_ALLOWED_MIB = 1536.0
_FOLDERS = 100
_SETTLED_SECONDS = 2.5
"""After so long a file's times are trusted."""

_EXTRACT = """
import json, sys, time
import featstore
from featstore import machine
images, base, store, engine, size = sys.argv[1:]
began, started = time.perf_counter(), time.process_time()
dataset = featstore.open_dataset(images)
listed = time.process_time() - started
report = featstore.extract(dataset, base, image_size=int(size), precision="float32", store=store, engine=engine).report
[spec] = report.specs
seconds, took = time.process_time() - started, time.perf_counter() - began
found = {"images": len(dataset), "computed": spec.computed, "hits": spec.hits, "listing": listed, "seconds": seconds}
print(json.dumps({**found, "took": took, "peak": machine.peak_memory() / 2**20}))
"""


@dataclass(frozen=True)
class Run:
    """What a process told: numbers of images, its seconds of CPU (``took``: of the clock), and its peak in MiB."""

    images: int
    computed: int
    hits: int
    listing: float
    seconds: float
    peak: float
    took: float = 0.0


def draw(folder: Path, count: int) -> None:
    """So many bitmaps of 4 x 2 pixels, all different, in class folders; a name has 29 characters."""
    head = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 78, 0, 0, 54, 40, 4, 2, 1, 24, 0, 24, 0, 0, 0, 0)
    folders = _folders(count)
    for number in range(folders):
        (folder / f"class{number:02d}").mkdir(parents=True)
    for number in range(count):
        pixels = struct.pack("<Q", number) * 3
        (folder / f"class{number % folders:02d}" / f"photograph{number:07d}.bmp").write_bytes(head + pixels)


def _folders(count: int) -> int:
    return min(_FOLDERS, count // 4 * 4)


def part(whole: Path, count: int, share: int) -> Path:
    """A folder that leads to one of ``share`` parts of the ``count`` images in ``whole``, by links to folders."""
    folder = whole.with_name(f"{whole.name}-{share}")
    folder.mkdir()
    for number in range(_folders(count) // share):
        (folder / f"class{number:02d}").symlink_to(whole / f"class{number:02d}")
    return folder


def growth(count: int, engines: list[str], size: int) -> Iterator[dict[str, Any]]:
    """The rows of each engine."""
    count -= count % _folders(count)
    shares = (1, 2, 4)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "XDG_CACHE_HOME": place}
        run_python(STUB_BASE, folder / "stub.keras", environment=environment)
        draw(folder / "images", count)
        draw(folder / "few", 32)
        parts = [part(folder / "images", count, share) for share in shares]
        time.sleep(_SETTLED_SECONDS)

        def run(images: Path, engine: str) -> Run:
            words = (images, folder / "stub.keras", folder / f"store-{engine}-{images.name}", engine, size)
            found = Run(**json.loads(run_python(_EXTRACT, *words, environment=environment)))
            print(images.name, engine, found, file=sys.stderr)
            return found

        run(folder / "few", "local")  # converts the base
        for engine in engines:
            new, known = [], []
            for images in parts:
                new.append(run(images, engine))
                if engine == "local":  # where nothing is to be computed, no engine is asked
                    time.sleep(_SETTLED_SECONDS)
                    known.append(run(images, engine))
                shutil.rmtree(folder / f"store-{engine}-{images.name}")
            for one in _rows(f"{engine}, all new", new, [count // share for share in shares]):
                yield {**one, "engine": engine}
            for one in _rows("all known", known, [0] * len(shares)) if known else ():
                yield {**one, "engine": engine}


def _rows(about: str, runs: list[Run], computed: list[int]) -> Iterator[dict[str, Any]]:
    """The peak against what is allowed; its last step, and the time, against twice the step or run before."""
    whole, half, quarter = runs
    same = [one.computed for one in runs] == computed and all(one.computed + one.hits == one.images for one in runs)
    same &= max(one.peak for one in runs) <= _ALLOWED_MIB
    more = {"images": whole.images, "peaks": {one.images: one.peak for one in runs},
            "took": {one.images: one.took for one in runs}}  # fmt: skip
    allowed = f"{about}: peak memory of the driver, {whole.images:,} images, against what is allowed"
    yield row(allowed, [whole.peak], [_ALLOWED_MIB], "MiB", same, **more)
    step = f"from {half.images:,} to {whole.images:,} images, against twice that from {quarter.images:,}"
    twice = f"{whole.images:,} images, against twice {half.images:,}"
    for case, unit, last, before in (
        (f"memory {step}", "MiB", whole.peak - half.peak, half.peak - quarter.peak),
        (f"CPU time of listing {twice}", "s", whole.listing, half.listing),
        (f"CPU time of a whole run of {twice}", "s", whole.seconds, half.seconds),
    ):
        yield row(f"{about}: {case}", [last], [2 * before], unit, same and linear(unit, last, 2 * before))


def _kept_of_others(engines: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of an earlier run of the engines that were not asked for."""
    kept = RESULTS / "driver.json"
    rows = json.loads(kept.read_text())["rows"] if kept.exists() else []
    return [one for one in rows if one.get("engine") in {*_ENGINES} - {*engines}]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument(
        "--engine", action="append", choices=_ENGINES, help="may repeat (default: both); rows of others stay"
    )
    parser.add_argument("--size", type=int, default=32, help="of the pictures that are made, in pixels")
    add_options(parser)
    given = parser.parse_args()
    engines = given.engine or list(_ENGINES)
    others = _kept_of_others(engines) if given.save else []
    found = [*others, *growth(given.images, engines, given.size)]
    report("driver", found, ("numpy", "openvino", "ray"), as_json=given.json, save=given.save)


if __name__ == "__main__":
    main()
