"""What grows with the number of images, and how: time and memory, with a base that costs nothing.

    python benchmarks/scale.py [--rows 1000000] [--images 20000] [--repeats 3] [--json | --save]

A compacted store of ROWS rows (64 numbers each) is opened with all checksums, planned over (every row found, its file
stat'ed by a stub) and read whole; the baseline is a quarter of it, four times over. Then an extraction of IMAGES small
pictures with a base of one small convolution, in a process of its own; the baseline is a tenth of them: memory must not
grow with their number.

Same result: every row is found, and what is read is what was written.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from harness import add_options, report, row
from PIL import Image

from featstore import Store
from featstore.dataset import Dataset
from featstore.job import Job
from featstore.planning import plan
from featstore.records import RACY_NS, Digests, Stamp
from featstore.scan import StatCache
from featstore.store import compact
from featstore.weights import resolve

_COLUMNS = 64
_OLD = Stamp(1, 1, 1, 1)

STUB_BASE = """
import sys, keras
image = keras.Input((None, None, 3))
keras.Model(image, keras.layers.Conv2D(64, 3, strides=4)(image), name="stub").save(sys.argv[1])
"""

_EXTRACT = """
import json, sys
import featstore
from featstore import machine
images, base, store = sys.argv[1:]
report = featstore.extract(images, base, precision="float32", store=store).report
print(json.dumps([report.specs[0].computed, machine.peak_memory()]))
"""


class Still:
    """A source whose files are always there and never change."""

    location = "/made/up"

    def stamp(self, path: str) -> Stamp:
        """The same of every file."""
        return _OLD

    def read(self, path: str, limit: int) -> bytes:
        """Nobody should have to."""
        raise AssertionError("a file was read")

    head = read  # type: ignore[assignment]


def filled(store: Store, job: Job, digests: Digests) -> None:
    """Rows of a function of the digest, committed and compacted."""
    with store.namespace(job.spec).writer({}) as writer:
        for digest in digests:
            writer.add(digest.tobytes(), 0, np.resize(digest, _COLUMNS).astype(np.float32))
    compact(store)


def images_of(digests: Digests, store: Store) -> Dataset:
    """A dataset of so many images, whose digests the stat cache knows."""
    names = tuple(f"{number:08d}.png" for number in range(len(digests)))
    labels = np.arange(len(names), dtype=np.int64) % 2
    splits = np.zeros(len(names), np.int8)
    cache = StatCache.load(store.scan_folder, Still.location)
    for name, digest in zip(names, digests, strict=True):
        cache.put(name, _OLD, digest.tobytes())
    cache.save()
    return Dataset("made up", Still(), names, names, labels, ("a", "b"), splits, "made up")


def rows(count: int, repeats: int) -> Iterator[dict[str, Any]]:
    """A row for opening, planning and reading: seconds, against four times those of a quarter."""
    digests = np.random.default_rng(0).integers(0, 256, (count, 32), dtype=np.uint8)
    base = resolve("vgg16", "random:0")
    from featstore.spec import Spec

    job = Job(base, Spec(base.spec_name, base.digest, base.layer(None).name, (32, 32)), "openvino")
    seconds: dict[tuple[str, int], list[float]] = {}
    same = True
    with tempfile.TemporaryDirectory() as place:
        parts = {}
        for size in (count // 4, count):
            store = Store.open(Path(place) / str(size), create=True)
            filled(store, job, digests[:size])
            parts[size] = (store, images_of(digests[:size], store))
        time.sleep(2 * RACY_NS / 1e9)
        for _ in range(repeats):
            for size, (store, images) in parts.items():
                marks = [time.perf_counter()]
                snapshot = Store.open(store.path).namespace(job.spec).snapshot()
                marks.append(time.perf_counter())
                found = plan(images, [job], Store.open(store.path))
                marks.append(time.perf_counter())
                features = snapshot.read(digests[:size])
                marks.append(time.perf_counter())
                same &= found.specs[0].hits == size
                same &= np.array_equal(features[:, :32], digests[:size].astype(np.float32))
                for name, taken in zip(("opening", "planning", "reading"), np.diff(marks).tolist(), strict=True):
                    seconds.setdefault((name, size), []).append(taken)
    for name in ("opening", "planning", "reading"):
        four = [4 * taken for taken in seconds[name, count // 4]]
        yield row(f"{name} {count:,} rows, against four times {count // 4:,}", seconds[name, count], four, "s", same)


def memory(count: int, repeats: int) -> dict[str, Any]:
    """A row of the peak memory of an extraction, against that of a tenth of the images."""
    mine, theirs, same = [], [], True
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        base = folder / "stub.keras"
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "XDG_CACHE_HOME": place}
        run_python(STUB_BASE, base, environment=environment)
        sizes = {count // 10: theirs, count: mine}
        for size in sizes:
            _draw(folder / str(size), size)
        for repeat in range(repeats + 1):  # the first converts the base
            for size, peaks in sizes.items():
                words = (folder / str(size), base, folder / f"store-{size}-{repeat}")
                computed, peak = json.loads(run_python(_EXTRACT, *words, environment=environment))
                same &= computed == size
                if repeat:
                    peaks.append(peak / 2**20)
    return row(f"peak memory of extracting {count:,} images, against {count // 10:,}", mine, theirs, "MiB", same)


def run_python(code: str, *words: object, environment: Mapping[str, str]) -> str:
    """What a process of its own prints that runs ``code``; ``words`` are its argv[1:]."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], check=True, capture_output=True, text=True, env=environment
    )
    return done.stdout


def _draw(folder: Path, count: int) -> None:
    """So many small pictures, all different, in two class folders."""
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        pixels[0, 0] = [number % 256, number // 256 % 256, number // 65536]
        Image.fromarray(pixels).save(folder / ("cats", "dogs")[number % 2] / f"{number}.png", compress_level=0)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    add_options(parser)
    given = parser.parse_args()
    found = [*rows(given.rows, given.repeats), memory(given.images, given.repeats)]
    report("scale", found, ("numpy", "h5py"), as_json=given.json, save=given.save)


if __name__ == "__main__":
    main()
