"""What every request must keep to, enforced while it is read: who may ask, how much, how fast; headers for browsers.

A plain ASGI layer around the application, so that nothing of a request is held before it was allowed.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from starlette.exceptions import HTTPException

from heads.service.limits import Limits

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
    b"cross-origin-resource-policy": b"same-origin",
    b"content-security-policy": b"default-src 'self'; img-src 'self' data: blob:; object-src 'none'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
"""Sent with every answer."""

_BODY_IS_READ = (401, 403, 421, 503)
"""Refusals after which the body is read and dropped: who closes before that may cut the answer off."""

_STALL_SECONDS = 5.0
"""So long a body may pause."""

_GRACE_SECONDS = 2.0


class Refused(HTTPException):
    """Why a request is not answered; raised while a body is read, the application turns it into the same answer.

    Where the body itself is the offence, what is left of it is not read: the connection ends with the answer.
    """

    def __init__(self, status: int, problem: str, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        super().__init__(status, problem, named if status in _BODY_IS_READ else {**named, "connection": "close"})


@dataclass(slots=True)
class _Bytes:
    """Of all bodies that are being read or answered, those included whose client has gone."""

    count: int = 0


@dataclass(slots=True)
class Guard:
    """``app`` behind the limits. With a ``token`` every request must bear it, but those of the paths ``public``;
    ``hosts`` are the names by which it may be called (None: any), so that no page of somebody else's can reach it
    through a name of its own.
    """

    app: App
    token: str | None = None
    hosts: frozenset[str] | None = None
    public: frozenset[str] = frozenset()
    limits: Limits = field(default_factory=Limits)
    _held: _Bytes = field(default_factory=_Bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(scope, receive, self.limits, self._held)
        guarded_send = _with_headers(send, body)
        try:
            self._check(scope)
            await self.app(scope, body, guarded_send)
        except Refused as refused:
            await _refuse(refused, body, guarded_send)
        finally:
            self._held.count -= body.taken

    def _check(self, scope: Scope) -> None:
        if sum(len(name) + len(value) for name, value in scope["headers"]) > self.limits.header_bytes:
            raise Refused(431, f"the headers of a request have at most {self.limits.header_bytes} bytes")
        headers = _single(scope["headers"])
        if b"content-length" in headers and b"transfer-encoding" in headers:
            raise Refused(400, "a body has a length or comes in chunks, not both")
        host = headers.get(b"host", b"").decode("latin-1")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self.hosts is not None and name.lower() not in self.hosts:
            raise Refused(421, "this service is not called by that name")
        origin = headers.get(b"origin")
        foreign = origin is not None and origin.partition(b"://")[2] != host.encode("latin-1")
        if foreign and scope["method"] not in ("GET", "HEAD"):
            raise Refused(403, "requests from pages of other sites are refused")
        if self.token is not None and scope["path"] not in self.public:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self.token.encode()):
                raise Refused(401, "this needs the token", www_authenticate="Bearer")
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise Refused(415, "bodies are taken as they are, not compressed")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.limits.body_bytes:
            raise Refused(413, f"a body has at most {self.limits.body_bytes} bytes")


class _Body:
    """The body of a request, taken in within its limits; called in the place of ``receive``."""

    def __init__(self, scope: Scope, receive: Receive, limits: Limits, held: _Bytes) -> None:
        headers = dict(scope["headers"])
        self._receive = receive
        self._limits = limits
        self._held = held
        self._began = time.monotonic()
        self.taken = 0
        self.done = b"transfer-encoding" not in headers and headers.get(b"content-length", b"0") == b"0"

    async def __call__(self) -> Message:
        if self.done:  # what comes now is that the client has gone
            return await self._receive()
        left = self._limits.body_seconds - (time.monotonic() - self._began)
        try:
            message = await asyncio.wait_for(self._receive(), min(max(left, 0.0), _STALL_SECONDS))
        except TimeoutError:
            raise Refused(408, "the body took too long") from None
        if message["type"] == "http.disconnect":
            self.done = True
            raise Refused(400, "the body ended before its end")  # nobody is there to read it; the application is told
        if message["type"] == "http.request":
            self.taken += len(message.get("body", b""))
            self._held.count += len(message.get("body", b""))
            self.done = not message.get("more_body", False)
            self._check()
        return message

    def _check(self) -> None:
        if self._held.count > self._limits.all_bodies_bytes:
            raise Refused(503, "too much is being answered", retry_after="2", connection="close")
        if self.taken > self._limits.body_bytes:
            raise Refused(413, f"a body has at most {self._limits.body_bytes} bytes")
        seconds = time.monotonic() - self._began
        if not self.done and seconds > _GRACE_SECONDS and self.taken < self._limits.body_rate * seconds:
            raise Refused(408, "the body came too slowly")


def _single(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers by name; one that must be there once and is there twice is refused."""
    names = Counter(name for name, _ in headers)
    for name in (b"host", b"authorization", b"content-length", b"content-encoding", b"content-type"):
        if names[name] > 1:
            raise Refused(400, f"the header {name.decode()} is there twice")
    return dict(headers)


async def busy(scope: Scope, receive: Receive, send: Send) -> None:
    """An application in the place of the other for connections above the limit."""
    if scope["type"] == "http":
        refused = Refused(503, "too many connections", retry_after="1", connection="close")
        body = _Body(scope, receive, Limits(), _Bytes())
        await _refuse(refused, body, _with_headers(send, body))


def _with_headers(send: Send, body: _Body) -> Send:
    """Who answers before the body is read ends the connection with the answer: nothing would limit the rest of it."""

    async def guarded_send(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = message.get("headers", ())
            is_told = any(name.lower() == b"connection" for name, _ in given)
            end = [] if body.done or is_told else [(b"connection", b"close")]
            message["headers"] = [*given, *HEADERS.items(), *end]
        await send(message)

    return guarded_send


async def _refuse(refused: Refused, body: _Body, send: Send) -> None:
    try:
        while refused.status_code in _BODY_IS_READ and not body.done:
            await body()
    except Refused as worse:
        refused = worse
    await _send_refusal(refused, send)


async def _send_refusal(refused: Refused, send: Send) -> None:
    body = json.dumps({"detail": refused.detail}).encode()
    headers = {**(refused.headers or {}), "content-type": "application/json", "content-length": str(len(body))}
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status_code, "headers": sent})
    await send({"type": "http.response.body", "body": body})
