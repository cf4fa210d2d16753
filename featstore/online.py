"""Rows of images that come one at a time: from the store where it has them, else computed in batches that are shared.

Whoever asks gets a future. The base computes in a thread of its own: it takes what waits, at most for
:data:`MAX_WAIT_SECONDS`, and a row does not depend on who shared its batch. Rows are committed to the store like those
of an extraction; an image that is known costs no forward pass.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featstore.decode import decode
from featstore.errors import FeatstoreError
from featstore.extraction import compute_rows
from featstore.job import Job
from featstore.keeping import Keeper
from featstore.known import Found, KnownRows
from featstore.records import Reason, Rejected
from featstore.runtime import BATCH_SIZE, GraphSpec, Runtime, open_runtime
from featstore.store import SECONDS_PER_COMMIT, Store
from featstore.versions import installed_versions

MAX_WAIT_SECONDS = 0.005
"""How long the first image of a batch waits for others."""

MAX_WAITING = 256
"""Images that may wait for one base; more are refused (:class:`Busy`)."""

MAX_WAITING_OF_ONE = MAX_WAITING // 2
"""Images that may wait or be computed for one who asks: the others must find a place, too."""

_SIZES = (8, 1)
"""Images of a batch in OpenVINO: single ones soon, many at once. 32 would not be faster (docs/benchmarks.md), and its
graph would take more memory than all the rest, from the first time that so many wait.
"""


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


@dataclass(frozen=True, slots=True)
class _Asked:
    """A row that is not there yet, and who asked for it first."""

    row: Future[Row]
    asker: str | None


class OnlineRows:
    """The rows of one job, asked for image by image. Safe in threads; close it at the end.

    keep : commit new rows to the store. While it cannot be written they are used from memory, ``problem`` says why, and
        it is tried again every few seconds.
    turn : held while the base computes, so that several bases do not share the cores.
    warm : open the base now, and not with the first new image.
    """

    def __init__(
        self, job: Job, store: Store, *, keep: bool = True, turn: threading.Lock | None = None, warm: bool = False
    ) -> None:
        self.job = job
        self.computed = 0
        self._turn = turn or threading.Lock()
        recorded = {**installed_versions(), "runtime": job.runtime}
        self._keeper = Keeper(store.namespace(job.spec), recorded) if keep else None
        self._lock = threading.Lock()
        self._known = KnownRows(store, job.spec)
        self._asked: dict[bytes, _Asked] = {}
        self._waiting: queue.Queue[tuple[bytes, npt.NDArray[np.uint8] | Reason] | None] = queue.Queue()
        self._sizes = _SIZES if job.runtime == "openvino" else (BATCH_SIZE,)
        self._runtimes: dict[int, Runtime] = {}
        self._closing = False
        if warm:
            self._runtime(self._sizes[-1])
        self._thread = threading.Thread(target=self._work, name="featstore-online", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> str | None:
        """Why new rows cannot be committed for now."""
        return self._keeper.problem if self._keeper else None

    @property
    def waiting(self) -> int:
        """Images that wait for the base."""
        return self._waiting.qsize()

    def ask(
        self, data: bytes, asker: str | None = None, permit: AbstractContextManager[None] | None = None
    ) -> Future[Row]:
        """The row of the picture file ``data``; decoded here, computed elsewhere.

        asker : in whose name it waits; those without a name count as one.
        permit : held while the picture is decoded, if it has to be; may raise :class:`Busy`.

        Raises :class:`Busy` if too much waits, of this one or of all, or if this is being closed.
        """
        digest = hashlib.sha256(data).digest()
        if (known := self.known(digest)) is not None:
            return _done(known)
        with self._lock:
            if (asked := self._asked.get(digest)) is not None:
                return asked.row
            if (found := self._known.recall(digest)) is not None:  # since we looked
                return _done(_row(digest, found, from_cache=True))
            of_this_one = sum(other.asker == asker for other in self._asked.values())
            if self._closing or self._waiting.qsize() >= MAX_WAITING or of_this_one >= MAX_WAITING_OF_ONE:
                raise Busy
            future: Future[Row] = Future()
            self._asked[digest] = _Asked(future, asker)
        try:
            with permit or nullcontext():
                [pixels] = decode(data, [self.job.spec.pixels])
        except Rejected as rejected:
            if rejected.reason is Reason.UNREADABLE:  # for want of memory, not for what is in the file: nothing to keep
                self._answer(digest, _row(digest, rejected.reason, from_cache=False))
            else:
                self._waiting.put((digest, rejected.reason))
        except Busy as busy:
            self._answer(digest, busy)  # others who asked for the same
            raise
        except BaseException as error:
            self._answer(digest, error)
        else:
            self._waiting.put((digest, pixels))
        return future

    def known(self, digest: bytes) -> Row | None:
        """The row of a digest (32 bytes) if it is remembered or in the store; None if it would have to be computed."""
        found = self._known.get(digest)
        return None if found is None else _row(digest, found, from_cache=True)

    def close(self) -> None:
        """Answer what was asked, commit what is new, and end the thread. What is known can still be looked up."""
        with self._lock:
            self._closing = True
        self._waiting.put(None)
        self._thread.join()

    # ---- computed: everything below runs in the thread, but for _answer ----------------------------------------------

    def _work(self) -> None:
        while not self._closing or self._asked:  # in this order: once it is closing, nothing more is asked for
            try:
                self._turn_once()
            except Exception as error:  # a fault of ours must not leave anybody waiting
                self._fail(list(self._asked), error)
        if self._keeper:
            self._keeper.close()

    def _turn_once(self) -> None:
        """Compute what waits, or commit if nothing does."""
        idle = False
        batch: list[tuple[bytes, npt.NDArray[np.uint8]]] = []
        deadline = time.monotonic() + SECONDS_PER_COMMIT
        while len(batch) < self._sizes[0]:
            try:
                item = self._waiting.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                item = None
            if item is None:  # nothing more comes, or it is being closed
                idle = not batch
                break
            digest, found = item
            if isinstance(found, Reason):
                self._finish(digest, found)
                if batch and time.monotonic() >= deadline:  # however many of these are there
                    break
                continue
            if not batch:
                deadline = time.monotonic() + MAX_WAIT_SECONDS
            batch.append((digest, found))
        while batch:
            size = _size(len(batch), self._sizes)
            self._compute(batch[:size], size)
            del batch[:size]
        if idle and self._keeper:  # in between it commits what is full or five seconds old
            self._keeper.commit()

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
            self._finish(digest, row if good else Reason.NOT_FINITE)

    def _runtime(self, size: int) -> Runtime:
        if size not in self._runtimes:
            graph = GraphSpec.of(self.job.base, self.job.spec)
            self._runtimes[size] = open_runtime(graph, self.job.runtime, self.job.device, size)
        return self._runtimes[size]

    def _finish(self, digest: bytes, found: npt.NDArray[np.floating] | Reason) -> None:
        if self._keeper:
            self._keeper.take(digest, found)
        known = found if isinstance(found, Reason) else found.astype(np.float32).reshape(-1)
        self._known.remember(digest, known)
        self._answer(digest, _row(digest, known, from_cache=False))

    def _fail(self, digests: Iterable[bytes], error: Exception) -> None:
        known = error if isinstance(error, FeatstoreError) else FeatstoreError(f"the base cannot compute: {error}")
        for digest in digests:
            self._answer(digest, known)

    def _answer(self, digest: bytes, answer: Row | BaseException) -> None:
        with self._lock:
            asked = self._asked.pop(digest, None)
        if asked is None:
            return
        if isinstance(answer, Row):
            asked.row.set_result(answer)
        else:
            asked.row.set_exception(answer)


def _size(waiting: int, sizes: Sequence[int]) -> int:
    """How many of the waiting images to compute at once; fewer than the least size are padded by the runtime."""
    return next((size for size in sizes if size <= waiting), sizes[-1])


def _row(digest: bytes, found: Found, *, from_cache: bool) -> Row:
    if isinstance(found, Reason):
        return Row(digest, None, found, from_cache)
    return Row(digest, found, Reason.OK, from_cache)


def _done(row: Row) -> Future[Row]:
    future: Future[Row] = Future()
    future.set_result(row)
    return future
