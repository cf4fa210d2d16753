"""The service among clients that mean harm, or are very many: a healthy one beside them notices nothing of it."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import os
import pickle
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from featstore.store import Store, verify
from tests.commands import finish, start
from tests.heads.service.conftest import zipped
from tests.pictures import class_folders, png
from tests.reliability.attacker import Attack
from tests.reliability.attacks import KNOWN, Canary, attacks
from tests.reliability.campaign import FULL, SMALL, Figures, amount, start_program
from tests.waiting import until

_HEALTHY_SECONDS = 0.5
"""A healthy client asks twice a second."""

_SLOWEST_SECONDS = 3.0
"""Within which each of its answers is there in the whole campaign, where the machine does nothing else."""

_MEMORY = 128 * 2**20
"""What 256 clients may take."""

_LEFT = 48 * 2**20
"""What may be left of all attacks together: allocators keep some of what is freed."""

_SILENT = {
    "headers that trickle", "bodies that trickle", "clients that never read", "floods of connections",
    "zips of large pictures", "large bodies that do not end",
}  # fmt: skip
"""Attacks that listen to no answer."""

_ALLOWED = {"paths that lead away": frozenset({"400", "404", "414", "422", "431", "503"})}
"""Attacks every answer to which must be a refusal."""


@dataclass
class Server:
    """A server in a process of its own; what it says on standard error is collected."""

    process: subprocess.Popen[str]
    port: int
    place: Path
    head: str
    said: list[str] = field(default_factory=list)
    memory_before: int = 0
    descriptors_before: int = 0

    def memory(self) -> int:
        """Resident bytes."""
        [line] = [line for line in self._status() if line.startswith("VmRSS")]
        return int(line.split()[1]) * 1024

    @contextmanager
    def watched(self) -> Iterator[list[int]]:
        """Its memory meanwhile, twice a second."""
        seen, done = [self.memory()], threading.Event()

        def watch() -> None:
            while not done.wait(0.5):
                seen.append(self.memory())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield seen
        finally:
            done.set()
            watcher.join()
            seen.append(self.memory())

    def descriptors(self) -> int:
        """Open files and connections."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def _status(self) -> list[str]:
        return Path(f"/proc/{self.process.pid}/status").read_text().splitlines()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("served")
    words = (*SMALL, "--head", "logreg", "--out", place / "bundles", "--store", place / "store")
    assert finish(start_program("train", class_folders(place / "photos"), *words)).code == 0
    return place


@pytest.fixture(scope="module")
def server(trained: Path) -> Iterator[Server]:
    """One server for all attacks: what one of them leaves behind, the next ones show."""
    words = ("serve", trained / "bundles", "--store", trained / "store", "--port", "0")
    temporary = trained / "temporary"
    temporary.mkdir()
    process = start_program(*words, env={"BASE_SECONDS": 0.01, "TMPDIR": temporary})
    assert process.stderr is not None
    port = 0
    while not port:
        line = process.stderr.readline()
        assert line, "the server did not start"
        if line.startswith("serving on http://127.0.0.1:"):
            port = int(line.split(":")[2].split()[0])
    [bundle] = (trained / "bundles").iterdir()
    running = Server(process, port, trained, bundle.name)
    reader = threading.Thread(target=lambda: running.said.extend(process.stderr or ()), daemon=True)
    reader.start()
    for seed in range(40):
        assert ask(port, png(seed, 24)) == 200
    asyncio.run(many_clients(port, 64, 3, _mixed([KNOWN])))  # whatever it holds under load, it has now
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/heads/{bundle.name}/map", timeout=60) as drawn:
        assert drawn.status == 200  # and what draws maps: the first process of its own leaves a pipe
    running.descriptors_before = settles(running.descriptors, 0, 3.0)
    running.memory_before = running.memory()
    yield running
    process.terminate()
    process.wait(60)
    reader.join(5)
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    strange = "".join(line for line in running.said if "Invalid HTTP request" not in line)
    assert "Traceback" not in strange, strange[-3000:]
    assert verify(Store.open(trained / "store"), read_data=True).sound
    assert not list((trained / "store" / "tmp").iterdir())
    assert not list(temporary.iterdir())


