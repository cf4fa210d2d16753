"""A writer: gathers rows and commits them as segments, 192 rows, 64 MiB or 5 seconds at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featstore.errors import FeatstoreError, InputError
from featstore.records import DIGEST_BYTES, Reason
from featstore.spec import Spec
from featstore.store.commit import commit
from featstore.store.rows import BYTES_PER_COMMIT, ROWS_PER_COMMIT, SECONDS_PER_COMMIT, Rows

if TYPE_CHECKING:
    from featstore.store.structure import Codec


class Writer:
    """Adds rows to a namespace; made by :meth:`Namespace.writer`. For one thread; other writers may run beside it.

    A row is durable once it is counted in ``committed``: when a call that completed a batch returns. Leaving the
    ``with`` block commits what is left, on an error or an interrupt too, unless the last commit failed.
    """

    def __init__(
        self, spec: Spec, folder: Path, private: Path, recorded: Mapping[str, str], codec: Codec = "none"
    ) -> None:
        self.spec = spec
        self.committed = 0
        self._folder, self._private = folder, private
        self._recorded, self._codec = recorded, codec
        self._pending: list[tuple[bytes, int, Reason, npt.NDArray[np.floating] | None]] = []
        self._pending_bytes = 0
        self._since = 0.0
        self._shape: tuple[int, ...] | None = None
        self._failed = False

    @property
    def pending(self) -> int:
        """Rows taken and not yet committed."""
        return len(self._pending)

    def add(self, digest: bytes, view: int, features: npt.NDArray[np.floating]) -> None:
        """Take one row: features (D,) or (H, W, C), copied and stored in the spec's dtype.

        Raises InputError if the shape is not that of the rows before, or if a number is not finite in the spec's
        dtype (such a row is a reject: :attr:`Reason.NOT_FINITE`); and the errors of :meth:`flush`.
        """
        with np.errstate(over="ignore"):  # what overflows is refused in the next line
            row = np.array(features, self.spec.dtype)
        if not np.isfinite(row).all():
            raise InputError(f"features that are not finite in {self.spec.dtype}", where=f"image {digest.hex()}")
        if row.shape != (self._shape or row.shape) or row.ndim not in (1, 3):
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

        Raises NoSpaceError, ReadOnlyError or StorageError; then the rows stay pending and nothing is half-written.
        """
        if not self._pending:
            return 0
        from featstore.store.encode import encode

        try:
            commit(encode(self._rows(), self.spec, self._recorded, self._codec), self._folder, self._private)
        except FeatstoreError:
            self._failed = True
            raise
        done = len(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        self.committed += done
        self._failed = False
        return done

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
        self._pending_bytes += 0 if row is None else row.nbytes
        full = len(self._pending) >= ROWS_PER_COMMIT or self._pending_bytes >= BYTES_PER_COMMIT
        if full or now - self._since >= SECONDS_PER_COMMIT:
            self.flush()

    def _rows(self) -> Rows:
        digests, views, reasons, rows = zip(*self._pending, strict=True)
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
