"""The client against a real server on loopback."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from featstore.errors import InputError
from heads.service.client import Client, predict_at
from tests.commands import good, run
from tests.heads.service.conftest import Serve
from tests.pictures import png

_TOKEN = "0123456789abcdef-token"


def test_the_same_is_predicted_here_and_there(serve: Serve) -> None:
    running = serve()
    (running.photos / "test" / "cats" / "broken.png").write_bytes(png(1)[:70])
    words = ("predict", running.bundle, running.photos / "test", "--json")
    here = good(*words, "--store", running.store.path).json["predictions"]
    there = good(*words, "--url", running.url).json["predictions"]
    assert [one["path"] for one in here] == [one["path"] for one in there]
    assert [one["label"] for one in here] == [one["label"] for one in there]
    assert [one["rejected"] for one in here] == [one["rejected"] for one in there]
    for one, other in zip(here, there, strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-12)


def test_a_store_beside_a_url_is_refused_as_the_service_has_its_own(tmp_path: Path) -> None:
    done = run("predict", "pets", tmp_path, "--url", "http://127.0.0.1:9", "--store", tmp_path / "store")
    assert done.code == 2
    assert "the service at --url has a store of its own" in done.err


def test_a_file_that_no_service_takes_is_rejected_and_the_others_are_answered(serve: Serve) -> None:
    running = serve()
    folder = running.photos / "test" / "cats"
    (folder / "6.png").write_bytes(png(5) + bytes(16 * 2**20))
    (folder / "7.png").touch()
    told = good("predict", running.bundle, folder, "--json", "--url", running.url).json["predictions"]
    assert [one["rejected"] for one in told] == [None] * 6 + ["file-too-large", "empty-file"]
    assert [one["label"] is None for one in told] == [False] * 6 + [True] * 2


def test_a_picture_that_is_too_large_is_told_before_it_is_sent() -> None:
    with pytest.raises(InputError, match="too large for a service"):
        Client("http://127.0.0.1:9").predict(bytes(16 * 2**20 + 1))


def test_three_lines_are_enough(serve: Serve, tmp_path: Path) -> None:
    running = serve()
    (tmp_path / "cat.png").write_bytes(png(77))
    with Client(running.url) as client:
        one, other = client.predict(tmp_path / "cat.png", png(77))
        assert one["heads"] == other["heads"]
        assert client.heads()[0]["name"] == running.bundle.name
        assert len(next(iter(client.features(png(77))[0]["features"].values()))) == 6


def test_a_head_that_is_not_served_is_named_beside_those_that_are(serve: Serve) -> None:
    running = serve()
    done = run("predict", "no-such-head", running.photos / "test", "--url", running.url)
    assert done.code == 2
    assert running.bundle.name in done.message


def test_a_token_is_asked_for_and_taken_from_the_environment(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = serve(token=_TOKEN)
    with pytest.raises(InputError, match="needs its token"):
        Client(running.url).heads()
    assert Client(running.url, _TOKEN).heads()
    monkeypatch.setenv("FEATSTORE_TOKEN", _TOKEN)
    assert Client(running.url).heads()


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "ftp://x", "http://", "", "file:///etc/passwd", "http://127.0.0.1:99999", "http://[::1"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="no address of a service"):
        Client(url)


@pytest.mark.parametrize("host", ["127.0.0.1", "a" * 64 + ".example"])
def test_nobody_there_is_one_message(host: str) -> None:
    with pytest.raises(InputError, match="cannot be reached"):
        Client(f"http://{host}:9").heads()


Answering = Callable[..., str]


@pytest.fixture
def answering() -> Iterator[Answering]:
    """``answering((status, headers, body), …)``: a server that gives these answers, the last for ever; its address."""
    servers = []

    def start(*answers: tuple[int, dict[str, str], bytes]) -> str:
        left = list(answers)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, headers, body = left.pop(0) if len(left) > 1 else left[0]
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_busy_service_is_asked_again_when_it_says(answering: Answering) -> None:
    busy = (503, {"Retry-After": "0"}, b'{"detail": "busy"}')
    assert Client(answering(busy, busy, (200, {}, b'{"heads": []}'))).heads() == []
    with pytest.raises(InputError, match="busy"):
        Client(answering(busy)).heads()


@pytest.mark.parametrize(("token", "told"), [("", "needs its token"), ("a wrong one", "refuses this token")])
def test_a_wrong_token_is_told_from_a_missing_one(answering: Answering, token: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        Client(answering((401, {}, b"{}")), token).heads()


def test_a_token_that_cannot_be_sent_is_refused_and_not_shown() -> None:
    with pytest.raises(InputError, match="cannot be sent") as caught:
        Client("http://127.0.0.1:9", "secret\nof mine")
    assert "secret" not in str(caught.value)


_HEADS = b'{"heads": [{"name": "pets", "classes": ["cats", "dogs"]}]}'
_GOOD = {
    "rejected": None,
    "from_cache": False,
    "heads": [{"head": "pets", "label": "cats", "probabilities": {"cats": 0.75, "dogs": 0.25}}],
}


@pytest.mark.parametrize(
    "predictions",
    [
        [],
        [_GOOD, _GOOD],
        [{**_GOOD, "rejected": "a reason of the future"}],
        [{"rejected": None}],
        [7],
        *(
            [{**_GOOD, "heads": [{"head": "pets", "label": "cats", "probabilities": {"cats": odd, "dogs": 0.25}}]}]
            for odd in ("x", None, float("nan"), float("inf"), -1)
        ),
        [{**_GOOD, "heads": [{"head": "pets", "label": "\x1b[2J", "probabilities": {"cats": 0.75, "dogs": 0.25}}]}],
    ],
)
def test_an_answer_that_makes_no_sense_is_one_message(
    answering: Answering, predictions: list[object], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    url = answering((200, {}, _HEADS), (200, {}, json.dumps({"predictions": predictions}).encode()))
    with pytest.raises(InputError, match="does not answer as featstore does"):
        predict_at(url, "pets", [tmp_path])


@pytest.mark.parametrize("answer", [b'{"ok": true}', b'{"heads": 7, "predictions": {}, "pictures": [7]}'])
def test_an_answer_of_something_else_is_one_message_whatever_was_asked(answering: Answering, answer: bytes) -> None:
    client = Client(answering((200, {}, answer)))
    for ask in (client.heads, partial(client.predict, png(1)), partial(client.features, png(1))):
        with pytest.raises(InputError, match="does not answer as featstore does"):
            ask()


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    with pytest.raises(InputError, match="too large for a service"):
        Client("http://127.0.0.1:9").predict("/dev/zero")


def test_a_connection_that_ends_after_the_service_was_busy_is_opened_again() -> None:
    def ends(server: socket.socket) -> None:
        answers = (b"503 Busy\r\nRetry-After: 0", b"", b"200 OK")
        for told in answers:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                if told:
                    head = b"HTTP/1.1 %b\r\nConnection: close\r\nContent-Length: 13\r\n\r\n" % told
                    connection.sendall(head + b'{"heads": []}')

    with socket.create_server(("127.0.0.1", 0)) as server:
        answering = threading.Thread(target=ends, args=(server,))
        answering.start()
        assert Client(f"http://127.0.0.1:{server.getsockname()[1]}").heads() == []
        answering.join()


def test_a_head_that_is_taken_away_in_between_is_one_message(answering: Answering, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    url = answering((200, {}, _HEADS), (200, {}, json.dumps({"predictions": [{**_GOOD, "heads": []}]}).encode()))
    with pytest.raises(InputError, match="stopped serving this head"):
        predict_at(url, "pets", [tmp_path])


def test_the_words_of_a_refusal_are_told(answering: Answering, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    url = answering((200, {}, _HEADS), (413, {}, b'{"detail": "too \\u001b[31mlarge"}'))
    done = run("predict", "pets", tmp_path, "--url", url)
    assert r"the service refuses: too \x1b[31mlarge (status 413)" in done.message


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"[" * 100_000, b"\xff"])
def test_something_else_that_answers_there_is_no_featstore(answering: Answering, body: bytes) -> None:
    with pytest.raises(InputError, match="no featstore"):
        Client(answering((200, {}, body))).heads()


def test_images_that_are_not_there_are_told_before_anything_is_asked(serve: Serve, tmp_path: Path) -> None:
    running = serve()
    with pytest.raises(InputError, match="cannot be found"):
        predict_at(running.url, running.bundle.name, [tmp_path / "nothing.png"])
