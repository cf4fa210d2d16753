"""A lane carries one spec through a run: pixels → fixed batches → features → rows in the store.

The base computes in a thread of its own, one batch at a time for all lanes. A lane hands it a full batch and, while
that is computed, keeps the rows of the one before and gathers the next: the base waits for nobody, and two batches of a
lane at most are under way.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from featstore.cached import pool
from featstore.extraction.engine import Tally
from featstore.extraction.sink import Sink
from featstore.job import Job
from featstore.records import Reason
from featstore.runtime import BATCH_SIZE, GraphSpec, Runtime, open_runtime
from featstore.spec import Spec
from featstore.store import SECONDS_PER_COMMIT, Store
from featstore.versions import installed_versions

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
    """The pictures and rows of one ``job``. For one thread; its base computes in ``base``, on ``cores`` (None: all).

    What becomes of them is counted in ``tally``, which may be changed for another after :meth:`finish`. Rows go to
    ``sink``, or to a writer of ``store`` that is opened when it is needed.
    """

    def __init__(
        self,
        job: Job,
        store: Store,
        base: Executor,
        tally: Tally,
        *,
        sink: Sink | None = None,
        cores: int | None = None,
    ) -> None:
        self.job = job
        self.tally = tally
        self._store = store
        self._base = base
        self._sink = sink
        self._cores = cores
        self._runtime: Runtime | None = None
        self._counted = 0
        self._claimed: set[bytes] = set()
        self._batch: list[tuple[bytes, int, npt.NDArray[np.uint8]]] = []
        self._computing: deque[tuple[list[tuple[bytes, int]], Future[_Computed]]] = deque()

    def claim(self, digest: bytes) -> bool:
        """True the first time: copies of one image are computed once."""
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
        self.tally.rejected[digest, view] = reason
        with self._timed("write"):
            self._writer().reject(digest, view, reason)

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
                try:
                    with self._timed("write"):
                        self._sink.close()
                finally:
                    self.tally.committed += self._sink.committed - self._counted
                    self._counted = self._sink.committed

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
        self.tally.seconds["backbone"] += seconds
        writer = self._writer()
        for (digest, view), row, good in zip(keys, rows, finite, strict=True):
            if not good:
                self.reject(digest, view, Reason.NOT_FINITE)
                continue
            with self._timed("write"):
                writer.add(digest, view, row)
            self.tally.computed += 1
        if seconds >= SECONDS_PER_COMMIT:  # a slow base: do not wait for the next batch to commit
            with self._timed("write"):
                writer.flush()

    def _writer(self) -> Sink:
        if self._sink is None:
            recorded = {**installed_versions(), "runtime": self.job.runtime}
            self._sink = self._store.namespace(self.job.spec).writer(recorded)
        return self._sink

    def _open_runtime(self) -> Runtime:
        if self._runtime is None:
            with self._timed("startup"):
                graph = GraphSpec.of(self.job.base, self.job.spec)
                self._runtime = open_runtime(graph, self.job.runtime, self.job.device, cores=self._cores)
        return self._runtime

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.tally.seconds[stage] += time.perf_counter() - started
