"""A second `extract` of the same images: what it costs to find out that nothing is to be done.

    python benchmarks/warm.py DATA [--files 100000] [--others 500000] [--repeats 3] [--json | --save]

Every run is a process of its own, from its start to its end. First on the photographs of DATA, warm against cold (VGG16
at 150 pixels, start-up of the base included); and warm beside the rows of OTHERS other images (made up: 512 zeros each,
compacted), against none beside: once the first look at them, which reads every byte, and once a later one. Then on
FILES unchanged small files whose rows are in the store already (made up: 512 zeros each), against a plain walk that
stats them; and on twice as many, against twice the time.

Same result: the report says that every row was there and none was computed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from harness import add_options, report, row

import featstore
from featstore.job import resolve_jobs
from featstore.scan import digest_all
from featstore.store import Store, compact

_FOLDERS = 100
_SETTLED_SECONDS = 2.5
"""After so long a file's times are trusted."""


def extract(data: Path, store: Path) -> tuple[float, int, int]:
    """Run the command; its seconds, and how many rows were there and computed."""
    words = ["extract", data, "-b", "vgg16", "--image-size", "150", "--store", store, "--json"]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", "from cli import app; app()", *map(str, words)],
        check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    [spec] = json.loads(done.stdout)["specs"]
    return seconds, spec["hits"], spec["computed"]


def photographs(data: Path, others: int, repeats: int) -> Iterator[dict[str, Any]]:
    """A row of warm against cold, both on the same photographs; and one of warm beside many other rows."""
    count = len(featstore.open_dataset(data))
    seconds: dict[str, list[float]] = {"cold": [], "warm": [], "beside": [], "first": []}
    same = True
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as place:
            store, fuller = Path(place, "store"), Path(place, "fuller")
            taken, _, computed = extract(data, store)
            seconds["cold"].append(taken)
            same &= computed == count
            shutil.copytree(store, fuller)
            add_rows(fuller, others)
            time.sleep(_SETTLED_SECONDS)
            extract(data, store)  # the first look after a change reads every byte
            for name, folder in (("warm", store), ("first", fuller), ("beside", fuller)):
                taken, hits, computed = extract(data, folder)
                seconds[name].append(taken)
                same &= (hits, computed) == (count, 0)
    known = f"extract over {count} unchanged photographs"
    yield row(f"{known}, against the first time", seconds["warm"], seconds["cold"], "s", same)
    yield row(f"{known}, beside {others} other rows against none", seconds["beside"], seconds["warm"], "s", same)
    yield row(f"{known}, the first look at these rows against none", seconds["first"], seconds["warm"], "s", same)


def add_rows(place: Path, count: int) -> None:
    """Put the rows of so many other images into the only namespace of the store at ``place``, compacted."""
    store, random = Store.open(place), np.random.default_rng(0)
    [namespace] = store.namespaces()
    features = np.zeros(namespace.snapshot().feature_shape or (), namespace.spec.dtype)
    with namespace.writer({}) as writer:
        for digest in random.integers(0, 256, (count, 32), dtype=np.uint8):
            writer.add(digest.tobytes(), 0, features)
    compact(store)


def made_up(count: int, place: Path) -> tuple[Path, Path]:
    """A folder of so many small files, and a store that has a row for each of them and their digests."""
    folder, store = place / f"files-{count}", featstore.Store.open(place / f"store-{count}", create=True)
    for number in range(_FOLDERS):
        (folder / f"class{number:02d}").mkdir(parents=True)
    for number in range(count):
        (folder / f"class{number % _FOLDERS:02d}" / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n%d" % number)
    time.sleep(_SETTLED_SECONDS)
    images = featstore.open_dataset(folder)
    [job] = resolve_jobs([featstore.Request("vgg16", image_size=150)], store, images)
    with store.namespace(job.spec).writer({}) as writer:
        for digest in digest_all(images, store.scan_folder).values:
            writer.add(digest.tobytes(), 0, np.zeros(512, np.float32))
    time.sleep(_SETTLED_SECONDS)
    return folder, store.path


def walk(folder: Path) -> float:
    """Seconds of a process that lists the folder and stats every file."""
    code = "import os, sys\nfor top, _, names in os.walk(sys.argv[1]):\n for n in names: os.stat(os.path.join(top, n))"
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, folder], check=True)
    return time.perf_counter() - started


def many(count: int, repeats: int) -> Iterator[dict[str, Any]]:
    """A row of files/s against a plain walk, and one of twice as many files against twice the time."""
    with tempfile.TemporaryDirectory() as place:
        some, twice = (made_up(number, Path(place)) for number in (count, 2 * count))
        seconds: dict[str, list[float]] = {"some": [], "twice": [], "walk": []}
        same = True
        for _ in range(repeats):
            for name, (folder, store) in (("some", some), ("twice", twice)):
                taken, hits, computed = extract(folder, store)
                seconds[name].append(taken)
                same &= (hits, computed) == (count * (1 + (name == "twice")), 0)
            seconds["walk"].append(walk(some[0]))
    rates = {name: [count / taken for taken in seconds[name]] for name in ("some", "walk")}
    yield row(
        f"extract over {count} unchanged small files, against a walk that stats them",
        rates["some"], rates["walk"], "files/s", same,
    )  # fmt: skip
    double = [2 * taken for taken in seconds["some"]]
    yield row(
        f"extract over {2 * count} unchanged small files, against twice the time of {count}",
        seconds["twice"], double, "s", same,
    )  # fmt: skip


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--others", type=int, default=500_000)
    parser.add_argument("--repeats", type=int, default=3)
    add_options(parser)
    given = parser.parse_args()
    os.environ.setdefault("FEATSTORE_HOME", tempfile.gettempdir())
    rows = [*photographs(given.data, given.others, given.repeats), *many(given.files, given.repeats)]
    report("warm", rows, ("numpy", "h5py"), as_json=given.json, save=given.save)


if __name__ == "__main__":
    main()
