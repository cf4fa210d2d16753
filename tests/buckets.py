"""A real S3-compatible server on loopback for tests, in a process of its own, and ways to it that break or are slow.

    python -m tests.buckets

serves, says its port, and ends with its standard input.
"""

from __future__ import annotations

import secrets
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from featstore import cloud


def main() -> None:
    """Serve until whoever started this is gone."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    sys.stdin.read()
    server.stop()


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """The port of a server that all tests of a process share."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.buckets"],
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


@pytest.fixture
def s3(
    s3_port: int, private_home: object, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The URL of an empty bucket; processes that a test starts find it, too. Local copies go with the test."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    go_by(monkeypatch, s3_port)
    monkeypatch.setenv("FEATSTORE_MIRRORS", str(tmp_path_factory.mktemp("mirrors")))
    name = f"bucket-{secrets.token_hex(6)}"
    connected(f"s3://{name}").mkdir(name)
    return f"s3://{name}"


def connected(url: str) -> Any:
    """fsspec's file system of ``url``, to look at it past our own code."""
    import fsspec

    return fsspec.url_to_fs(url, use_listings_cache=False)[0]


def go_by(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Have what follows talk to another port, with new connections."""
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    cloud._connected_in.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()


@contextmanager
def way(port: int, treat: Callable[[int, bytes], bytes | None], *, resets: int = 0) -> Iterator[int]:
    """The port of a way to ``port`` on which every piece that comes back goes through ``treat``.

    It gets the number of the connection and the piece, and returns what is passed on; None breaks the connection. The
    first ``resets`` connections are reset at once.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_serve, args=(listening, port, treat, resets), daemon=True).start()
        yield listening.getsockname()[1]


def _serve(listening: socket.socket, port: int, treat: Callable[[int, bytes], bytes | None], resets: int) -> None:
    for number in count(-resets):
        try:
            client, _ = listening.accept()
        except OSError:  # the way is closed
            return
        if number < 0:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            continue
        try:
            server = socket.create_connection(("127.0.0.1", port))
        except OSError:
            client.close()
            continue
        threading.Thread(target=_pass, args=(client, server, lambda piece: piece), daemon=True).start()
        threading.Thread(target=_pass, args=(server, client, partial(treat, number)), daemon=True).start()


def _pass(source: socket.socket, target: socket.socket, treat: Callable[[bytes], bytes | None]) -> None:
    with suppress(OSError):
        while (piece := source.recv(2**14)) and (passed := treat(piece)) is not None:
            target.sendall(passed)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    source.close()  # the other one is closed by whoever reads it


def troubled(times: int) -> Callable[[int, bytes], bytes | None]:
    """A way whose first connections end in an answer of a storage that has trouble of its own: 500, 503 and so on."""
    heads = (b"HTTP/1.1 500 Internal Server Error", b"HTTP/1.1 503 Service Unavailable")
    return _answering(times, lambda number: heads[number % 2] + b"\r\nConnection: close\r\n", b"")


def conflicting(times: int) -> Callable[[int, bytes], bytes | None]:
    """A way whose first connections end in S3's answer to one of two that create an object at the same instant."""
    head = b"HTTP/1.1 409 Conflict\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    body = b"<Error><Code>ConditionalRequestConflict</Code><Message>Try again.</Message></Error>"
    return _answering(times, lambda _: head, body)


def _answering(times: int, head: Callable[[int], bytes], body: bytes) -> Callable[[int, bytes], bytes | None]:
    """A way whose first connections are answered by itself, with a head for each, and reach nobody."""
    answered: set[int] = set()

    def treat(number: int, piece: bytes) -> bytes | None:
        if number >= times:
            return piece
        if number in answered:
            return None
        answered.add(number)
        return head(number) + b"Content-Length: %d\r\n\r\n" % len(body) + body

    return treat


def slowly(seconds: float) -> Callable[[int, bytes], bytes]:
    """A way on which every piece takes so long."""

    def treat(_: int, piece: bytes) -> bytes:
        time.sleep(seconds)
        return piece

    return treat


if __name__ == "__main__":
    main()
