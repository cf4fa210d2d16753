"""What is known of one image after another without computing: rows used lately from memory, others from the store."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from featstore.cached import CachedRows
from featstore.errors import DamageError
from featstore.records import Reason
from featstore.spec import Spec
from featstore.store import Store

Found = npt.NDArray[np.float32] | Reason
"""What is known of an image: its features (D,), or why it has none."""

MEMORY_BYTES = 64 * 2**20
"""Of rows that are kept in memory, those used last."""

_ENTRY_BYTES = 256
"""About what a row takes beside its numbers: its digest, and the objects that hold it."""


class KnownRows:
    """The rows of one spec that need not be computed. Safe in threads.

    memory_bytes : of rows that are kept in memory.
    """

    def __init__(self, store: Store, spec: Spec, memory_bytes: int = MEMORY_BYTES) -> None:
        self._store = store
        self._spec = spec
        self._lock = threading.Lock()
        self._memory: OrderedDict[bytes, Found] = OrderedDict()
        self._left = memory_bytes
        self._looked = time.monotonic()
        self._state = store.namespace(spec).state()
        self._cached = CachedRows(store, spec)

    def get(self, digest: bytes) -> Found | None:
        """The row of a digest (32 bytes) if it is in memory or in the store."""
        found = self.recall(digest)
        if found is None and (found := self._look_up(digest)) is not None:
            self.remember(digest, found)
        return found

    def recall(self, digest: bytes) -> Found | None:
        """The row of a digest if it is in memory; it counts as used now."""
        with self._lock:
            if digest in self._memory:
                self._memory.move_to_end(digest)
            return self._memory.get(digest)

    def remember(self, digest: bytes, found: Found) -> None:
        """Keep a row in memory, in the place of those that were not used for the longest time."""
        with self._lock:
            before = self._memory.pop(digest, None)
            self._left -= weight(found) - (0 if before is None else weight(before))
            self._memory[digest] = found
            while self._left < 0:
                _, oldest = self._memory.popitem(last=False)
                self._left += weight(oldest)

    def _look_up(self, digest: bytes) -> Found | None:
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
            if now - self._looked < self._store.place.look_seconds:
                return None
            self._looked = now
        state = self._store.namespace(self._spec).state()  # may take long; meanwhile others go on with what is known
        if state is None or state == self._state:
            return None
        self._state = state
        self._cached = CachedRows(self._store, self._spec)
        return self._cached


def weight(found: npt.NDArray[np.floating] | Reason) -> int:
    """About how many bytes it takes to hold a row."""
    return _ENTRY_BYTES + (0 if isinstance(found, Reason) else found.nbytes)
