"""Rows of images that come one at a time: from the store where it has them, else computed in batches that are shared.

Whoever asks gets a future. The base computes in a thread of its own: it takes what waits, at most for
:data:`MAX_WAIT_SECONDS`, and a row does not depend on who shared its batch. Rows are committed to the store like those
of an extraction; an image that is known costs no forward pass.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featstore.cached import CachedRows
from featstore.decode import decode
from featstore.errors import DamageError, FeatstoreError
from featstore.extraction import compute_rows
from featstore.job import Job
from featstore.records import Reason, Rejected
from featstore.runtime import BATCH_SIZE, GraphSpec, Runtime, open_runtime
from featstore.store import SECONDS_PER_COMMIT, Store, Writer
from featstore.versions import installed_versions

MAX_WAIT_SECONDS = 0.005
"""How long the first image of a batch waits for others."""

MAX_WAITING = 256
"""Images that may wait for one base; more are refused (:class:`Busy`)."""

_MIDDLE_BATCH = 8
_REMEMBERED = 4096
"""Rows that are kept in memory, those used last."""

_LOOK_SECONDS = 1.0
"""How often it is looked up whether others have added rows to the store."""


class Busy(Exception):
    """More images are waiting than will be computed soon: ask again later."""


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of one image. features : float32 (D,), None where ``reason`` is not ``Reason.OK``.

    from_cache : whether it was known before it was asked for.
    """

    digest: bytes
    features: npt.NDArray[np.float32] | None
    reason: Reason
    from_cache: bool


