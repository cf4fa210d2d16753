"""A writer: gathers rows and commits them as segments, 192 rows, 64 MiB or 5 seconds at a time.

In a segment with features each reject takes the room of a row, too. So where rows are large, rejects that come before
the first features are a segment of their own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featstore.errors import FeatstoreError, InputError
from featstore.records import DIGEST_BYTES, Reason
from featstore.spec import Spec
from featstore.store.place import Place
from featstore.store.rows import BYTES_PER_COMMIT, MAX_ROW_BYTES, ROWS_PER_COMMIT, SECONDS_PER_COMMIT, Rows

if TYPE_CHECKING:
    from featstore.store.structure import Codec


_Pending = tuple[bytes, int, Reason, npt.NDArray[np.floating] | None]
"""Digest, view, reason and features of a row that waits."""


class Writer:
    """Adds rows to a namespace; made by :meth:`Namespace.writer`. For one thread; other writers may run beside it.

    A row is durable once it is counted in ``committed``: when a call that completed a batch returns. Leaving the
    ``with`` block commits what is left, on an error or an interrupt too, unless the last commit failed.
    """

    def __init__(
        self, spec: Spec, folder: Path, place: Place, recorded: Mapping[str, str], codec: Codec = "none"
    ) -> None:
        self.spec = spec
        self.committed = 0
        self._folder, self._place = folder, place
        self._recorded, self._codec = recorded, codec
        self._pending: list[_Pending] = []
        self._since = 0.0
        self._shape: tuple[int, ...] | None = None
        self._failed = False

    @property
    def pending(self) -> int:
        """Rows taken and not yet committed."""
        return len(self._pending)

    def add(self, digest: bytes, view: int, features: npt.NDArray[np.floating]) -> None:
        """Take one row: features (D,) or (H, W, C), copied and stored in the spec's dtype.

        Raises InputError if the shape is not that of the rows before, if the row is larger than a reader takes, or if a
        number is not finite in the spec's dtype (such a row is a reject: :attr:`Reason.NOT_FINITE`); and the errors of
        :meth:`flush`.
        """
        size = features.size * np.dtype(self.spec.dtype).itemsize
        if size > MAX_ROW_BYTES:
            raise InputError(
                "features of one image that are too large for a store",
                where=f"image {digest.hex()}",
                expected=f"at most {MAX_ROW_BYTES >> 20} MiB",
                received=f"{size / 2**20:.0f} MiB, {features.shape}",
                todo="take a smaller image size, a later layer, or pooled features",
            )
        with np.errstate(over="ignore"):  # what overflows is refused in the next line
            row = np.array(features, self.spec.dtype)
        if not np.isfinite(row).all():
            raise InputError(f"features that are not finite in {self.spec.dtype}", where=f"image {digest.hex()}")
        if row.shape != (self._shape or row.shape) or row.ndim not in (1, 3) or not row.size:
            raise InputError(
                "features of the wrong shape",
                where=f"image {digest.hex()}",
                expected=self._shape or "(D,) or (H, W, C)",
                received=row.shape,
            )
        self._shape = row.shape
        self._take(digest, view, Reason.OK, row)

    def reject(self, digest: bytes, view: int, reason: Reason) -> None:
        """Take one row that says why the image has no features. Raises InputError for OK and for UNREADABLE."""
        if reason in (Reason.OK, Reason.UNREADABLE):
            raise InputError("a reject needs a reason that is stored", where="reason", received=Reason(reason).code)
        self._take(digest, view, reason, None)

    def flush(self) -> int:
        """Commit what is pending; returns the number of rows, all durable now.

        Raises NoSpaceError, ReadOnlyError or StorageError; then the rows that are not durable stay pending, and nothing
        is half-written.
        """
        before = self.committed
        while self._pending:
            self._commit(self._complete())
        return self.committed - before

    def close(self) -> None:
        """Commit what is left, unless the last commit failed; errors as in :meth:`flush`."""
        if not self._failed:
            self.flush()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except FeatstoreError as failure:
            if error is None:
                raise
            error.add_note(f"and its last rows could not be committed: {failure}")

    def _take(self, digest: bytes, view: int, reason: Reason, row: npt.NDArray[np.floating] | None) -> None:
        if len(digest) != DIGEST_BYTES or not 0 <= view < 2**16:
            raise InputError(
                "this does not name a row",
                where="digest and view",
                expected="32 bytes, and a number from 0 to 65535",
                received=f"{len(digest)} bytes, {view}",
            )
        now = time.monotonic()
        if not self._pending:
            self._since = now
        self._pending.append((digest, view, reason, row))
        if len(self._pending) > self._complete():  # there is no room for the new one
            self._commit(self._complete())
        if len(self._pending) >= self._complete() or now - self._since >= SECONDS_PER_COMMIT:
            self.flush()

    def _complete(self) -> int:
        """How many of the pending rows, and of those that may follow, make a complete segment.

        As many as have room with features; or the rejects before the first features, if these alone are as many.
        """
        for rejects, (_, _, _, row) in enumerate(self._pending[:ROWS_PER_COMMIT]):
            if row is not None:
                return max(1, rejects, min(ROWS_PER_COMMIT, BYTES_PER_COMMIT // row.nbytes))
        return ROWS_PER_COMMIT

    def _commit(self, count: int) -> None:
        """Make the first ``count`` pending rows durable, or all if there are fewer; errors as in :meth:`flush`."""
        from featstore.store.encode import encode

        taken = self._pending[:count]
        try:
            self._place.commit(encode(self._rows(taken), self.spec, self._recorded, self._codec), self._folder)
        except FeatstoreError:
            self._failed = True
            raise
        del self._pending[:count]
        self._since = time.monotonic()
        self.committed += len(taken)
        self._failed = False

    def _rows(self, taken: Sequence[_Pending]) -> Rows:
        digests, views, reasons, rows = zip(*taken, strict=True)
        features = None
        if any(row is not None for row in rows):
            features = np.zeros((len(rows), *(self._shape or ())), self.spec.dtype)
            for place, row in zip(features, rows, strict=True):
                if row is not None:
                    place[...] = row
        return Rows(
            digests=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES),
            views=np.array(views, np.uint16),
            status=np.array(reasons, np.uint8),
            features=features,
        )
