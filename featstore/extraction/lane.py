"""A lane carries one spec through a run: pixels → fixed batches → features → rows in the store.

The base computes in a thread of its own, one batch at a time for all lanes. A lane hands it a full batch and, while
that is computed, keeps the rows of the one before and gathers the next: the base waits for nobody, and two batches of a
lane at most are under way.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from typing import Protocol

import numpy as np
import numpy.typing as npt

from featstore.augmentation import Policy
from featstore.cached import CachedRows, pool
from featstore.errors import NoSpaceError, ReadOnlyError, StorageError
from featstore.extraction.reader import Picture
from featstore.job import Job
from featstore.records import Digests, Reason
from featstore.runtime import BATCH_SIZE, GraphSpec, Runtime, open_runtime
from featstore.spec import Spec
from featstore.store import SECONDS_PER_COMMIT, Store
from featstore.versions import installed_versions


class Sink(Protocol):
    """Where finished rows go: a store's writer, or memory. ``committed`` counts the rows that are safe there."""

    committed: int

    def add(self, digest: bytes, view: int, features: npt.NDArray[np.floating]) -> None:
        """Take one row of features."""

    def reject(self, digest: bytes, view: int, reason: Reason) -> None:
        """Take one reject."""

    def flush(self) -> object:
        """Make everything taken so far durable."""

    def close(self) -> None:
        """The same, for the last time."""


class MemorySink:
    """Rows kept in memory, for predictions where the store is not to be written.

    ``rows`` maps (digest, view) → features.
    """

    def __init__(self) -> None:
        self.committed = 0
        self.rows: dict[tuple[bytes, int], npt.NDArray[np.floating]] = {}

    def add(self, digest: bytes, view: int, features: npt.NDArray[np.floating]) -> None:
        """Keep one row."""
        self.rows[digest, view] = features

    def reject(self, digest: bytes, view: int, reason: Reason) -> None:
        """Nothing to keep: the lane remembers its rejects."""

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


_Computed = tuple[npt.NDArray[np.floating], npt.NDArray[np.bool_], float]
"""Rows of features, which of them are finite, and the seconds that the base took."""


def compute_rows(
    runtime: Runtime, spec: Spec, images: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.bool_]]:
    """The rows of ``spec`` for images (n, H, W, 3), in its dtype, and which of them are finite, bool (n,)."""
    features: npt.NDArray[np.floating] = runtime(images)
    if spec.pooling == "flatten":
        features = pool(features, "flatten")
    with np.errstate(over="ignore"):  # what overflows the stored dtype is not finite
        rows = features.astype(spec.dtype, copy=False)
    return rows, np.isfinite(rows).reshape(len(rows), -1).all(axis=1)


