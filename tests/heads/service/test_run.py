"""The server as a process: who may reach it, how it ends, and what is left when it is killed."""

from __future__ import annotations

import http.client
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore.errors import InputError
from featstore.store import Store, verify
from heads.service.run import check_access, is_local
from tests.commands import finish, run
from tests.pictures import class_folders, png
from tests.reliability.attacks import png_bomb
from tests.reliability.campaign import Figures, amount, start_program
from tests.waiting import until

_TOKEN = "0123456789abcdef-token"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.9.9.9"])
def test_this_machine_alone_needs_no_token(host: str) -> None:
    assert is_local(host)
    check_access(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "localhost.example.org"])
def test_any_other_address_needs_one(host: str) -> None:
    with pytest.raises(InputError, match="a token must guard it"):
        check_access(host, None)
    check_access(host, _TOKEN)


@pytest.mark.parametrize(
    ("token", "why"),
    [("", "too weak"), ("short", "too weak"), ("x" * 15, "too weak"), ("with a space in it ....", "cannot bear"),
     ("tab\tin it ..........", "cannot bear"), ("ünïcödé-tökén-123", "cannot bear")],
)  # fmt: skip
def test_a_token_that_is_easily_guessed_or_cannot_be_sent_is_refused(token: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        check_access("0.0.0.0", token)


Served = Callable[..., tuple["subprocess.Popen[str]", int]]


@pytest.fixture(scope="module")
def trained_by_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("served")
    words = ("--image-size", "32", "--head", "logreg", "--out", place / "bundles", "--store", place / "store")
    assert finish(start_program("train", class_folders(place / "photos"), *words)).code == 0
    return place


@pytest.fixture
def trained(trained_by_program: Path, tmp_path: Path) -> Path:
    """A folder with ``bundles`` and a ``store``, made with the program's stub base."""
    shutil.copytree(trained_by_program, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def served(trained: Path) -> Iterator[Served]:
    """``served()`` starts a server on a free port, ready to answer; ``served(seconds)``: so long a batch takes. More
    words are what its program is to do otherwise.
    """
    running: list[subprocess.Popen[str]] = []

    def start(seconds: float = 0.01, **env: object) -> tuple[subprocess.Popen[str], int]:
        words = ("serve", trained / "bundles", "--store", trained / "store", "--port", "0")
        process = start_program(*words, env={"BASE_SECONDS": seconds, **env})
        running.append(process)
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("serving on http://127.0.0.1:"):
                return process, int(line.split(":")[2].split()[0])
        raise AssertionError("the server did not start")

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ask(port: int, data: bytes) -> int:
    """The status of an answer; 0 if the server went away meanwhile."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", "/v1/predict", data, {"Content-Type": "image/png"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def load(port: int, seeds: Iterator[int], stop: threading.Event) -> list[int]:
    """Ask about one new picture after another until told to stop; what was answered."""
    found: list[int] = []
    while not stop.is_set():
        found.append(ask(port, png(next(seeds), 24)))
    return found


def rows(store: Path) -> int:
    return sum(namespace.summary().rows for namespace in Store.open(store).namespaces())


@pytest.mark.parametrize(("end", "codes"), [(signal.SIGTERM, (-15, 143)), (signal.SIGINT, (-2, 130))])
def test_it_ends_when_what_was_asked_is_answered_and_kept(
    trained: Path, served: Served, end: signal.Signals, codes: tuple[int, int]
) -> None:
    process, port = served(0.5)
    asking = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for _ in range(24)]
    for connection in asking:
        connection.request("GET", "/healthz")
        connection.getresponse().read()  # so it was let in
    for seed, connection in enumerate(asking, start=900):
        connection.request("POST", "/v1/predict", png(seed, 24), {"Content-Type": "image/png"})
    time.sleep(0.2)
    process.send_signal(end)
    answers = [connection.getresponse().status for connection in asking]
    for connection in asking:
        connection.close()
    process.communicate(timeout=60)
    assert answers == [200] * 24
    assert process.returncode in codes
    assert ask(port, png(1)) == 0
    assert rows(trained / "store") == 36 + 24
    assert verify(Store.open(trained / "store"), read_data=True).sound


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """Where this test keeps what it tried; see docs/RELIABILITY.md."""
    return Figures(request.node.nodeid.split("[")[0])


def reported(file: Path) -> set[bytes]:
    """The digests that were told to be committed; the last may be cut off."""
    lines = file.read_bytes().splitlines() if file.exists() else []
    return {bytes.fromhex(line.decode()) for line in lines if len(line) == 64}


def test_killed_under_load_it_leaves_a_sound_store_with_all_that_it_reported_and_starts_again(
    trained: Path, served: Served, tmp_path: Path, figures: Figures
) -> None:
    seeds, chance = iter(range(10_000, 10**9)), random.Random(0)
    told, store, kills = tmp_path / "reported", Store.open(trained / "store"), amount(2, 10)
    counts, answered = [rows(store.path)], 0
    for _ in range(kills):
        process, port = served(ROWS=8, REPORTED=told)
        before, stop = len(reported(told)), threading.Event()
        with ThreadPoolExecutor(8) as threads:
            asking = [threads.submit(load, port, seeds, stop) for _ in range(8)]
            until(lambda before=before: len(reported(told)) > before)  # type: ignore[misc]
            time.sleep(chance.uniform(0.3, amount(1, 3)))
            process.kill()
            stop.set()
            found = [status for one in asking for status in one.result()]
        process.communicate()
        assert set(found) <= {200, 0}, "0 is what the kill has cut off"
        assert found.count(200) >= 8
        answered += found.count(200)
        assert verify(store, read_data=True).sound
        assert len(reported(told)) > before + 8, "they were committed all the time"
        counts.append(rows(store.path))
        assert counts[-1] > counts[-2]
    [namespace] = store.namespaces()
    digests = np.frombuffer(b"".join(sorted(reported(told))), np.uint8).reshape(-1, 32)
    assert (namespace.snapshot().lookup(digests) == 0).all()
    assert counts[-1] - counts[0] <= answered + 8 * kills, "nothing is there that nobody has asked for"
    lost = answered - (counts[-1] - counts[0])
    assert lost <= 8 * kills, "what waited for its commit"
    figures.keep("a server killed under load", kills=kills, answered=answered, reported=len(digests), lost=max(0, lost))


def resident_bytes(process: subprocess.Popen[str]) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc here")
def test_large_pictures_leave_no_memory_behind(served: Served) -> None:
    process, port = served()
    assert ask(port, png(1)) == 200
    before, bomb = resident_bytes(process), png_bomb(7_000)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: ask(port, bomb + number.to_bytes(2, "big")), range(24)))
    assert answers == [200] * 24
    assert resident_bytes(process) - before <= 128 * 2**20


def test_a_port_that_is_taken_is_one_message_before_anything_is_loaded(trained: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", trained / "bundles", "--store", trained / "store", "--port", port)
    assert done.code == 2
    assert "cannot listen there" in done.message


def test_a_host_that_is_none_is_one_message(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATSTORE_TOKEN", _TOKEN)
    done = run("serve", trained / "bundles", "--store", trained / "store", "--host", "a" * 64 + ".example")
    assert done.code == 2
    assert "cannot listen there" in done.message


def test_no_head_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("serve", "--port", "0")
    assert done.code == 2
    assert "there is no head to serve" in done.message
    assert "featstore train DATA" in done.message


def test_others_are_kept_out_from_the_command_line_too(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEATSTORE_TOKEN", raising=False)
    done = run("serve", trained / "bundles", "--host", "0.0.0.0", "--port", "0")
    assert done.code == 2
    assert "a token must guard it" in done.message


@pytest.mark.parametrize(("words", "keep"), [((), True), (("--no-cache",), False)])
def test_new_rows_are_kept_unless_told_otherwise(
    trained: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], keep: bool
) -> None:
    given: list[bool] = []
    monkeypatch.setattr("heads.service.run.serve_heads", lambda *_, keep: given.append(keep))
    assert run("serve", trained / "bundles", "--store", trained / "store", *words).code == 0
    assert given == [keep]


def test_a_library_that_is_missing_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util as importing

    real: Any = importing.find_spec
    monkeypatch.setattr(importing, "find_spec", lambda name, *rest: None if name == "uvicorn" else real(name, *rest))
    done = run("serve")
    assert done.code == 2
    assert "serving needs uvicorn" in done.message
    assert "pip install" in done.message
