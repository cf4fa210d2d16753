"""Fetching from a server that breaks off, lies about lengths, and sends other files."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from featstore import fetch as module
from featstore import open_dataset
from featstore.errors import DamageError, InputError
from featstore.fetch import Published, fetch
from tests.commands import run
from tests.pictures import png

COUNTS = {"train/cats": 2, "train/dogs": 2, "validation/cats": 1, "validation/dogs": 1}


def archive(extra: dict[str, bytes] | None = None, leave_out: str = "") -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as file:
        for folder, count in COUNTS.items():
            for i in range(count):
                name = f"pets/{folder}/{i}.jpg"
                if name != leave_out:
                    file.writestr(name, png(i + 10 * len(folder)))
        for name, data in {"pets/vectorize.py": b"print()", "__MACOSX/x": b"", **(extra or {})}.items():
            file.writestr(name, data)
    return written.getvalue()


def packed(method: int, content: bytes | None = None) -> bytes:
    """The published images alone, all of this content or each its own, packed so."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", method) as file:
        for folder, count in COUNTS.items():
            for i in range(count):
                file.writestr(f"pets/{folder}/{i}.jpg", png(i) if content is None else content)
    return written.getvalue()


Behave = Callable[[BaseHTTPRequestHandler, bytes, int], None]


def announce(handler: BaseHTTPRequestHandler, data: bytes, start: int) -> None:
    """The headers for everything from ``start`` on."""
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    handler.send_header("Content-Length", str(len(data) - start))
    handler.end_headers()


def honest(handler: BaseHTTPRequestHandler, data: bytes, start: int) -> None:
    announce(handler, data, start)
    handler.wfile.write(data[start:])


