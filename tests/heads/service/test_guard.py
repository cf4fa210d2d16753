from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

import pytest

from heads.service.guard import HEADERS
from heads.service.limits import Limits
from heads.service.run import CONNECTIONS_OF_ONE
from tests.heads.service.conftest import Running, Serve
from tests.pictures import png

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
        assert all(found[name.decode()] == value.decode() for name, value in HEADERS.items())
        assert "access-control-allow-origin" not in found
        assert "server" not in found


@pytest.mark.parametrize("given", [None, "Bearer wrong", f"Bearer {_TOKEN}x", _TOKEN, f"Basic {_TOKEN}", "Bearer"])
def test_without_the_token_nothing_is_answered_but_probes(serve: Serve, given: str | None) -> None:
    running = serve(token=_TOKEN)
    headers = {"authorization": given} if given is not None else {}
    for path in ("/v1/heads", "/metrics", "/openapi.json", "/nowhere", "//healthz", "/healthz/../v1/heads"):
        assert running.ask("GET", path, headers=headers).status_code == 401
    assert running.ask("GET", "/healthz", headers=headers).status_code == 200


def test_with_the_token_all_is_answered(serve: Serve) -> None:
    running = serve(token=_TOKEN)
    assert running.ask("GET", "/v1/heads", headers={"authorization": f"Bearer {_TOKEN}"}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.nip.io"])
def test_by_another_name_the_service_is_not_reached(serve: Serve, host: str) -> None:
    assert serve().ask("GET", "/v1/heads", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "localhost:99", "127.0.0.1:1"])
def test_by_its_own_names_it_is(serve: Serve, host: str) -> None:
    assert serve().ask("GET", "/v1/heads", headers={"host": host}).status_code == 200


def test_a_page_of_another_site_cannot_send_a_picture(serve: Serve) -> None:
    running = serve()
    answer = running.ask("POST", "/v1/predict", content=png(1), headers={"origin": "https://evil.example"})
    assert answer.status_code == 403
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
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", 431),
    ],
)
def test_a_request_that_breaks_the_rules_is_refused(serve: Serve, data: bytes, expected: int) -> None:
    answer = serve().raw(data)
    assert status(answer) == expected, answer[:300]
    assert b"Traceback" not in answer


@pytest.mark.parametrize(
    "path",
    ["/../etc/passwd", "/v1/../../etc/passwd", "/%2e%2e/etc/passwd", "/%252e%252e/etc/passwd", "/v1/heads%00",
     "/v1/..%5c..%5cetc", "//etc/passwd", "/v1/heads/../heads", "/" + "a" * 9000],
)  # fmt: skip
def test_no_path_leads_to_a_file(serve: Serve, path: str) -> None:
    answer = serve().raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert status(answer) in (400, 404), answer[:200]
    assert b"root:" not in answer


def endless(running: Running, seconds: float) -> bytes:
    """What is answered to a body without end, and when the connection ended."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        connection.sendall(request(Transfer_Encoding="chunked"))
        stop = time.monotonic() + seconds
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        try:
            while time.monotonic() < stop:
                connection.sendall(chunk)
        except OSError:
            pass
        try:
            return connection.recv(65536)
        except OSError:
            return b""


def test_a_body_without_end_ends_at_the_limit(serve: Serve) -> None:
    running = serve(limits=Limits(body_bytes=2**20))
    answer = endless(running, 10)
    assert answer == b"" or status(answer) == 413
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


def test_headers_that_trickle_are_given_up(serve: Serve) -> None:
    running = serve()
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: loc")
        assert connection.recv(65536) == b""  # closed by the server, and not by the time limit of this socket


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


def held(running: Running, address: str, count: int) -> list[socket.socket]:
    """So many connections from an address, each of which owes most of a body."""
    made = [
        socket.create_connection(("127.0.0.1", running.port), timeout=20, source_address=(address, 0))
        for _ in range(count)
    ]
    for connection in made:
        connection.sendall(request(b"x", Content_Length="1000"))
    time.sleep(0.3)
    return made


def test_one_client_cannot_have_all_connections(serve: Serve) -> None:
    running = serve()
    mine = held(running, "127.0.0.1", CONNECTIONS_OF_ONE)
    answer = running.ask("POST", "/v1/predict", content=png(1))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.headers["x-content-type-options"] == "nosniff"
    for connection in mine:
        connection.close()
    time.sleep(0.3)
    assert running.ask("GET", "/healthz").status_code == 200


def test_connections_that_are_refused_take_no_place_of_others(serve: Serve) -> None:
    running = serve()
    theirs = held(running, "127.0.0.2", CONNECTIONS_OF_ONE + 40)
    assert running.ask("POST", "/v1/predict", content=png(1)).status_code == 200
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
