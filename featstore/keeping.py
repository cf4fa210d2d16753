"""New rows on their way into a store that cannot always be written: what waits is committed once it can."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from featstore.errors import FeatstoreError
from featstore.known import MEMORY_BYTES, weight
from featstore.records import Reason
from featstore.store import Namespace, Writer

_LOG = logging.getLogger(__name__)


class Keeper:
    """Commits rows to one namespace as its writer does, and lives on when that fails. For one thread.

    problem : why rows cannot be committed now; None if they can.
    lost : rows that were given up, the oldest first, as more than ``memory_bytes`` were waiting.
    """

    def __init__(self, namespace: Namespace, recorded: Mapping[str, str], memory_bytes: int = MEMORY_BYTES) -> None:
        self.problem: str | None = None
        self.lost = 0
        self._last = ""
        self._namespace, self._recorded = namespace, recorded
        self._writer: Writer | None = None
        self._waiting: deque[tuple[bytes, npt.NDArray[np.floating] | Reason]] = deque()
        self._left = memory_bytes

    @property
    def pending(self) -> int:
        """Rows taken that are not durable yet."""
        return len(self._waiting) + (self._writer.pending if self._writer else 0)

    def take(self, digest: bytes, found: npt.NDArray[np.floating] | Reason) -> None:
        """Take a row; it is committed with those of the last seconds, or if that failed, by :meth:`commit`."""
        self._waiting.append((digest, found))
        self._left -= weight(found)
        if self.problem is None:
            self._try(self._hand_over)
        while self._left < 0:
            self._left += weight(self._waiting.popleft()[1])
            self.lost += 1

    def commit(self) -> None:
        """Make durable all that is not, again if it failed before; to be called every few seconds."""
        if self.pending:
            self._try(self._flush)

    def close(self) -> None:
        """Commit what can be, and say in the log how many rows were lost."""
        self.commit()
        self.lost += self.pending
        if self.lost:
            _LOG.warning("%d new rows could not be kept: %s", self.lost, self._last)

    def _hand_over(self) -> None:
        if self._writer is None:
            self._writer = self._namespace.writer(self._recorded)
        while self._waiting:
            digest, found = self._waiting.popleft()  # first: the writer has it even if its commit fails
            self._left += weight(found)
            if isinstance(found, Reason):
                self._writer.reject(digest, 0, found)
            else:
                self._writer.add(digest, 0, found)

    def _flush(self) -> None:
        if self.problem is not None:
            self._namespace.writer(self._recorded)  # which makes its folders, should they be gone
        if self._writer is not None:
            self._writer.flush()
        self._hand_over()
        if self._writer is not None:
            self._writer.flush()

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
            self.problem = None
        except FeatstoreError as error:
            if self.problem is None:
                _LOG.warning("new rows cannot be kept for now: %s", error.what)
            self.problem = self._last = error.what
