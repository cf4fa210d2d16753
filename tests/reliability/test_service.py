"""The service among clients that mean harm, or are very many: a healthy one beside them notices nothing of it."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import os
import pickle
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from featstore.store import Store, verify
from tests.commands import finish, start
from tests.heads.service.conftest import zipped
from tests.pictures import class_folders, png
from tests.reliability.attacks import Attack, Canary, attacks
from tests.reliability.campaign import FULL, SMALL, Figures, amount, start_program
from tests.waiting import until

_HEALTHY_SECONDS = 0.5
"""A healthy client asks twice a second."""

_MEMORY = 128 * 2**20

_SILENT = {
    "headers that trickle", "bodies that trickle", "clients that never read", "floods of connections",
    "zips of large pictures", "large bodies that do not end",
}  # fmt: skip
"""Attacks that listen to no answer."""


@dataclass
class Server:
    """A server in a process of its own; what it says on standard error is collected."""

    process: subprocess.Popen[str]
    port: int
    place: Path
    head: str
    said: list[str] = field(default_factory=list)

    def memory(self) -> int:
        """Resident bytes."""
        [line] = [line for line in self._status() if line.startswith("VmRSS")]
        return int(line.split()[1]) * 1024

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
    process = start_program(*words, env={"BASE_SECONDS": 0.01})
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


@pytest.mark.parametrize("name", list(attacks("", ""))[:: amount(8, 1)])
def test_beside_an_attack_a_healthy_client_is_answered_and_nothing_is_left_of_it(
    name: str, server: Server, figures: Figures, tmp_path: Path
) -> None:
    canary, seconds = tmp_path / "canary", amount(2, 60)
    known = png(1, 24)
    memory, descriptors = server.memory(), settles(server.descriptors, 0, 0.0)
    attack = Attack(server.port, threading.Event())
    run = attacks(str(canary), server.head)[name]
    threads = [threading.Thread(target=run, args=(attack,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: attack.connected > 0)
    answered: Counter[int] = Counter()
    slowest, began = 0.0, time.monotonic()
    while time.monotonic() < began + seconds:
        asked = time.monotonic()
        answered[ask(server.port, png(next(_seeds), 24) if answered.total() % 2 else known)] += 1
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
    assert settles(server.descriptors, descriptors + 2) <= descriptors + 2
    grown = settles(server.memory, memory + _MEMORY) - memory
    assert grown <= _MEMORY
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


async def many_clients(port: int, clients: int, seconds: float, pictures: list[bytes]) -> Counter[int]:
    """What so many clients were answered, each asking again at once, on a new connection; 0: no answer."""
    found: Counter[int] = Counter()
    stop = time.monotonic() + seconds

    async def one(number: int) -> None:
        asked = 0
        while time.monotonic() < stop:
            found[await _ask(port, pictures[(7 * number + asked) % len(pictures)])] += 1
            asked += 1

    await asyncio.gather(*(one(number) for number in range(clients)))
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
    before = server.memory()
    pictures = [png(seed, 24) for seed in (*range(40), *range(500_000, 500_200))]
    found = asyncio.run(many_clients(server.port, 256, amount(3, 60), pictures))
    grown = server.memory() - before
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
    new = [
        data[:2] + b"\xff\xfe\x00\x06" + number.to_bytes(4, "big") + data[2:] for data in known for number in range(4)
    ]
    running = Server(process, port, tmp_path, "")
    asyncio.run(many_clients(port, 16, 5, known + new[:40]))
    at_once = zipped(**{f"{number}.jpg": data for number, data in enumerate(new[40:80])})
    assert asyncio.run(_ask(port, at_once, "application/zip")) == 200  # now every size of a batch was used
    before = running.memory()
    found = asyncio.run(many_clients(port, 256, 60, known + new))
    grown = running.memory() - before
    process.terminate()
    assert finish(process).code in (0, -15, 130)
    assert set(found) <= {200, 503}, found
    assert grown <= _MEMORY
    figures.keep(
        "256 clients, VGG16", answered=found[200], told_to_come_back=found[503], most_mib=max(0, round(grown / 2**20))
    )
