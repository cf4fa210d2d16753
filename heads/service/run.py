"""The server: uvicorn with limits on connections and headers, which ends only when everything asked was answered."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from featstore.errors import InputError
from featstore.store import Store
from featstore.wording import counted, visible
from heads.service.app import make_app
from heads.service.guard import HEADERS, Guard, Refused, busy, written
from heads.service.heads import ServedHeads
from heads.service.limits import CONNECTIONS, Limits, Shares, asker_at
from heads.service.memory import give_back_large_blocks
from heads.service.parser import Parser, TooMuchWork
from heads.service.routes.page import PAGE

HEADER_SECONDS = 5.0
"""So long a client may take from connecting, or from its last answer, until its headers are there."""

WRITE_SECONDS = 20.0
"""So long a client may leave a part of its answer unread."""

_MOST_CONNECTIONS = 768
"""Those that are served and those that are told to come back; beyond these, not even that."""

_HEADER_BYTES = Limits().header_bytes
_PART_BYTES = 16 * 2**10
"""So much is taken apart at a time: what is refused in the first of it costs no work on the rest."""

_DRAIN_SECONDS = 30
_PUBLIC = frozenset({"/healthz", "/readyz", *PAGE})
"""What may be asked without a token: probes, and the page, which asks for it."""

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class _Places:
    """The connections of a server: all that are open, and those of them that are served."""

    open: Shares = field(default_factory=lambda: Shares(_MOST_CONNECTIONS))
    served: Shares = field(default_factory=lambda: Shares(CONNECTIONS))


class _Patient(H11Protocol):
    """uvicorn waits for ever for the headers of a connection, and for a client to read its answer; this does not. What
    is no request is refused in the words of all refusals. One that has no place takes none from others, even while it
    is being closed: a loop that is late has many such connections at once.
    """

    def __init__(self, places: _Places, **given: Any) -> None:
        super().__init__(**given)
        self.conn = Parser(_HEADER_BYTES)
        self._places = places

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._address = asker_at(self.client[0] if self.client else None)
        self._headers_due: asyncio.TimerHandle | None = None
        self._watch_headers()
        self._answer_due: asyncio.TimerHandle | None = None
        transport.set_write_buffer_limits(high=0)  # whatever waits to be read by the client is noticed
        self._is_open = self._places.open.take(self._address)
        self._is_served = self._is_open and self._places.served.take(self._address)
        if not self._is_served:
            self.app = busy
        if not self._is_open:
            transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._answer_due = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel_answer_due()

    def _cancel_answer_due(self) -> None:
        if self._answer_due is not None:
            self._answer_due.cancel()

    def data_received(self, data: bytes) -> None:
        for part in range(0, len(data), _PART_BYTES):
            if not self.transport.is_closing():
                super().data_received(data[part : part + _PART_BYTES])
        self._watch_headers()

    def send_400_response(self, msg: str) -> None:
        error = sys.exception()  # it is called where h11's is caught
        if isinstance(error, TooMuchWork):
            refused = Refused(error.error_status_hint, str(error))
        elif isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431:
            refused = Refused(431, f"the headers of a request have at most {_HEADER_BYTES} bytes")
        else:
            refused = Refused(400, "this is no request in HTTP/1.1")
        headers, body = written(refused)
        answer = h11.Response(
            status_code=refused.status_code,
            headers=[*self.server_state.default_headers, *headers, *HEADERS.items()],
            reason=STATUS_PHRASES[refused.status_code],
        )
        with suppress(h11.LocalProtocolError):  # an answer is on its way already
            for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    @property
    def _is_waiting(self) -> bool:
        """Whether no request is being answered: the headers of one are still to come, or on their way."""
        return self.cycle is None or self.cycle.response_complete

    def _watch_headers(self) -> None:
        if self._is_waiting and self._headers_due is None:
            self._headers_due = self.loop.call_later(HEADER_SECONDS, self._too_late)
        elif not self._is_waiting:
            self._cancel_headers_due()

    def _cancel_headers_due(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_headers_due()
        self._cancel_answer_due()
        if self._is_open:
            self._places.open.give_back(self._address)
        if self._is_served:
            self._places.served.give_back(self._address)
        super().connection_lost(exc)

    def _too_late(self) -> None:
        if self._is_waiting and not self.transport.is_closing():
            self.transport.abort()


def is_local(host: str) -> bool:
    """Whether only this machine can reach that address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_access(host: str, token: str | None) -> None:
    """Raise InputError unless a token guards an address that others can reach."""
    if token is None and not is_local(host):
        raise InputError(
            "others can reach this address, so a token must guard it",
            where=f"--host {host}",
            expected="127.0.0.1, or the environment variable FEATSTORE_TOKEN",
            todo="export FEATSTORE_TOKEN=$(python -c 'import secrets; print(secrets.token_urlsafe())')",
        )
    if token is None:
        return
    can_be_sent = token.isascii() and token.isprintable() and " " not in token
    if len(token) < 16 or not can_be_sent:
        raise InputError(
            "this token is too weak" if can_be_sent else "a header cannot bear this token",
            where="FEATSTORE_TOKEN",
            expected="at least 16 characters of ASCII, without spaces",
            received=f"{len(token)} characters" + ("" if can_be_sent else ", others among them"),
        )


