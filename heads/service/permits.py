"""Permits for what takes much memory: so many at a time, and nobody waits behind the many of another address."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from featstore.online import Busy
from heads.service.limits import Shares


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    asker: str | None


class Permits:
    """``count`` permits, of which one who asks has at most half. Of those who wait the next is one with the fewest, and
    of these the one who came first. Safe in threads.
    """

    def __init__(self, count: int) -> None:
        self._shares = Shares(count)
        self._waiting: list[_Waiting] = []
        self._changed = threading.Condition()

    @contextmanager
    def one(self, asker: str | None, deadline: float) -> Iterator[None]:
        """A permit while the block runs. Raises Busy if there is none by ``deadline`` (of ``time.monotonic``)."""
        self._wait(_Waiting(asker), deadline)
        try:
            yield
        finally:
            with self._changed:
                self._shares.give_back(asker)
                self._changed.notify_all()

    def _wait(self, mine: _Waiting, deadline: float) -> None:
        with self._changed:
            self._waiting.append(mine)
            try:
                seconds = max(0.0, deadline - time.monotonic())
                if not self._changed.wait_for(lambda: self._next() is mine, seconds) or time.monotonic() >= deadline:
                    raise Busy
                self._shares.take(mine.asker)
            finally:
                self._waiting.remove(mine)
                self._changed.notify_all()

    def _next(self) -> _Waiting | None:
        allowed = (one for one in self._waiting if self._shares.fits(one.asker))
        return min(allowed, key=lambda one: self._shares.of(one.asker), default=None)
