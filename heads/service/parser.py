"""Requests taken apart. That is done in the loop that all clients share, so nothing of one may take long there."""

from __future__ import annotations

import re

import h11

MOST_HEADERS = 128
"""Headers of a request: in h11 each takes a microsecond, however short it is."""

FREE_CHUNKS = 64
CHUNK_BYTES = 1024
"""A body may come in so many chunks of any size, and in one more for each so many bytes of it."""

_BLANK_LINE = re.compile(rb"\n\r?\n")
_LAST_CHUNK = re.compile(rb"\r?\n?0{1,20}[ \t]*(?:;[^\n]*)?\r\n")


class TooMuchWork(h11.RemoteProtocolError):
    """A request that would take long to take apart; ``error_status_hint`` is how it is refused, its text is why."""


class Parser(h11.Connection):
    """h11 on a server's side, which refuses very many headers, tiny chunks and what may follow the last one (trailers,
    that nobody reads) before it takes them apart.
    """

    def __init__(self, header_bytes: int) -> None:
        super().__init__(h11.SERVER, header_bytes)
        self._chunks = self._taken = 0
        self._is_between_chunks = self._had_last = False

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """As h11's. Raises TooMuchWork, too, after which nothing more may be given to it."""
        if self.their_state is h11.IDLE:
            self._check_headers()
        elif self._is_between_chunks:
            self._check_end()
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._taken = 0
            self._had_last = False
            self._is_between_chunks = any(name == b"transfer-encoding" for name, _ in event.headers)
        elif isinstance(event, h11.Data):
            self._count(event)
        return event

    def _check_headers(self) -> None:
        waiting, _ = self.trailing_data
        end = _BLANK_LINE.search(waiting)
        if waiting.count(b"\n", 0, end.start() if end else len(waiting)) > MOST_HEADERS:
            raise TooMuchWork(f"a request has at most {MOST_HEADERS} headers", error_status_hint=431)

    def _check_end(self) -> None:
        waiting, _ = self.trailing_data
        last = None if self._had_last else _LAST_CHUNK.match(waiting)
        self._had_last |= last is not None
        rest = waiting[last.end() if last else 0 :]
        if self._had_last and not rest.startswith((b"\r\n", b"\n")) and rest not in (b"", b"\r"):
            raise TooMuchWork("a body in chunks ends with the last of them", error_status_hint=400)

    def _count(self, event: h11.Data) -> None:
        self._taken += len(event.data)
        self._is_between_chunks = event.chunk_end
        self._chunks += event.chunk_end  # its start is not told if it came alone
        if self._chunks > FREE_CHUNKS + self._taken // CHUNK_BYTES:
            raise TooMuchWork(f"the chunks of a body have at least {CHUNK_BYTES} bytes", error_status_hint=400)
