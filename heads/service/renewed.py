"""What is slow to make and may be a little old."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Renewed(Generic[_T]):
    """What ``make`` gives, which is given the one before (at first None). The first who asks when it is ``seconds`` old
    makes it again; meanwhile the others get the one before. Safe in threads.
    """

    def __init__(self, make: Callable[[_T | None], _T], seconds: float) -> None:
        self._make = make
        self._seconds = seconds
        self._making = threading.Lock()
        self._made: tuple[_T, float] | None = None
        self._changes = 0

    @property
    def made(self) -> _T | None:
        """The value that is there, however old; None if there is none."""
        return self._made[0] if self._made else None

    def get(self) -> _T:
        """The value; raises what making it raises."""
        made = self._made
        if made is not None and (time.monotonic() - made[1] < self._seconds or self._making.locked()):
            return made[0]
        with self._making:
            newest = self._made
            if newest is None or newest is made:  # nobody has made it since
                changes = self._changes
                value = self._make(self.made)
                newest = self._made = value, time.monotonic() if self._changes == changes else -math.inf
            return newest[0]

    def outdate(self) -> None:
        """What it is made from has changed: the next who asks makes it again, however new it is."""
        self._changes += 1
        if self._made is not None:
            self._made = self._made[0], -math.inf