class Server:
    """``starts`` are the first bytes that it was asked for; ``behave`` its answers in turn, the last for ever."""

    def __init__(self, data: bytes, *behave: Behave) -> None:
        self.data, self.behave, self.starts = data, list(behave) or [honest], []

    @contextmanager
    def running(self) -> Iterator[str]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
                server.starts.append(start)
                answer = server.behave.pop(0) if len(server.behave) > 1 else server.behave[0]
                answer(self, server.data, start)

            def log_message(self, *given: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
            threading.Thread(target=running.serve_forever, daemon=True).start()
            try:
                yield f"http://127.0.0.1:{running.server_port}/pets.zip"
            finally:
                running.shutdown()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Serve bytes as the dataset "pets", whose published size is that of the whole archive."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 2.0)
    open_servers = []

    def start(data: bytes, *behave: Behave, size: int | None = None) -> Server:
        server = Server(data, *behave)
        running = server.running()
        url = running.__enter__()
        open_servers.append(running)
        wanted = Published(url, len(archive()) if size is None else size, "pets", COUNTS, "")
        monkeypatch.setattr(module, "DATASETS", {"pets": wanted})
        return server

    yield start
    for running in open_servers:
        running.__exit__(None, None, None)


def cut(at: int) -> Behave:
    """Announce all, send a part, hang up."""

    def behave(handler: BaseHTTPRequestHandler, data: bytes, start: int) -> None:
        announce(handler, data, start)
        handler.wfile.write(data[start : start + at])

    return behave


def ignore_range(handler: BaseHTTPRequestHandler, data: bytes, start: int) -> None:
    honest(handler, data, 0)


def refuse(handler: BaseHTTPRequestHandler, data: bytes, start: int) -> None:
    handler.send_error(404)


def test_a_dataset_is_fetched_checked_and_unpacked(serve: Callable[..., Server], tmp_path: Path) -> None:
    serve(archive())
    done = fetch("pets", tmp_path / "pets")
    assert (done.images, done.known) == (6, False)
    dataset = open_dataset(tmp_path / "pets")
    assert (len(dataset), dataset.classes) == (6, ("cats", "dogs"))
    assert not list(tmp_path.rglob("vectorize.py"))


def test_a_second_fetch_uses_the_archive_that_is_there(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(archive())
    fetch("pets", tmp_path / "one")
    assert fetch("pets", tmp_path / "two").known
    assert len(server.starts) == 1


def test_what_broke_off_goes_on_where_it_was(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(archive(), cut(700), cut(300), honest)
    assert fetch("pets", tmp_path / "pets").images == 6
    assert server.starts == [0, 700, 1000]


def test_what_broke_off_too_often_is_kept_for_the_next_call(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(archive(), cut(100))
    with pytest.raises(InputError, match="300 bytes"):
        fetch("pets", tmp_path / "pets")
    assert not (tmp_path / "pets").exists()
    server.behave = [honest]
    assert fetch("pets", tmp_path / "pets").images == 6
    assert server.starts == [0, 100, 200, 300]


def test_a_server_that_cannot_go_on_in_the_middle_begins_anew(serve: Callable[..., Server], tmp_path: Path) -> None:
    serve(archive(), cut(500), ignore_range)
    assert fetch("pets", tmp_path / "pets").images == 6


@pytest.mark.parametrize(
    "data",
    [
        b"<html>not here</html>" * 1000,
        archive(leave_out="pets/train/dogs/1.jpg"),
        archive({"pets/train/dogs/2.jpg": png(7)}),
        archive({"pets/train/dogs/../../../../evil.jpg": png(7)}, leave_out="pets/train/dogs/1.jpg"),
    ],
    ids=["a page", "one too few", "one too many", "one that points outside"],
)
def test_another_file_is_refused_and_forgotten(data: bytes, serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(data, size=len(data))
    with pytest.raises(DamageError, match="not the published dataset"):
        fetch("pets", tmp_path / "pets")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert not list((tmp_path / "cache").rglob("*.zip"))
    server.data = archive()
    server.behave = [honest]


def test_a_bomb_is_not_unpacked(serve: Callable[..., Server], tmp_path: Path) -> None:
    written = packed(zipfile.ZIP_DEFLATED, bytes(10**6))
    serve(written, size=len(written))
    with pytest.raises(DamageError, match="unpacks to 6000000 bytes"):
        fetch("pets", tmp_path / "pets")


def test_an_archive_of_a_method_that_may_unpack_to_anything_is_not_opened(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    written = packed(zipfile.ZIP_BZIP2)
    serve(written, size=len(written))
    with pytest.raises(DamageError, match="packed with bzip2"):
        fetch("pets", tmp_path / "pets")


def test_an_archive_whose_bytes_are_damaged_is_forgotten_and_fetched_again(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    written = packed(zipfile.ZIP_DEFLATED)
    good, damaged = written, bytearray(written)
    damaged[80:600] = bytes(b ^ 0xFF for b in damaged[80:600])
    server = serve(bytes(damaged), size=len(good))
    with pytest.raises(DamageError, match="not the published dataset"):
        fetch("pets", tmp_path / "pets")
    server.data = good
    assert fetch("pets", tmp_path / "pets").images == 6


def test_more_than_was_published_is_not_taken(serve: Callable[..., Server], tmp_path: Path) -> None:
    serve(archive() + bytes(5_000_000))
    with pytest.raises(DamageError, match="more than"):
        fetch("pets", tmp_path / "pets")
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file()) == 0


def test_another_archive_than_before_is_refused(serve: Callable[..., Server], tmp_path: Path) -> None:
    serve(archive())
    fetch("pets", tmp_path / "one")
    other = bytearray(archive())
    place = other.index(b"print()")
    other[place : place + 7] = b"pwned()"
    (tmp_path / "cache" / "featstore" / "datasets" / "pets.zip").write_bytes(other)
    with pytest.raises(DamageError, match="another archive"):
        fetch("pets", tmp_path / "two")
    assert fetch("pets", tmp_path / "two").known


@pytest.mark.parametrize("behave", [refuse, cut(0)], ids=["not found", "nothing"])
def test_a_closed_network_is_said_clearly(behave: Behave, serve: Callable[..., Server], tmp_path: Path) -> None:
    serve(archive(), behave)
    done = run("fetch", "pets", "--to", tmp_path / "pets")
    assert done.code == 2
    assert "where the internet is open" in done.message


def test_offline_means_offline(serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(archive())
    monkeypatch.setenv("FEATSTORE_OFFLINE", "1")
    with pytest.raises(InputError, match="FEATSTORE_OFFLINE"):
        fetch("pets", tmp_path / "pets")
    assert server.starts == []


def test_a_folder_that_is_there_and_a_name_that_is_not_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there already"):
        fetch("cats-vs-dogs", tmp_path)
    with pytest.raises(InputError, match="did you mean cats-vs-dogs"):
        fetch("cats-vs-dog", tmp_path / "x")


def test_the_command_says_where_the_images_are(serve: Callable[..., Server], tmp_path: Path) -> None:
    serve(archive())
    done = run("fetch", "pets", "--to", tmp_path / "pets", "--json")
    assert done.code == 0
    assert done.json.keys() == {"folder", "images", "sha256", "known"}
    assert done.json["images"] == 6
    assert "6 images" in done.err
