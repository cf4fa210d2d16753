"""A real server on loopback, in a thread, with a head on stub features."""

from __future__ import annotations

import base64
import io
import json
import shutil
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest
import uvicorn

from featstore.store import Store
from heads.service.heads import ServedHeads
from heads.service.limits import Limits
from heads.service.run import guarded, server_options
from tests import stubs
from tests.commands import good
from tests.pictures import class_folders
from tests.stubs import Bases


def zipped(method: int = zipfile.ZIP_DEFLATED, /, **pictures: bytes) -> bytes:
    """A zip of pictures by their names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in pictures.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def line(name: str, data: bytes) -> str:
    """A picture as a line of JSON."""
    return json.dumps({"name": name, "image": base64.b64encode(data).decode()}) + "\n"


@dataclass
class Running:
    """A server that runs: how to ask it, and what it serves."""

    url: str
    port: int
    served: ServedHeads
    bundle: Path
    photos: Path
    store: Store
    clients: list[httpx.Client] = field(default_factory=list)

    @property
    def head(self) -> str:
        """The name of the only head."""
        return self.bundle.name

    def ask(self, method: str, path: str, **given: object) -> httpx.Response:
        """One request on a connection of its own."""
        return httpx.request(method, self.url + path, timeout=30, **given)  # type: ignore[arg-type]

    def raw(self, data: bytes, seconds: float = 20.0) -> bytes:
        """All that is answered to these bytes until the connection ends."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            connection.sendall(data)
            found = b""
            while part := connection.recv(65536):
                found += part
            return found


Serve = Callable[..., Running]


@pytest.fixture(autouse=True)
def _drawn_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps are drawn in this process, which has the libraries loaded."""
    monkeypatch.setattr("heads.service.gallery.in_a_process", lambda work, *given: work(*given))


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 36 small pictures, a head trained on them with stub bases, and its store."""
    place = tmp_path_factory.mktemp("served")
    photos = class_folders(place / "photos")
    with pytest.MonkeyPatch.context() as patch:
        stubs.put_in_place(patch)
        options = ("--image-size", "32", "--out", place / "bundles", "--store", place / "store")
        good("train", photos, "--head", "logreg", *options)
    return place


@pytest.fixture
def serve(tmp_path: Path, trained_once: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """``serve()`` serves a head on 36 small pictures, which are this test's own; ``serve(limits=…, token=…)``."""
    monkeypatch.setattr("featstore.scan.RACY_NS", 0)  # files written just now are remembered, too
    shutil.copytree(trained_once, tmp_path, dirs_exist_ok=True)
    photos = tmp_path / "photos"
    good("extract", photos, "--image-size", "32", "--store", tmp_path / "store")  # so that it is known where they are
    [bundle] = (tmp_path / "bundles").iterdir()
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(*, token: str | None = None, limits: Limits | None = None, keep: bool = True) -> Running:
        store = Store.open(tmp_path / "store")
        served = ServedHeads([tmp_path / "bundles"], store, keep=keep)
        app = guarded(served, "127.0.0.1", token)
        app = replace(app, limits=limits) if limits else app
        listening = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, **server_options()))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        running.append((server, thread))
        while not server.started:
            time.sleep(0.005)
        port = listening.getsockname()[1]
        return Running(f"http://127.0.0.1:{port}", port, served, bundle, photos, store)

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