class OnlineRows:
    """The rows of one job, asked for image by image. Safe in threads; close it at the end.

    keep : commit new rows to the store. Where it cannot be written they are used and forgotten; ``problem`` says why.
    turn : held while the base computes, so that several bases do not share the cores.
    """

    def __init__(self, job: Job, store: Store, *, keep: bool = True, turn: threading.Lock | None = None) -> None:
        self.job = job
        self.problem: str | None = None
        self.computed = 0
        self._store = store
        self._keep = keep
        self._turn = turn or threading.Lock()
        self._namespace = store.namespace(job.spec)
        self._lock = threading.Lock()
        self._remembered: OrderedDict[bytes, npt.NDArray[np.float32] | Reason] = OrderedDict()
        self._asked: dict[bytes, Future[Row]] = {}
        self._cached = CachedRows(store, job.spec)
        self._looked = time.monotonic()
        self._listed = self._folder_time()
        self._waiting: queue.Queue[tuple[bytes, npt.NDArray[np.uint8] | Reason] | None] = queue.Queue()
        self._runtimes: dict[int, Runtime] = {}
        self._writer: Writer | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="featstore-online", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Images that wait for the base."""
        return self._waiting.qsize()

    def ask(self, data: bytes) -> Future[Row]:
        """The row of the picture file ``data``; decoded here, computed elsewhere. Raises :class:`Busy`."""
        digest = hashlib.sha256(data).digest()
        if (known := self.known(digest)) is not None:
            return _done(known)
        with self._lock:
            if (asked := self._asked.get(digest)) is not None:
                return asked
            if (found := self._remembered.get(digest)) is not None:  # since we looked
                return _done(_row(digest, found, from_cache=True))
            if self._waiting.qsize() >= MAX_WAITING:
                raise Busy
            future: Future[Row] = Future()
            self._asked[digest] = future
        try:
            [pixels] = decode(data, [self.job.spec.pixels])
        except Rejected as rejected:
            self._waiting.put((digest, rejected.reason))
        except BaseException as error:
            self._answer(digest, error)
        else:
            self._waiting.put((digest, pixels))
        return future

    def known(self, digest: bytes) -> Row | None:
        """The row of a digest (32 bytes) if it is remembered or in the store; None if it would have to be computed."""
        with self._lock:
            found = self._remembered.get(digest)
            if found is not None:
                self._remembered.move_to_end(digest)
                return _row(digest, found, from_cache=True)
        found = self._look_up(digest)
        if found is None:
            return None
        self._remember(digest, found)
        return _row(digest, found, from_cache=True)

    def warm(self) -> None:
        """Open the base now, and not with the first new image."""
        with self._turn:
            self._runtime(1)

    def close(self) -> None:
        """Answer what waits, commit what is new, and end the thread."""
        self._closing = True
        self._waiting.put(None)
        self._thread.join()

    # ---- in the store ------------------------------------------------------------------------------------------------

    def _look_up(self, digest: bytes) -> npt.NDArray[np.float32] | Reason | None:
        wanted = np.frombuffer(digest, np.uint8).reshape(1, -1)
        for rows in (self._cached, self._fresh()):
            if rows is None:
                continue
            status = int(rows.lookup(wanted)[0])
            if status > 0:
                return Reason(status)
            if status == 0:
                try:
                    return np.asarray(rows.read(wanted)[0], np.float32).reshape(-1)
                except DamageError:  # since it was looked at: compute it again
                    continue
        return None

    def _fresh(self) -> CachedRows | None:
        """The rows of now, if others may have added some since the last look."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked < _LOOK_SECONDS:
                return None
            self._looked = now
            listed = self._folder_time()
            if listed == self._listed:
                return None
            self._listed = listed
        self._cached = CachedRows(self._store, self.job.spec)
        return self._cached

    def _folder_time(self) -> int:
        try:
            return os.stat(self._namespace.segment_folder).st_mtime_ns
        except OSError:
            return 0

    # ---- computed: everything below runs in the thread, but for _answer ----------------------------------------------

    def _work(self) -> None:
        last = False
        while not last:
            try:
                last = self._turn_once()
            except Exception as error:  # a fault of ours must not leave anybody waiting
                self._fail(list(self._asked), error)
                last = self._closing

    def _turn_once(self) -> bool:
        """Compute what waits, or commit if nothing does; True if it was the last time."""
        last = idle = False
        batch: list[tuple[bytes, npt.NDArray[np.uint8]]] = []
        deadline = time.monotonic() + SECONDS_PER_COMMIT
        while len(batch) < BATCH_SIZE:
            try:
                item = self._waiting.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                idle = not batch
                break
            if item is None:
                last = True
                break
            digest, found = item
            if isinstance(found, Reason):
                self._store_row(lambda writer, d=digest, r=found: writer.reject(d, 0, r))  # type: ignore[misc]
                self._finish(digest, found)
                continue
            if not batch:
                deadline = time.monotonic() + MAX_WAIT_SECONDS
            batch.append((digest, found))
        while batch:
            size = _size(len(batch))
            self._compute(batch[:size], size)
            del batch[:size]
        if last or idle:  # in between the writer commits what is full or five seconds old
            self._commit()
        return last

    def _compute(self, batch: list[tuple[bytes, npt.NDArray[np.uint8]]], size: int) -> None:
        digests, pixels = zip(*batch, strict=True)
        try:
            with self._turn:
                rows, finite = compute_rows(self._runtime(size), self.job.spec, np.stack(pixels))
        except Exception as error:
            self._fail(digests, error)
            return
        self.computed += len(batch)
        for digest, row, good in zip(digests, rows, finite, strict=True):
            if good:
                self._store_row(lambda writer, d=digest, r=row: writer.add(d, 0, r))  # type: ignore[misc]
                self._finish(digest, row.astype(np.float32).reshape(-1))
            else:
                self._store_row(lambda writer, d=digest: writer.reject(d, 0, Reason.NOT_FINITE))  # type: ignore[misc]
                self._finish(digest, Reason.NOT_FINITE)

    def _runtime(self, size: int) -> Runtime:
        size = size if self.job.runtime == "openvino" else BATCH_SIZE
        if size not in self._runtimes:
            graph = GraphSpec.of(self.job.base, self.job.spec)
            self._runtimes[size] = open_runtime(graph, self.job.runtime, self.job.device, size)
        return self._runtimes[size]

    def _store_row(self, put: Callable[[Writer], None]) -> None:
        if not self._keep:
            return
        try:
            if self._writer is None:
                recorded = {**installed_versions(), "runtime": self.job.runtime}
                self._writer = self._namespace.writer(recorded)
            put(self._writer)
            self.problem = None
        except FeatstoreError as error:
            self._forget(error)

    def _commit(self) -> None:
        if self._writer is None:
            return
        try:
            self._writer.flush()
        except FeatstoreError as error:
            self._forget(error)

    def _forget(self, error: FeatstoreError) -> None:
        """The rows that could not be committed are used and forgotten; the next one tries again."""
        self.problem = error.what
        self._writer = None

    def _fail(self, digests: Iterable[bytes], error: Exception) -> None:
        known = error if isinstance(error, FeatstoreError) else FeatstoreError(f"the base cannot compute: {error}")
        for digest in digests:
            self._answer(digest, known)

    def _finish(self, digest: bytes, found: npt.NDArray[np.float32] | Reason) -> None:
        self._remember(digest, found)
        self._answer(digest, _row(digest, found, from_cache=False))

    def _remember(self, digest: bytes, found: npt.NDArray[np.float32] | Reason) -> None:
        with self._lock:
            self._remembered[digest] = found
            if len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)

    def _answer(self, digest: bytes, answer: Row | BaseException) -> None:
        with self._lock:
            future = self._asked.pop(digest, None)
        if future is None:
            return
        if isinstance(answer, Row):
            future.set_result(answer)
        else:
            future.set_exception(answer)


def _size(waiting: int) -> int:
    """How many of the waiting images to compute at once: single ones soon, many without padding."""
    return next(size for size in (BATCH_SIZE, _MIDDLE_BATCH, 1) if size <= waiting)


def _row(digest: bytes, found: npt.NDArray[np.float32] | Reason, *, from_cache: bool) -> Row:
    if isinstance(found, Reason):
        return Row(digest, None, found, from_cache)
    return Row(digest, found, Reason.OK, from_cache)


def _done(row: Row) -> Future[Row]:
    future: Future[Row] = Future()
    future.set_result(row)
    return future
