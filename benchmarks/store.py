"""The store against plainer ways to keep features: writing rows safely, and reading a table back.

    python benchmarks/store.py [--rows 25000] [--columns 2048] [--repeats 3] [--json | --save]

Writing, 192 rows at a time, each batch on the disk (fsync) before the next. Baselines: one growing HDF5 file, `.npy` by
memory map, one HDF5 dataset an image. Reading all rows from the page cache into one array. Baseline: `np.load` of the
same array. Ours is a compacted store, opened anew: with every byte checked (the default), or its structure alone
(lazily). Beside it the least that checking can cost: SHA-256 of the same files, a core each, and then `np.load`.

Same result: the array that is read is the one that was written, bit for bit.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from harness import add_options, report, row

from featstore.spec import Spec
from featstore.store import Store, compact

_BATCH = 192
_SPEC = Spec("xception", "ab" * 32, "block14_sepconv2_act", (150, 150))

Written = Callable[[Path, np.ndarray, np.ndarray], None]


def featstore_writer(folder: Path, digests: np.ndarray, features: np.ndarray) -> None:
    """Segments of a store."""
    store = Store.open(folder / "store")
    with store.namespace(_SPEC).writer({}) as writer:
        for digest, features_of_one in zip(digests, features, strict=True):
            writer.add(digest.tobytes(), 0, features_of_one)


def growing_file(folder: Path, digests: np.ndarray, features: np.ndarray) -> None:
    """One HDF5 file that grows."""
    with h5py.File(folder / "all.h5", "w") as file:
        columns = features.shape[1]
        kept = file.create_dataset("features", (0, columns), "f4", maxshape=(None, columns), chunks=(128, columns))
        keys = file.create_dataset("digest", (0, 32), "u1", maxshape=(None, 32), chunks=(4096, 32))
        for start in range(0, len(features), _BATCH):
            stop = min(start + _BATCH, len(features))
            kept.resize(stop, axis=0)
            keys.resize(stop, axis=0)
            kept[start:stop], keys[start:stop] = features[start:stop], digests[start:stop]
            file.flush()
            _fsync(folder / "all.h5")


def npy(folder: Path, digests: np.ndarray, features: np.ndarray) -> None:
    """A `.npy` file of known length, written through a memory map."""
    kept = np.lib.format.open_memmap(folder / "all.npy", "w+", np.float32, features.shape)
    for start in range(0, len(features), _BATCH):
        kept[start : start + _BATCH] = features[start : start + _BATCH]
        kept.flush()
    np.save(folder / "digests.npy", digests)


def one_dataset_each(folder: Path, digests: np.ndarray, features: np.ndarray) -> None:
    """An HDF5 file with a dataset for every image."""
    with h5py.File(folder / "each.h5", "w") as file:
        for start in range(0, len(features), _BATCH):
            for digest, one in zip(digests[start : start + _BATCH], features[start : start + _BATCH], strict=True):
                file[digest.tobytes().hex()] = one
            file.flush()
            _fsync(folder / "each.h5")


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def writing(digests: np.ndarray, features: np.ndarray, repeats: int) -> Iterator[dict[str, Any]]:
    """A row against each other way of writing, in rows/s."""
    ways: dict[str, Written] = {
        "featstore": featstore_writer,
        "one growing HDF5 file": growing_file,
        ".npy by memory map": npy,
        "one HDF5 dataset an image": one_dataset_each,
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                started = time.perf_counter()
                way(Path(folder), digests, features)
                rates[name].append(len(features) / (time.perf_counter() - started))
                if name == "featstore":
                    same = np.array_equal(_read(Path(folder), digests, read_data=True), features)
    for name in list(ways)[1:]:
        case = f"writing {len(features)} x {features.shape[1]} float32, against {name}"
        yield row(case, rates["featstore"], rates[name], "rows/s", same)


def _read(folder: Path, digests: np.ndarray, *, read_data: bool) -> np.ndarray:
    return Store.open(folder / "store").namespace(_SPEC).snapshot(read_data=read_data).read(digests)


def _hash_and_load(folder: Path) -> np.ndarray:
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(_sha256, (folder / "store").glob("ns/*/seg/*.h5")))
    return np.load(folder / "all.npy")


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def reading(digests: np.ndarray, features: np.ndarray, repeats: int) -> Iterator[dict[str, Any]]:
    """A row for each depth of checking, in seconds against ``np.load``."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        featstore_writer(folder, digests, features)
        compact(Store.open(folder / "store"))
        np.save(folder / "all.npy", features)
        time.sleep(2.5)  # files that were written just now are looked at more closely than others
        ways: dict[str, Callable[[], np.ndarray]] = {
            "np.load": lambda: np.load(folder / "all.npy"),
            "all checksums on": lambda: _read(folder, digests, read_data=True),
            "lazily": lambda: _read(folder, digests, read_data=False),
            "by SHA-256 of the files and np.load alone": lambda: _hash_and_load(folder),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        same: dict[str, bool] = {}
        for repeat in range(repeats + 1):  # the first fills the page cache
            for name, way in ways.items():
                started = time.perf_counter()
                found = way()
                if repeat:
                    seconds[name].append(time.perf_counter() - started)
                same[name] = np.array_equal(found, features)
                del found
        for name in list(ways)[1:]:
            case = f"reading {len(features)} x {features.shape[1]} float32 {name}, against np.load"
            yield row(case, seconds[name], seconds["np.load"], "s", same[name])


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=25_000)
    parser.add_argument("--columns", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    add_options(parser)
    given = parser.parse_args()
    random = np.random.default_rng(0)
    digests = random.integers(0, 256, (given.rows, 32), dtype=np.uint8)
    features = random.random((given.rows, given.columns), dtype=np.float32)
    rows = [*writing(digests, features, given.repeats), *reading(digests, features, given.repeats)]
    report("store", rows, ("numpy", "h5py", "blake3"), as_json=given.json, save=given.save)


if __name__ == "__main__":
    main()
