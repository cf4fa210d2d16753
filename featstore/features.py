"""Features of files, cached or fresh: what predictions and the scikit-learn transformer stand on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featstore.cached import CachedRows
from featstore.dataset import Dataset
from featstore.errors import NoSpaceError, ReadOnlyError
from featstore.extraction import ExtractOptions, MemorySink, extract
from featstore.job import Job
from featstore.progress import Progress, silent
from featstore.records import Reason
from featstore.store import Store


@dataclass(frozen=True, slots=True)
class Features:
    """Features of N files in the order given.

    values : float32 (N, D); zeros where ``reasons`` (N,) is not ``Reason.OK``.
    cached : bool (N,), True where the row was in the store already.
    """

    values: npt.NDArray[np.float32]
    reasons: tuple[Reason, ...]
    cached: npt.NDArray[np.bool_]


def features_of(dataset: Dataset, job: Job, store: Store, progress: Progress = silent) -> Features:
    """The features of every file of ``dataset``: from the store where they are known, else computed now.

    New rows are committed, unless the store is read-only or its disk full: then they are used and forgotten.
    """
    memory = None if _can_write(store) else MemorySink()
    done = extract(dataset, [job], store, ExtractOptions(), progress, memory)
    good = np.flatnonzero(done.reasons[0] == 0)
    rows = CachedRows(store, job.spec)
    features = rows.read(done.digests[good]) if memory is None else _merge(rows, memory, done.digests[good])
    width = features[0].size if len(features) else 0
    values = np.zeros((len(dataset), width), np.float32)
    values[good] = features.reshape(len(good), width)
    cached = (done.reasons[0] == 0) & ~done.computed[0]
    return Features(values, tuple(Reason(int(r)) for r in done.reasons[0]), cached)


def _merge(rows: CachedRows, memory: MemorySink, digests: npt.NDArray[np.uint8]) -> npt.NDArray[np.floating]:
    fresh = [memory.rows.get((digest.tobytes(), 0)) for digest in digests]
    stored = iter(rows.read(digests[[row is None for row in fresh]]))
    return np.stack([next(stored) if row is None else row for row in fresh]) if fresh else np.zeros((0, 0))


def _can_write(store: Store) -> bool:
    try:
        store.create().check_writable()
    except (ReadOnlyError, NoSpaceError):
        return False
    return True
