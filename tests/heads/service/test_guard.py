from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from contextlib import suppress

import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol

from heads.service.guard import HEADERS, Guard
from heads.service.limits import CONNECTIONS, Limits
from tests.heads.service.conftest import Running, Serve
from tests.pictures import png
from tests.reliability.attacks import ESCAPES, PATHS
from tests.reliability.campaign import takes_long
from tests.stubs import hold
from tests.waiting import until

_TOKEN = "0123456789abcdef-token"


def request(body: bytes = b"", **headers: str) -> bytes:
    named = {"Host": "127.0.0.1", "Content-Type": "image/png", **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in named.items())
    return b"POST /v1/predict HTTP/1.1\r\n" + lines.encode() + b"\r\n" + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_every_answer_has_the_headers_that_browsers_heed(serve: Serve) -> None:
    running = serve()
    for path in ("/healthz", "/v1/heads", "/nowhere"):
        found = running.ask("GET", path).headers
        told = {
            name: found[name]
            for name in (
                "x-content-type-options", "x-frame-options", "referrer-policy", "cache-control",
                "cross-origin-resource-policy",
            )
        }  # fmt: skip
        assert [*told.values()] == ["nosniff", "DENY", "no-referrer", "no-store", "same-origin"]
        policy = dict(one.split(maxsplit=1) for one in found["content-security-policy"].split("; "))
        assert policy == {
            "default-src": "'self'", "img-src": "'self' data: blob:", "object-src": "'none'", "base-uri": "'none'",
            "form-action": "'none'", "frame-ancestors": "'none'",
        }  # fmt: skip
        assert "server" not in found


def test_no_page_is_ever_told_that_it_may_ask(serve: Serve) -> None:
    running = serve()
    for origin, expected in ((running.url, (405, 200)), ("https://evil.example", (403, 403))):
        named = {"origin": origin, "access-control-request-method": "POST"}
        preflight = running.ask("OPTIONS", "/v1/predict", headers=named)
        answer = running.ask("GET", "/v1/heads", headers=named)
        assert (preflight.status_code, answer.status_code) == expected
        for found in (preflight, answer):
            assert not [name for name in found.headers if name.startswith("access-control")]


@pytest.mark.parametrize("given", [None, "Bearer wrong", f"Bearer {_TOKEN}x", _TOKEN, f"Basic {_TOKEN}", "Bearer"])
def test_without_the_token_nothing_is_answered_but_probes(serve: Serve, given: str | None) -> None:
    running = serve(token=_TOKEN)
    headers = {"authorization": given} if given is not None else {}
    for path in ("/v1/heads", "/metrics", "/openapi.json", "/nowhere", "//healthz", "/healthz/../v1/heads"):
        assert running.ask("GET", path, headers=headers).status_code == 401
    assert running.ask("GET", "/healthz", headers=headers).status_code == 200


def test_a_wrong_token_is_told_from_a_missing_one(serve: Serve) -> None:
    running = serve(token=_TOKEN)
    assert running.ask("GET", "/v1/heads").json()["detail"] == "this needs the token"
    wrong = running.ask("GET", "/v1/heads", headers={"authorization": "Bearer wrong"})
    assert wrong.json()["detail"] == "this is not the token"


