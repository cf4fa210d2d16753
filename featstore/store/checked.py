"""Which segments were read in full lately, so that the next run need not read gigabytes again to look a row up.

Derived, like the stat cache of images: losing it costs time and nothing else. What is in it is trusted for lookups only
(readers of features check every byte themselves), for a day, and only while the file is as it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from featstore.errors import FeatstoreError
from featstore.records import RACY_NS
from featstore.store.commit import write_text
from featstore.store.rows import FileStamp
from featstore.whole import read_small

MAX_CHECKED = 100_000
"""Segments of a namespace that are remembered for certain: each takes some 150 bytes."""

_MAX_BYTES = 2**24
"""Of all of them."""

_TRUSTED_NS = 24 * 3600 * 10**9


class Checked:
    """The segments of one namespace that were read in full and found sound: name → stamp and time of the check (ns).

    ``file`` is where that is kept (STORE/scan), ``private`` where files are written before they get their names.
    """

    def __init__(self, file: Path, private: Path) -> None:
        self._file = file
        self._private = private
        self._changed = False
        try:
            found = json.loads(read_small(file, _MAX_BYTES))
            self._known = {str(name): tuple(map(int, entry)) for name, entry in found.items()}
        except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):  # lost or damaged
            self._known = {}

    def holds(self, name: str, stamp: FileStamp) -> bool:
        """True if the segment was sound within the last day, as the file that it is now."""
        known = self._known.get(name, ())
        return known[:-1] == stamp and 0 <= time.time_ns() - known[-1] < _TRUSTED_NS

    def put(self, name: str, stamp: FileStamp, began_ns: int) -> None:
        """Remember a check that began at ``began_ns``. A file changed just before could change again unnoticed."""
        if began_ns - max(stamp[1:3]) > RACY_NS:
            self._known[name] = (*stamp, began_ns)
            self._changed = True

    def forget(self, name: str) -> None:
        """The segment was found damaged: whoever looks next must read it."""
        self._changed |= self._known.pop(name, None) is not None

    def save(self, present: Collection[str]) -> None:
        """Write it if it changed, without the segments that are not ``present``. A disk that refuses is no error."""
        if not self._changed:
            return
        known = {name: entry for name, entry in self._known.items() if name in present}
        with suppress(FeatstoreError, OSError):
            self._file.parent.mkdir(exist_ok=True)
            write_text(json.dumps(known), self._file, self._private)
        self._changed = False
