"""A large store, simulated: what opening it, looking rows up and compacting it cost as its rows grow in number.

    python benchmarks/simulate.py [--rows 10000000] [--json | --save]

Stores of ROWS made-up rows, of a tenth and of a hundredth of them. A row is narrow (8 float16), so that many fit on a
disk; but a segment holds as many rows as those of averaged VGG16 features do, 8,192 where they were compacted once, and
192 in every fiftieth row, as if committed since. Keys, files and structure are those of a store of wide rows. Each step
is a process of its own: the first look reads every byte, a later one none; then rows are found by their digests, the
first of which has the index made; at last everything is compacted (into segments of a million such rows) and looked at
again. The baseline is the step before, ten times over: time and memory must grow no faster than the number of rows.

Same result: every row is found, and no other, and what grows grows no faster than linearly, but for half as much again.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from harness import add_options, linear, report, row
from scale import run_python

from featstore.spec import Spec
from featstore.store import ROWS_PER_COMMIT, Store
from featstore.store.commit import commit
from featstore.store.encode import encode
from featstore.store.rows import Rows

_COLUMNS = 8
_COMPACTED, _RECENT = 8192, 50
_SPEC = Spec("vgg16", "ab" * 32, "block5_pool", (150, 150), dtype="float16")
_SETTLED_SECONDS = 2.5
"""After so long a file's times are trusted."""

_LOOK = """
import json, sys, time
import numpy as np
from featstore import machine
from featstore.store import Store
place, seed, count = sys.argv[1], *map(int, sys.argv[2:])
digests = np.random.default_rng(seed).integers(0, 256, (count, 32), dtype=np.uint8)
before = machine.peak_memory()
[namespace] = Store.open(place).namespaces()
marks = [time.perf_counter()]
snapshot = namespace.snapshot(lookups_only=True)
marks.append(time.perf_counter())
opened = machine.peak_memory()
snapshot.lookup(digests[:1])
marks.append(time.perf_counter())
same = not snapshot.lookup(digests).any() and snapshot.rows == count
marks.append(time.perf_counter())
same = same and bool((snapshot.lookup(digests[:1000, ::-1]) == -1).all())
took = [*np.diff(marks).tolist(), (machine.peak_memory() - before) / 2**20]
print(json.dumps({"took": took, "segments": len(snapshot.names), "same": same}))
"""

_COMPACT = """
import json, sys, time
from featstore import machine
from featstore.store import Store, compact
before, started = machine.peak_memory(), time.perf_counter()
compact(Store.open(sys.argv[1]))
print(json.dumps([time.perf_counter() - started, (machine.peak_memory() - before) / 2**20]))
"""


def simulated(place: Path, seed: int, count: int) -> None:
    """A store of ``count`` rows, whose digests follow from ``seed``."""
    store = Store.open(place)
    with store.namespace(_SPEC).writer({}) as writer:
        del writer  # it has made the folders
    folder = store.namespace(_SPEC).segment_folder
    digests = np.random.default_rng(seed).integers(0, 256, (count, 32), dtype=np.uint8)
    recent = count // _RECENT
    for first, last, step in ((0, count - recent, _COMPACTED), (count - recent, count, ROWS_PER_COMMIT)):
        for start in range(first, last, step):
            part = digests[start : min(start + step, last)]
            features = part[:, :_COLUMNS].astype(np.float16)
            rows = Rows(part, np.zeros(len(part), np.uint16), np.zeros(len(part), np.uint8), features)
            commit(encode(rows, _SPEC, {}), folder, store.private_folder)


def steps(count: int) -> Iterator[dict[str, Any]]:
    """The rows of the report."""
    sizes = (count // 100, count // 10, count)
    taken: dict[str, list[float]] = {}
    segments: dict[str, list[int]] = {}
    same = True

    def keep(name: str, value: float, files: int) -> None:
        taken.setdefault(name, []).append(value)
        segments.setdefault(name, []).append(files)

    for size in sizes:
        with tempfile.TemporaryDirectory() as place:
            simulated(Path(place), size, size)
            time.sleep(_SETTLED_SECONDS)
            for look in ("the first look", "a later look", "a look once compacted"):
                if look.endswith("compacted"):
                    seconds, memory = json.loads(run_python(_COMPACT, place, environment=os.environ))
                    keep("compacting: s", seconds, segments["a later look: s"][-1])
                    keep("compacting: MiB", memory, segments["a later look: s"][-1])
                    time.sleep(_SETTLED_SECONDS)
                    run_python(_LOOK, place, size, size, environment=os.environ)
                found = json.loads(run_python(_LOOK, place, size, size, environment=os.environ))
                same &= found["same"]
                opening, indexing, finding, memory = found["took"]
                keep(f"{look}: s", opening, found["segments"])
                keep(f"{look}, and all rows found: MiB", memory, found["segments"])
            keep("an index made: s", indexing, found["segments"])
            keep("all rows found by it: s", finding, found["segments"])
    for name, values in taken.items():
        about, unit = name.split(": ")
        *_, before, last = values
        case = f"{about}, {count:,} rows in {segments[name][-1]:,} segments, against ten times {sizes[1]:,}"
        yield row(
            case, [last], [10 * before], unit, same and linear(unit, last, 10 * before), values=values, sizes=sizes
        )


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    add_options(parser)
    given = parser.parse_args()
    found = list(steps(given.rows))
    report("simulate", found, ("numpy", "h5py", "blake3"), as_json=given.json, save=given.save)


if __name__ == "__main__":
    main()