@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/heads", "/openapi.json", "/nowhere"])
def test_head_is_answered_like_get_without_the_body(serve: Serve, path: str) -> None:
    running = serve()
    get, head = running.ask("GET", path), running.ask("HEAD", path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-length"] == get.headers["content-length"]


def test_with_the_token_all_is_answered(serve: Serve) -> None:
    running = serve(token=_TOKEN)
    for scheme in ("Bearer", "bearer"):
        assert running.ask("GET", "/v1/heads", headers={"authorization": f"{scheme} {_TOKEN}"}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.nip.io"])
def test_by_another_name_the_service_is_not_reached(serve: Serve, host: str) -> None:
    assert serve().ask("GET", "/v1/heads", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "localhost:99", "127.0.0.1:1"])
def test_by_its_own_names_it_is(serve: Serve, host: str) -> None:
    assert serve().ask("GET", "/v1/heads", headers={"host": host}).status_code == 200


def test_a_page_of_another_site_is_refused(serve: Serve) -> None:
    running = serve()
    answer = running.ask("POST", "/v1/predict", content=png(1), headers={"origin": "https://evil.example"})
    assert answer.status_code == 403
    assert running.ask("GET", "/v1/heads", headers={"origin": "https://evil.example"}).status_code == 403
    own = running.ask("POST", "/v1/predict", content=png(1), headers={"origin": running.url})
    assert own.status_code == 200


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (request(Content_Length=str(17 * 2**20)), 413),
        (request(Content_Length="99999999999999999999999"), 400),
        (request(png(1), Content_Length=str(len(png(1))), Content_Encoding="gzip", Connection="close"), 415),
        (request(Content_Length="-1"), 400),
        (request(b"x", Content_Length="1", Transfer_Encoding="chunked"), 400),
        (request(b"zz\r\nhello\r\n", Transfer_Encoding="chunked"), 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"BREW / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 405),
        (b"DELETE /v1/heads HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 405),
        (b"GET /nowhere HTTP/9.9\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        (b"\0\1\2\3\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"a" * 100_000 + b"\r\n\r\n", 431),
        (b"GET /healthz?" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", 431),
    ],
)
def test_a_request_that_breaks_the_rules_is_refused(serve: Serve, data: bytes, expected: int) -> None:
    answer = serve().raw(data)
    assert status(answer) == expected, answer[:300]
    assert b"Traceback" not in answer


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ((b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 10_000, b"a" * 10_000), 431),
        ((b"\0\1\2\3\r\n\r\n",), 400),
        ((request(Transfer_Encoding="chunked"), b"zz\r\nhello\r\n"), 400),
        ((request(Transfer_Encoding="chunked"), b"1\r\nx\r\n" * 1000), 400),
        ((request(Transfer_Encoding="chunked") + b"0\r\nX: y\r\n\r\n",), 400),
        ((request(**dict.fromkeys(map(str, range(1000)), "x")),), 431),
    ],
    ids=["a head in pieces", "no request", "a chunk that is none", "tiny chunks", "trailers", "tiny headers"],
)
def test_what_is_no_request_is_refused_in_the_words_of_all_refusals(
    serve: Serve, pieces: tuple[bytes, ...], expected: int
) -> None:
    with socket.create_connection(("127.0.0.1", serve().port), timeout=20) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.2)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert status(answer) == expected
    assert json.loads(body)["detail"]
    told = {line.split(b": ")[0].lower(): line.split(b": ", 1)[1] for line in head.split(b"\r\n")[1:]}
    assert told.items() >= {b"content-type": b"application/json", b"connection": b"close", **HEADERS}.items()


@pytest.mark.parametrize("route", [*PATHS, "{}"])
def test_no_path_leads_to_a_file(serve: Serve, route: str) -> None:
    running = serve()
    for way in (*ESCAPES, "/etc/passwd", "../heads", "//etc/passwd", "%2fetc%2fpasswd", "%00/../../etc/passwd"):
        for path in {route.format(way), route.format("x/" + way), "/" + route.format(way)}:
            answer = running.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            assert status(answer) in (400, 404, 414, 422), (path, answer[:200])
            assert b"root:" not in answer


def endless(running: Running, seconds: float) -> tuple[bytes, int]:
    """What is answered to a body without end, and how many bytes of it could be sent."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        connection.sendall(request(Transfer_Encoding="chunked"))
        stop = time.monotonic() + seconds
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        sent, answer = 0, b""
        with suppress(OSError):
            while time.monotonic() < stop:
                connection.sendall(chunk)
                sent += len(chunk)
        with suppress(OSError):
            answer = connection.recv(65536)
        return answer, sent


def test_a_body_without_end_ends_at_the_limit(serve: Serve) -> None:
    running = serve(limits=Limits(body_bytes=2**20))
    answer, sent = endless(running, 10)
    assert answer == b"" or status(answer) == 413
    assert 2**19 < sent < 2**26, "the limit, and what the system holds on both sides"
    assert running.ask("GET", "/healthz").status_code == 200


def test_a_body_that_trickles_is_given_up(serve: Serve) -> None:
    running = serve(limits=Limits(body_seconds=3.0))
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        connection.sendall(request(Content_Length="100000"))
        began = time.monotonic()
        answer = b""
        connection.settimeout(0.2)
        while time.monotonic() < began + 15 and not answer:
            try:
                connection.sendall(b"x")
                answer = connection.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                break
    assert status(answer) == 408


def answer_to_a_body(running: Running, first: bytes, then: bytes) -> bytes:
    """What is answered to a body without end of which first these bytes come, and then others ten times a second."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        connection.sendall(request(first, Content_Length=str(2**20)))
        connection.settimeout(0.1)
        stop = time.monotonic() + 15
        while time.monotonic() < stop:
            with suppress(TimeoutError):
                return connection.recv(65536) + connection.recv(65536)
            connection.sendall(then)
    return b""


