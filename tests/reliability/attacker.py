"""A client that means harm, from an address of its own: it goes on until it is told to stop, and notes the answers."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_ADDRESS = "127.0.0.2"
"""Not that of the healthy client."""


@dataclass
class Attack:
    """One attack that goes on. connected : so often; answers : every status line; told : what was ever answered that it
    should not be: a traceback, a 500, a file of the system, or a status that is none of the ``allowed`` ones, if there
    are any.
    """

    port: int
    stop: threading.Event
    allowed: frozenset[str] = frozenset()
    connected: int = 0
    answers: set[str] = field(default_factory=set)
    told: list[str] = field(default_factory=list)

    def connect(self, made: socket.socket, seconds: float) -> None:
        """Connect from the attacker's address, and have so much patience from now on."""
        made.settimeout(seconds)
        made.bind((_ADDRESS, 0))
        made.connect(("127.0.0.1", self.port))
        self.connected += 1

    @contextmanager
    def connection(self, seconds: float = 10.0) -> Iterator[socket.socket]:
        """A connection from the attacker's address; that the server ends it is no news."""
        with suppress(OSError), socket.socket() as made:
            self.connect(made, seconds)
            yield made

    def send(self, data: bytes, seconds: float = 10.0) -> None:
        """Send these bytes on a connection of their own, and look at the answer."""
        with self.connection(seconds) as made:
            with suppress(OSError):  # it may answer, and end the connection, before it has read all
                made.sendall(data)
            self.look(made)

    def look(self, made: socket.socket) -> None:
        """Read what is answered."""
        with suppress(OSError):
            answer = made.recv(65536)
            if answer:
                line = answer.split(b"\r\n", 1)[0].decode("latin-1")
                self.answers.add(line)
                status = "".join(line.split(" ")[1:2])
                leaks = any(sign in answer for sign in (b"Traceback", b'File "', b"root:"))
                if leaks or status == "500" or (self.allowed and status not in self.allowed):
                    self.told.append(answer[:500].decode("latin-1"))


def request(path: str = "/v1/predict", body: bytes = b"", method: str = "POST", **headers: str) -> bytes:
    """A request, well-formed unless the headers make it otherwise."""
    named = {"Host": "localhost", "Content-Type": "image/png", "Connection": "close", **headers}
    if body and "Content_Length" not in headers and "Transfer_Encoding" not in headers:
        named["Content-Length"] = str(len(body))
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in named.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1", "replace") + body


def over_and_over(*requests: bytes) -> Callable[[Attack], None]:
    """Send one after another, again and again."""

    def run(attack: Attack) -> None:
        for data in itertools.cycle(requests):
            if attack.stop.is_set():
                return
            attack.send(data)

    return run


def at_once(count: int, *requests: bytes) -> Callable[[Attack], None]:
    """Send so many of these at the same time, again and again."""

    def run(attack: Attack) -> None:
        with ThreadPoolExecutor(count) as threads:
            while not attack.stop.is_set():
                list(threads.map(attack.send, itertools.islice(itertools.cycle(requests), count)))

    return run