def guarded(served: ServedHeads, host: str, token: str | None) -> Guard:
    """The application behind its limits. On this machine it is called by this machine's names only."""
    names = _LOCAL_NAMES | {f"[{host}]" if ":" in host else host}
    return Guard(make_app(served, needs_token=token is not None), token, names if is_local(host) else None, _PUBLIC)


def serve_heads(bundles: Sequence[Path], store: Store, host: str, port: int, *, keep: bool = True) -> None:
    """Serve until SIGTERM or Ctrl-C; what was asked by then is answered, and what is new is committed.

    Raises InputError if there is no head to serve, or if others could reach it without a token; ReadOnlyError,
    StorageError or InputError if the address cannot be had.
    """
    token = os.environ.get("FEATSTORE_TOKEN") or None
    check_access(host, token)
    give_back_large_blocks()
    with _listen(host, port) as listening:
        _say("opening the heads and their bases …")
        served = ServedHeads(bundles, store, keep=keep, tell=_say)
        for where, why in served.problems.items():
            _say(f"left out: {where}: {why}")
        name = f"[{host}]" if ":" in host else host
        url = f"http://{name}:{listening.getsockname()[1]}"
        heads = counted(len(served.bundles), "head")
        _say(f"serving on {url} ({heads}; Ctrl-C ends it)")
        uvicorn.Server(uvicorn.Config(guarded(served, host, token), **server_options())).run(sockets=[listening])


def _say(line: str) -> None:
    print(visible(line), file=sys.stderr, flush=True)


def server_options() -> dict[str, Any]:
    """How uvicorn is set, for one server: limits on connections and headers, and nothing of itself in the answers."""
    return {
        "http": partial(_Patient, _Places()),
        "ws": "none",
        "loop": "asyncio",
        "backlog": _MOST_CONNECTIONS,
        "timeout_keep_alive": int(HEADER_SECONDS),
        "timeout_graceful_shutdown": _DRAIN_SECONDS,
        "server_header": False,
        "date_header": True,
        "access_log": False,
        "log_level": "error",  # each request that is none would be a warning
        "proxy_headers": False,
    }


def _listen(host: str, port: int) -> socket.socket:
    """A socket on that address, before anything is loaded; raises a typed error if it cannot be had."""
    listening = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_MOST_CONNECTIONS)  # whoever connects from now on waits until the bases are open
    except (OSError, UnicodeError) as error:  # the latter of a name that is too long for one
        if listening is not None:
            listening.close()
        raise InputError(
            f"cannot listen there: {getattr(error, 'strerror', None) or error}",
            where=f"--host {host} --port {port}",
            todo="choose another port, or stop what has this one",
        ) from error
    return listening
