"""What clients that mean harm do: functions that go on until the attack is told to stop."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import pickle
import socket
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress

from tests.pictures import png
from tests.reliability.attacker import Attack, at_once, over_and_over, request

KNOWN = png(1, 24)
"""A picture that the server knows."""


def lying_lengths(attack: Attack) -> None:
    """More is announced than comes, or less."""
    picture = png(1)
    while not attack.stop.is_set():
        attack.send(request(body=picture, Content_Length=str(len(picture) // 2)))
        with attack.connection(1.0) as made:
            made.sendall(request(body=picture, Content_Length=str(2 * len(picture))))
            attack.look(made)


def endless_bodies(attack: Attack) -> None:
    """Chunks without end, as fast as they are taken."""
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    while not attack.stop.is_set():
        with attack.connection() as made:
            with suppress(OSError):
                made.sendall(request(Transfer_Encoding="chunked"))
                while not attack.stop.is_set():
                    made.sendall(chunk)
            attack.look(made)


def trickling(head: bytes, rest: bytes) -> Callable[[Attack], None]:
    """Forty connections, each of which sends a byte now and then."""

    def run(attack: Attack) -> None:
        held: list[socket.socket] = []
        while not attack.stop.is_set():
            while len(held) < 40:
                made = socket.socket()
                try:
                    attack.connect(made, 5)
                    made.sendall(head)
                except OSError:
                    made.close()
                    break
                held.append(made)
            for made in list(held):
                try:
                    made.sendall(rest)
                except OSError:
                    made.close()
                    held.remove(made)
            time.sleep(0.5)
        for made in held:
            made.close()

    return run


def never_reading(path: str) -> Callable[[Attack], None]:
    """Forty connections that ask, again and again, and read nothing of what is answered."""

    def run(attack: Attack) -> None:
        while not attack.stop.is_set():
            held = []
            for _ in range(40):
                made = socket.socket()
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                with suppress(OSError):
                    attack.connect(made, 1)
                    for _ in range(200):
                        made.sendall(request(path, method="GET", Connection="keep-alive"))
                held.append(made)
            attack.stop.wait(8)
            for made in held:
                made.close()

    return run


def flood_of_connections(attack: Attack) -> None:
    """As many connections as can be had, silent."""
    while not attack.stop.is_set():
        held = []
        for _ in range(450):
            made = socket.socket()
            held.append(made)
            with suppress(OSError):
                attack.connect(made, 1)
        attack.stop.wait(2)
        for made in held:
            made.close()


class Canary:
    """Unpickled, it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


def model_files(canary: str) -> Callable[[Attack], None]:
    """Pickles and Keras files that would make a file if they were opened as what they are."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        function = f"open({canary!r}, 'w')"
        made.writestr("config.json", json.dumps({"class_name": "Lambda", "config": {"function": function}}))
        made.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n")
        made.writestr("../../escaped.npy", pickle.dumps(Canary(canary)))
    bodies = (pickle.dumps(Canary(canary)), archive.getvalue())
    kinds = ("application/octet-stream", "application/zip", "image/png", "application/x-ndjson")
    return over_and_over(*(request(body=body, Content_Type=kind) for body in bodies for kind in kinds))


def png_bomb(side: int) -> bytes:
    """A picture that says it is ``side`` × ``side``, of zeros, a few KiB."""
    return _png(side, zlib.compress(bytes(10_000_000), 9))


def _png(side: int, packed: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def flat_png(side: int) -> bytes:
    """A picture of ``side`` × ``side``, complete and all black, of some KiB."""
    return _png(side, zlib.compress(bytes(side * (3 * side + 1)), 9))


def zip_bomb() -> bytes:
    """A gigabyte of zeros."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.png", "w") as file:
        for _ in range(1024):
            file.write(bytes(2**20))
    return out.getvalue()


_JPEG_BOMB = b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01\xff\xd9"
_rounds = itertools.count()


def bombs(attack: Attack) -> None:
    """Pictures and a zip that unpack to far more than they are; every picture is a new file, of which none is known."""
    pictures, archive = (png_bomb(60_000), png_bomb(7_000), _JPEG_BOMB), zip_bomb()
    while not attack.stop.is_set():
        end = next(_rounds).to_bytes(8, "big")
        for picture in pictures:
            attack.send(request(body=picture + end))
        attack.send(request(body=archive, Content_Type="application/zip"))


def zips_of_large_pictures(attack: Attack) -> None:
    """As many complete pictures as a zip may have, each nearly as large as it may be; none of them is known."""
    picture = flat_png(7_000)
    while not attack.stop.is_set():
        body = io.BytesIO()
        with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(64):
                archive.writestr(f"{number}.png", picture + next(_rounds).to_bytes(8, "big"))
        with attack.connection(1.0) as made:
            made.sendall(request(body=body.getvalue(), Content_Type="application/zip"))
            attack.stop.wait(1.0)  # and gone, before it is answered


