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

from heads.service.limits import Limits, Shares, asker_at

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
"""Refusals after which a body of a known length is read and dropped: who closes before that may cut the answer off."""

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
class Guard:
    """``app`` behind the limits. With a ``token`` every request must bear it, but those of the paths ``public``;
    ``hosts`` are the names by which it may be called (None: any), so that no page of somebody else's can reach it
    through a name of its own.

    A request and its body count until it is answered, even if its client has gone. Its ``state`` has ``hold``, to count
    more bytes, and ``is_trusted``: whether it may be told what the token guards.
    """

    app: App
    token: str | None = None
    hosts: frozenset[str] | None = None
    public: frozenset[str] = frozenset()
    limits: Limits = field(default_factory=Limits)
    _bodies: Shares = field(init=False)
    _requests: Shares = field(init=False)

    def __post_init__(self) -> None:
        self._bodies = Shares(self.limits.all_bodies_bytes)
        self._requests = Shares(self.limits.requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(scope, receive, self.limits, self._bodies)
        guarded_send = _with_headers(send, body)
        if not self._requests.take(body.address):
            await _refuse(_too_many("requests"), body, guarded_send)
            return
        scope.setdefault("state", {})["hold"] = body.hold
        try:
            self._check(scope)
            await self.app(_as_get(scope), body, guarded_send)
        except Refused as refused:
            await _refuse(refused, body, guarded_send)
        except asyncio.CancelledError:  # the service ends, and has waited long enough
            if not body.answered:
                await _refuse(Refused(503, "the service ends", retry_after="5", connection="close"), body, guarded_send)
        finally:
            body.let_go()
            self._requests.give_back(body.address)

    def _check(self, scope: Scope) -> None:
        if len(scope["raw_path"]) + len(scope["query_string"]) > self.limits.header_bytes:
            raise Refused(414, f"an address has at most {self.limits.header_bytes} bytes")
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
        if origin is not None and origin.partition(b"://")[2] != host.encode("latin-1"):
            raise Refused(403, "requests from pages of other sites are refused")
        given = headers.get(b"authorization", b"")
        scope["state"]["is_trusted"] = self.token is None or _bears(given, self.token)
        if not scope["state"]["is_trusted"] and scope["path"] not in self.public:
            problem = "this is not the token" if given else "this needs the token"
            raise Refused(401, problem, www_authenticate="Bearer")
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise Refused(415, "bodies are taken as they are, not compressed")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.limits.body_bytes:
            raise Refused(413, f"a body has at most {self.limits.body_bytes} bytes")


class _Body:
    """The body of a request, taken in within its limits; called in the place of ``receive``. It is kept, so it has a
    share of ``bodies``, unless there is none.
    """

    def __init__(self, scope: Scope, receive: Receive, limits: Limits, bodies: Shares | None = None) -> None:
        headers = dict(scope["headers"])
        self.address = asker_at(scope["client"][0] if scope.get("client") else None)
        self._receive = receive
        self._limits = limits
        self._bodies = bodies
        self._held = 0
        self._taken = 0
        self._began = time.monotonic()
        self.answered = False
        self.has_length = b"content-length" in headers
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
            count = len(message.get("body", b""))
            self._taken += count
            self.done = not message.get("more_body", False)
            self._check()
            self.hold(count)
        return message

    def hold(self, count: int) -> None:
        """Count so many bytes more that are held for this request. Raises Refused if there is no room for them."""
        if self._bodies is None:
            return
        if not self._bodies.take(self.address, count):
            raise Refused(503, "too much is being answered", retry_after="2", connection="close")
        self._held += count

    def let_go(self) -> None:
        """From now on nothing of it is held."""
        if self._bodies is not None:
            self._bodies.give_back(self.address, self._held)
            self._bodies = None

    def _check(self) -> None:
        if self._taken > self._limits.body_bytes:
            raise Refused(413, f"a body has at most {self._limits.body_bytes} bytes")
        seconds = time.monotonic() - self._began
        if not self.done and seconds > _GRACE_SECONDS and self._taken < self._limits.body_rate * seconds:
            raise Refused(408, "the body came too slowly")


def _as_get(scope: Scope) -> Scope:
    """HEAD is answered as GET is, without the body: that is left out by the server, which looks at its own scope."""
    return {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope


def _bears(given: bytes, expected: str) -> bool:
    scheme, _, token = given.partition(b" ")
    return hmac.compare_digest(token, expected.encode()) and scheme.lower() == b"bearer"


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
        body = _Body(scope, receive, Limits())
        await _refuse(_too_many("connections"), body, _with_headers(send, body))


def _too_many(what: str) -> Refused:
    return Refused(503, f"too many {what}", retry_after="1", connection="close")


def _with_headers(send: Send, body: _Body) -> Send:
    """Who answers before the body is read ends the connection with the answer: nothing would limit the rest of it."""

    async def guarded_send(message: Message) -> None:
        if message["type"] == "http.response.start":
            body.answered = True
            given = message.get("headers", ())
            is_told = any(name.lower() == b"connection" for name, _ in given)
            end = [] if body.done or is_told else [(b"connection", b"close")]
            message["headers"] = [*given, *HEADERS.items(), *end]
        await send(message)

    return guarded_send


async def _refuse(refused: Refused, body: _Body, send: Send) -> None:
    body.let_go()  # what is read from now on is dropped
    try:
        while refused.status_code in _BODY_IS_READ and body.has_length and not body.done:
            await body()
    except Refused as worse:
        refused = worse
    headers, told = written(refused)
    await send({"type": "http.response.start", "status": refused.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": told})


def written(refused: Refused) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """A refusal as headers, those of every answer left out, and a body."""
    body = json.dumps({"detail": refused.detail}).encode()
    headers = {**(refused.headers or {}), "content-type": "application/json", "content-length": str(len(body))}
    return [(name.encode(), value.encode()) for name, value in headers.items()], body