class Lane:
    """One spec of a run, with the views that its job asks for. For one thread; ``base`` is where its base computes.

    ``computed`` counts the rows of features that this run added, ``rejected`` holds its rejects by (digest, view),
    ``seconds`` its wall time by stage ("startup", "backbone", "write").
    """

    def __init__(
        self, job: Job, store: Store, base: Executor, *, retry_rejected: bool = False, sink: Sink | None = None
    ) -> None:
        self.job = job
        self.rows = CachedRows(store, job.spec, lookups_only=True)
        self.computed = 0
        self.rejected: dict[tuple[bytes, int], Reason] = {}
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._store = store
        self._base = base
        self._retry = retry_rejected
        self._sink = sink
        self._wrote = False
        self._runtime: Runtime | None = None
        self._policy = Policy.from_text(job.spec.augmentation) if job.spec.augmentation else None
        self._claimed: set[bytes] = set()
        self._batch: list[tuple[bytes, int, npt.NDArray[np.uint8]]] = []
        self._computing: deque[tuple[list[tuple[bytes, int]], Future[_Computed]]] = deque()

    @property
    def committed(self) -> int:
        """Rows of this run, rejects among them, that are safe."""
        return self._sink.committed if self._sink is not None else 0

    @property
    def quarantined(self) -> int:
        """Damaged segments that this run's writer has set aside; their rows were missing like any others."""
        return len(self.rows.own.damaged) if self._wrote else 0

    def status(self, digests: Digests) -> npt.NDArray[np.int16]:
        """For each view and digest, (V, N): -1 no row, 0 features, above 0 the number of the reject's Reason."""
        return np.stack([self.rows.lookup(digests, view) for view in self.job.views])

    def missing(self, digests: Digests) -> npt.NDArray[np.bool_]:
        """For each view and digest, (V, N), whether this run has to compute the row."""
        status = self.status(digests)
        return np.asarray(status != 0 if self._retry else status == -1)

    def pictures(self, digest: bytes) -> frozenset[Picture]:
        """The views that the store has no row for; safe to call from any thread."""
        missing = self.missing(np.frombuffer(digest, np.uint8).reshape(1, -1))[:, 0]
        views = np.array(self.job.views)[missing].tolist()
        return frozenset(Picture(self.job.spec.pixels, view, self._policy) for view in views)

    def claim(self, digest: bytes) -> bool:
        """True the first time in this run: copies of one image are computed once."""
        fresh = digest not in self._claimed
        self._claimed.add(digest)
        return fresh

    def push(self, digest: bytes, view: int, pixels: npt.NDArray[np.uint8]) -> None:
        """Queue uint8 (H, W, 3); a full batch is handed to the base."""
        self._batch.append((digest, view, pixels))
        if len(self._batch) == BATCH_SIZE:
            self._send()

    def reject(self, digest: bytes, view: int, reason: Reason) -> None:
        """Record that this view of the image cannot become features."""
        self.rejected[digest, view] = reason
        with self._timed("write"):
            self._writer().reject(digest, view, reason)

    def set_damaged_aside(self) -> None:
        """Have the damaged segments that were found set aside, even if no row is to be computed. Where the store cannot
        be written they stay: none of their rows is served anyway.
        """
        if self.rows.own.damaged and self._sink is None:
            with suppress(ReadOnlyError, NoSpaceError, StorageError):
                self._writer()

    def finish(self) -> None:
        """Run the last, padded batch and commit every row."""
        if self._batch:
            self._send()
        self.close()

    def close(self) -> None:
        """Commit the rows that are complete or being computed; drop the images still waiting for a batch."""
        self._batch.clear()
        try:
            while self._computing:
                self._keep_first()
        finally:
            if self._sink is not None:
                with self._timed("write"):
                    self._sink.close()

    def _send(self) -> None:
        if self._sink is None:  # a store that cannot be written costs no computing
            self._store.check_writable()
        runtime = self._open_runtime()
        self._writer()
        digests, views, pixels = zip(*self._batch, strict=True)
        self._batch.clear()
        keys = list(zip(digests, views, strict=True))
        self._computing.append((keys, self._base.submit(self._compute, runtime, np.stack(pixels))))
        if len(self._computing) > 1:
            self._keep_first()

    def _compute(self, runtime: Runtime, images: npt.NDArray[np.uint8]) -> _Computed:
        """In the base's thread."""
        started = time.perf_counter()
        rows, finite = compute_rows(runtime, self.job.spec, images)
        return rows, finite, time.perf_counter() - started

    def _keep_first(self) -> None:
        """Wait for the batch that was handed over first, and give its rows to the writer."""
        keys, future = self._computing[0]
        try:
            rows, finite, seconds = future.result()
        except Exception:
            self._computing.popleft()
            raise
        self._computing.popleft()  # not before: an interrupted wait leaves it to be kept at the end
        self.seconds["backbone"] += seconds
        writer = self._writer()
        for (digest, view), row, good in zip(keys, rows, finite, strict=True):
            if not good:
                self.reject(digest, view, Reason.NOT_FINITE)
                continue
            with self._timed("write"):
                writer.add(digest, view, row)
            self.computed += 1
        if seconds >= SECONDS_PER_COMMIT:  # a slow base: do not wait for the next batch to commit
            with self._timed("write"):
                writer.flush()

    def _writer(self) -> Sink:
        if self._sink is None:
            recorded = {**installed_versions(), "runtime": self.job.runtime}
            self._sink = self._store.namespace(self.job.spec).writer(recorded)
            self._wrote = True
        return self._sink

    def _open_runtime(self) -> Runtime:
        if self._runtime is None:
            with self._timed("startup"):
                graph = GraphSpec.of(self.job.base, self.job.spec)
                self._runtime = open_runtime(graph, self.job.runtime, self.job.device)
        return self._runtime

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started