def bodies_that_end_too_late(attack: Attack) -> None:
    """As many bodies as can be had, of all bytes that there may be but one."""
    head, body = request(Content_Length=str(2**24)), bytes(2**24 - 1)
    while not attack.stop.is_set():
        held = []
        for _ in range(16):
            made = socket.socket()
            held.append(made)
            with suppress(OSError):
                attack.connect(made, 5)
                made.sendall(head + body)
        attack.stop.wait(4)
        for made in held:
            made.close()


PATHS = ("/v1/heads/{}", "/v1/heads/{}/map", "/v1/images/{}/thumbnail", "/v1/neighbours/{}", "/{}", "/v1/{}")
ESCAPES = (
    "../../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd",
    "%252e%252e%252fetc%252fpasswd", "..\\..\\etc\\passwd", "..%5c..%5cetc%5cpasswd", "%00", "passwd%00.png",
    "%c0%ae%c0%ae/etc/passwd", "%ff%fe", "a" * 8000,
)  # fmt: skip
CHUNKS = (b"zz\r\nhello\r\n", b"-1\r\n\r\n", b"ffffffffffffffffff\r\n", b"5\r\nhelloXX0\r\n\r\n", b"\r\n\r\n")
VERBS = ("BREW", "PROPFIND", "TRACE", "CONNECT", "DELETE", "PUT", "PATCH", "get", "\0")
HOSTS = ("evil.example", "", "localhost@evil.example", "a" * 9000, "[::1")
ORIGINS = ("https://evil.example", "null", "http://localhost.evil.example")

_LINE = json.dumps({"name": "x", "image": base64.b64encode(png(2)).decode()}).encode()


def attacks(canary: str, head: str) -> dict[str, Callable[[Attack], None]]:
    """Every attack by its name. A pickle among them would make the file ``canary``; ``head`` is one that is served."""
    small = {str(number): "" for number in range(2000)}
    neighbours = f"/v1/neighbours/{hashlib.sha256(KNOWN).hexdigest()}?head={head}&count=100"
    questions = (neighbours, "/v1/stores", f"/v1/heads/{head}", "/v1/heads")
    return {
        "tiny chunks": at_once(8, request(Transfer_Encoding="chunked") + b"1\r\nx\r\n" * 40_000),
        "tiny headers": at_once(
            8,
            request("/healthz", method="GET", **small),
            request("/healthz", method="GET", Connection="keep-alive", **small) * 15,
            request(Transfer_Encoding="chunked") + b"0\r\n" + b"X:\r\n" * 40_000 + b"\r\n",
        ),
        "questions that take long": at_once(16, *(request(path, method="GET") for path in questions)),
        "lying lengths": lying_lengths,
        "bodies without end": endless_bodies,
        "headers that trickle": trickling(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-", b"a"),
        "bodies that trickle": trickling(request(Content_Length="100000"), b"x"),
        "clients that never read": never_reading(f"/v1/heads/{head}/map"),
        "floods of headers": over_and_over(
            request(method="GET", path="/healthz", X="a" * 200_000),
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
        ),
        "bad chunks": over_and_over(
            *(request(Transfer_Encoding="chunked") + body for body in CHUNKS),
            request(body=b"0\r\n\r\n", Transfer_Encoding="chunked", Content_Length="5"),
            request(body=b"0\r\n\r\n", Transfer_Encoding="gzip, chunked"),
        ),
        "paths that lead away": over_and_over(
            *(request(path.format(escape), method="GET") for path in PATHS for escape in ESCAPES)
        ),
        "bombs": bombs,
        "zips of large pictures": zips_of_large_pictures,
        "large bodies that do not end": bodies_that_end_too_late,
        "model files": model_files(canary),
        "compressed bodies": over_and_over(
            *(request(body=zlib.compress(bytes(10**7)), Content_Encoding=kind) for kind in ("gzip", "deflate", "br, x"))
        ),
        "deep JSON": over_and_over(
            *(
                request(body=body, Content_Type="application/x-ndjson")
                for body in (
                    b"[" * 10**6,
                    b'{"a":' * 10**5,
                    b'{"image": ' + b"9" * 10**6 + b"}",
                    (_LINE + b"\n") * 65,
                    b"xx\n" * (5 * 2**20),
                    b"[" + b"[]," * (5 * 2**20),
                    b'{"name":"' + rb"\u4e2d" * 10**6 + b'"}',
                )
            )
        ),
        "ten thousand ranges": over_and_over(
            request("/page.css", method="GET", Range="bytes=" + ",".join(f"{n}-{n + 1}" for n in range(10_000))),
            request("/page.css", method="GET", Range="bytes=" + ",".join(f"{n}-" for n in range(2_000))),
        ),
        "unknown verbs": over_and_over(*(request(method=verb) for verb in VERBS)),
        "hosts and origins of others": over_and_over(
            *(request(body=png(1), Host=host) for host in HOSTS),
            *(request(body=png(1), Origin=origin) for origin in ORIGINS),
        ),
        "floods of connections": flood_of_connections,
    }