def test_a_body_that_pauses_is_given_up_however_fast_it_was(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heads.service.guard._STALL_SECONDS", 0.5)
    answer = answer_to_a_body(serve(), bytes(200_000), b"")
    assert status(answer) == 408
    assert b"took too long" in answer


def test_a_body_that_takes_long_is_given_up_however_steadily_it_comes(serve: Serve) -> None:
    answer = answer_to_a_body(serve(limits=Limits(body_seconds=1.0)), b"x", bytes(8192))
    assert status(answer) == 408
    assert b"took too long" in answer


def test_headers_that_trickle_are_given_up(serve: Serve) -> None:
    running = serve()
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: loc")
        assert connection.recv(65536) == b""  # closed by the server, and not by the time limit of this socket


@takes_long
def test_headers_that_trickle_after_a_first_request_are_given_up_too(serve: Serve) -> None:
    running = serve()
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: loc")
        ended = False
        began = time.monotonic()
        connection.settimeout(0.3)
        while not ended and time.monotonic() < began + 15:
            try:
                connection.sendall(b"a")
                ended = connection.recv(65536) == b""
            except TimeoutError:
                continue
            except OSError:
                ended = True
        assert ended


@pytest.mark.parametrize("line", [b"GET /healthz", b"POST /nowhere", b"POST /healthz"])
def test_a_body_that_nobody_reads_ends_the_connection(serve: Serve, line: bytes) -> None:
    running = serve()
    head = line + b" HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        connection.sendall(head)
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        sent, limit = 0, 64 * 2**20
        with suppress(OSError):
            while sent < limit:
                connection.sendall(chunk)
                sent += len(chunk)
    assert sent < limit


def test_a_body_in_chunks_that_is_refused_is_not_read(serve: Serve) -> None:
    running = serve(token=_TOKEN)
    with socket.create_connection(("127.0.0.1", running.port), timeout=3) as connection:
        connection.sendall(request(Transfer_Encoding="chunked"))  # and nothing of it comes
        answer = b""
        while part := connection.recv(65536):
            answer += part
    assert status(answer) == 401
    assert b"connection: close" in answer.lower()


def test_a_picture_may_come_in_chunks(serve: Serve) -> None:
    picture = png(1)
    for size in (64, 4096):
        parts = (picture[at : at + size] for at in range(0, len(picture), size))
        assert serve().ask("POST", "/v1/predict", content=parts).status_code == 200


def test_all_bodies_together_are_bounded(serve: Serve) -> None:
    running = serve(limits=Limits(all_bodies_bytes=20_000))
    waiting = held(running, "127.0.0.1", 1)  # of one byte yet
    answer = running.ask("POST", "/v1/predict", content=bytes(30_000), headers={"content-type": "image/png"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert running.ask("POST", "/v1/predict", content=png(1)).status_code == 200, "what was answered counts no more"
    for connection in waiting:
        connection.close()


def test_a_client_that_connects_and_says_nothing_is_given_up(serve: Serve) -> None:
    running = serve()
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        assert connection.recv(65536) == b""


def held(running: Running, address: str, count: int, body: bytes = b"x") -> list[socket.socket]:
    """So many connections from an address, each of which owes the rest of a body."""
    made = [
        socket.create_connection(("127.0.0.1", running.port), timeout=20, source_address=(address, 0))
        for _ in range(count)
    ]
    for connection in made:
        connection.sendall(request(body, Content_Length=str(len(body) + 1000)))
    time.sleep(0.3)
    return made


def test_one_address_has_a_share_of_all_bodies_and_others_find_room(serve: Serve) -> None:
    running = serve(limits=Limits(all_bodies_bytes=40_000))
    theirs = held(running, "127.0.0.2", 4, bytes(9_000))
    answer = running.ask("POST", "/v1/predict", content=bytes(15_000), headers={"content-type": "image/png"})
    assert answer.status_code == 200
    refused = [connection for connection in theirs if is_answered(connection)]
    assert len(refused) == 2
    for connection in theirs:
        connection.close()


def is_answered(connection: socket.socket) -> bool:
    connection.settimeout(0.1)
    try:
        return status(connection.recv(65536)) == 503
    except TimeoutError:
        return False


def test_bodies_that_are_only_dropped_take_no_room(serve: Serve) -> None:
    running = serve(token=_TOKEN, limits=Limits(all_bodies_bytes=20_000))
    theirs = held(running, "127.0.0.1", 4, bytes(9_000))  # they do not bear the token
    headers = {"content-type": "image/png", "authorization": f"Bearer {_TOKEN}"}
    assert running.ask("POST", "/v1/predict", content=bytes(9_000), headers=headers).status_code == 200
    for connection in theirs:
        connection.close()


def test_requests_whose_clients_have_gone_count_until_they_are_answered(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = hold(monkeypatch)
    running = serve(limits=Limits(requests=4))
    for seed in (2000, 2001):
        data = png(seed)
        with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
            connection.sendall(request(data, Content_Length=str(len(data))))
            time.sleep(0.3)
    answer = running.ask("GET", "/healthz")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["detail"] == "too many requests"
    free.set()
    until(lambda: running.ask("GET", "/healthz").status_code == 200)


def test_one_client_cannot_have_all_connections(serve: Serve) -> None:
    running = serve()
    mine = held(running, "127.0.0.1", CONNECTIONS // 2)
    answer = running.ask("POST", "/v1/predict", content=png(1))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.json()["detail"] == "too many connections"
    for connection in mine:
        connection.close()
    time.sleep(0.3)
    assert running.ask("GET", "/healthz").status_code == 200


def test_all_clients_together_have_so_many_connections(serve: Serve) -> None:
    running = serve()
    theirs = [*held(running, "127.0.0.2", CONNECTIONS // 2), *held(running, "127.0.0.3", CONNECTIONS // 2 - 1)]
    assert running.ask("GET", "/healthz").status_code == 200
    theirs += held(running, "127.0.0.3", 1)
    answer = running.ask("GET", "/healthz")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["detail"] == "too many connections"
    for connection in theirs:
        connection.close()
    until(lambda: running.ask("GET", "/healthz").status_code == 200)


def test_connections_that_are_refused_take_no_place_of_others(serve: Serve) -> None:
    running = serve()
    theirs = held(running, "127.0.0.2", CONNECTIONS // 2 + 40)
    assert running.ask("POST", "/v1/predict", content=png(1)).status_code == 200
    for connection in theirs:
        connection.close()


def test_connections_that_come_all_at_once_take_no_place_of_others(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, go_on, real = threading.Event(), threading.Event(), H11Protocol.connection_made

    def connection_made(self: H11Protocol, transport: asyncio.Transport) -> None:
        real(self, transport)
        if self.client and self.client[0] == "127.0.0.9":
            late.set()
            go_on.wait(20)  # nothing else is done meanwhile

    monkeypatch.setattr(H11Protocol, "connection_made", connection_made)
    running = serve()
    theirs = [*held(running, "127.0.0.2", 384), *held(running, "127.0.0.9", 1)]
    assert late.wait(20)
    theirs += held(running, "127.0.0.2", 450)
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as mine:
        mine.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        go_on.set()
        assert mine.recv(100).startswith(b"HTTP/1.1 200")
    for connection in theirs:
        connection.close()


def test_a_client_that_does_not_read_its_answers_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heads.service.run.WRITE_SECONDS", 1.0)
    running = serve()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.settimeout(1)
        connection.connect(("127.0.0.1", running.port))
        connection.sendall(b"GET /page.css HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500)
        time.sleep(3)
        found = b""
        with suppress(ConnectionError):
            while part := connection.recv(65536):
                found += part
    assert 0 < found.count(b"HTTP/1.1 200") < 500, "it was the server that ended it, in the middle of all"


def test_slow_clients_do_not_delay_a_healthy_one(serve: Serve) -> None:
    running = serve()
    slow = [socket.create_connection(("127.0.0.1", running.port), timeout=20) for _ in range(20)]
    for connection in slow:
        connection.sendall(request(b"x", Content_Length="1000"))
    done = threading.Event()

    def ask() -> None:
        assert running.ask("POST", "/v1/predict", content=png(1)).status_code == 200
        done.set()

    threading.Thread(target=ask).start()
    assert done.wait(10)
    for connection in slow:
        connection.close()


def test_what_is_cut_short_at_the_end_is_told_so_and_leaves_no_traceback() -> None:
    sent: list[dict[str, object]] = []

    async def hangs(*_: object) -> None:
        await asyncio.sleep(60)

    async def cut_short() -> None:
        scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": []}
        guard = Guard(hangs)

        async def send(message: dict[str, object]) -> None:
            sent.append(message)

        task = asyncio.create_task(guard(scope, lambda: asyncio.sleep(60), send))  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        task.cancel()
        await task

    asyncio.run(cut_short())
    assert [message.get("status") for message in sent] == [503, None]
    assert b"the service ends" in sent[1]["body"]  # type: ignore[operator]