def ask(port: int, data: bytes, seconds: float = 10.0) -> int:
    """The status of an answer; 0 if there is none in time."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("POST", "/v1/predict", data, {"Content-Type": "image/png"})
        response = connection.getresponse()
        response.read()
        return response.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def settles(value: Callable[[], int], most: int, seconds: float = 40.0) -> int:
    """The value once it is at most ``most``, or after so many seconds."""
    stop = time.monotonic() + seconds
    while (now := value()) > most and time.monotonic() < stop:
        time.sleep(0.5)
    return now


_seeds = itertools.count(100_000)


def test_an_answer_that_no_attack_should_get_is_told() -> None:
    passwd = b"HTTP/1.1 200 OK\r\n\r\nroot:x:0:0"
    refusal, answer = b"HTTP/1.1 404 Not Found\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"
    allowed = _ALLOWED["paths that lead away"]
    for data, statuses, wrong in ((passwd, (), 1), (answer, (), 0), (answer, allowed, 1), (refusal, allowed, 0)):
        attack = Attack(0, threading.Event(), allowed=frozenset(statuses))
        here, there = socket.socketpair()
        with here, there:
            there.sendall(data)
            attack.look(here)
        assert (len(attack.told), len(attack.answers)) == (wrong, 1)


@pytest.mark.parametrize("name", list(attacks("", ""))[:: amount(8, 1)])
def test_beside_an_attack_a_healthy_client_is_answered_and_nothing_is_left_of_it(
    name: str, server: Server, figures: Figures, tmp_path: Path
) -> None:
    canary, seconds = tmp_path / "canary", amount(2, 60)
    attack = Attack(server.port, threading.Event(), allowed=_ALLOWED.get(name, frozenset()))
    run = attacks(str(canary), server.head)[name]
    threads = [threading.Thread(target=run, args=(attack,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: attack.connected > 0)
    answered: Counter[int] = Counter()
    slowest, began = 0.0, time.monotonic()
    while time.monotonic() < began + seconds:
        asked = time.monotonic()
        answered[ask(server.port, png(next(_seeds), 24) if answered.total() % 2 else KNOWN)] += 1
        took = time.monotonic() - asked
        slowest = max(slowest, took)
        time.sleep(max(0.0, _HEALTHY_SECONDS - took))
    attack.stop.set()
    for thread in threads:
        thread.join(60)
    assert attack.answers or name in _SILENT
    assert attack.told == []
    assert not canary.exists()
    assert answered[200] >= 0.99 * answered.total(), answered
    assert slowest < _SLOWEST_SECONDS or not FULL
    assert settles(server.descriptors, server.descriptors_before) <= server.descriptors_before
    grown = settles(server.memory, server.memory_before + _LEFT) - server.memory_before
    assert grown <= _LEFT
    figures.keep(
        f"attack: {name}", asked=answered.total(), answered=answered[200], most_seconds=round(slowest, 2),
        most_mib_left=max(0, round(grown / 2**20)),
    )  # fmt: skip


def test_a_bundle_with_a_canary_is_told_and_never_opened(server: Server, tmp_path: Path) -> None:
    hostile = server.place / "bundles" / "hostile"
    shutil.copytree(server.place / "bundles" / server.head, hostile)
    (hostile / "head.npz").write_bytes(pickle.dumps(Canary(str(tmp_path / "canary"))))
    time.sleep(1.2)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/v1/heads")
    told = connection.getresponse().read().decode()
    connection.close()
    shutil.rmtree(hostile)
    assert "changed after it was written" in told
    assert not (tmp_path / "canary").exists()
    assert ask(server.port, png(1, 24)) == 200


def _mixed(pictures: Sequence[bytes]) -> Iterator[bytes]:
    """One of these pictures, then one that nobody has seen, and so on."""
    for number in itertools.count():
        known = pictures[number // 2 % len(pictures)]
        yield known + next(_seeds).to_bytes(8, "big") if number % 2 else known


async def many_clients(port: int, clients: int, seconds: float, pictures: Iterator[bytes]) -> Counter[int]:
    """What so many clients were answered, each asking again at once, on a new connection; 0: no answer."""
    found: Counter[int] = Counter()
    stop = time.monotonic() + seconds

    async def one() -> None:
        while time.monotonic() < stop:
            found[await _ask(port, next(pictures))] += 1

    await asyncio.gather(*(one() for _ in range(clients)))
    return found


async def _ask(port: int, data: bytes, kind: str = "image/png") -> int:
    head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n"
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode() + b"Connection: close\r\n\r\n" + data)
        await writer.drain()
        answer = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        return int(answer.split(b" ", 2)[1])
    except (OSError, TimeoutError, ValueError, IndexError):
        return 0


def test_256_clients_are_answered_or_told_to_come_back(server: Server, figures: Figures) -> None:
    with server.watched() as memory:
        found = asyncio.run(
            many_clients(server.port, 256, amount(3, 60), _mixed([png(seed, 24) for seed in range(40)]))
        )
    grown = max(memory) - server.memory_before
    assert set(found) <= {200, 503}, found
    assert found[200]
    assert grown <= _MEMORY
    figures.keep(
        "256 clients, stub base",
        answered=found[200],
        told_to_come_back=found[503],
        most_mib=max(0, round(grown / 2**20)),
    )


@pytest.mark.real
@pytest.mark.skipif(not FULL, reason="part of the whole campaign: benchmarks/reliability.py")
def test_256_clients_of_vgg16_are_answered_or_told_to_come_back(
    photographs: Path, tmp_path: Path, figures: Figures
) -> None:
    words = ("-b", "vgg16", "--image-size", "150", "--store", tmp_path / "store")
    assert finish(start("train", photographs, *words, "--head", "logreg", "--out", tmp_path / "bundles")).code == 0
    process = start("serve", tmp_path / "bundles", "--store", tmp_path / "store", "--port", "0")
    port = next(int(line.split(":")[2].split()[0]) for line in process.stderr or () if line.startswith("serving on"))
    files = sorted((photographs / "test").rglob("*.jpg"))
    known = [file.read_bytes() for file in files[:60]]
    running = Server(process, port, tmp_path, "")
    asyncio.run(many_clients(port, 16, 5, _mixed(known)))
    several = zipped(**{f"{number}.jpg": data + b"new" for number, data in enumerate(known[:40])})
    assert asyncio.run(_ask(port, several, "application/zip")) == 200  # now every size of a batch was used
    with running.watched() as memory:
        found = asyncio.run(many_clients(port, 256, 60, _mixed(known)))
    grown = max(memory) - memory[0]
    process.terminate()
    assert finish(process).code in (0, -15, 130)
    assert set(found) <= {200, 503}, found
    assert grown <= _MEMORY
    figures.keep(
        "256 clients, VGG16", answered=found[200], told_to_come_back=found[503], most_mib=max(0, round(grown / 2**20))
    )
