from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from featstore import online
from featstore.store import verify
from heads.service import answers
from tests.commands import good
from tests.heads.service.conftest import Running, Serve, line, zipped
from tests.pictures import png
from tests.reliability.attacks import png_bomb
from tests.stubs import Bases, hold
from tests.waiting import until


def test_a_picture_is_answered_as_the_command_line_predicts_it(serve: Serve) -> None:
    running = serve()
    file = running.photos / "test" / "cats" / "0.png"
    answer = running.ask("POST", "/v1/predict", content=file.read_bytes(), headers={"content-type": "image/png"})
    assert answer.status_code == 200
    [found] = answer.json()["predictions"]
    words = ("predict", running.bundle, file, "--store", running.store.path, "--json")
    [told] = good(*words).json["predictions"]
    assert found["digest"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (found["from_cache"], found["rejected"]) == (True, None)
    [head] = found["heads"]
    assert (head["head"], head["label"]) == (running.bundle.name, told["label"])
    assert head["probabilities"] == pytest.approx(told["probabilities"], abs=1e-12)


def test_a_known_picture_opens_no_base_and_a_new_one_is_kept(serve: Serve, bases: Bases) -> None:
    running = serve()
    computed = bases.computed
    known = running.photos / "train" / "dogs" / "1.png"
    running.ask("POST", "/v1/predict", content=known.read_bytes())
    assert bases.computed == computed
    [first] = running.ask("POST", "/v1/predict", content=png(500)).json()["predictions"]
    [again] = running.ask("POST", "/v1/predict", content=png(500)).json()["predictions"]
    assert (first["from_cache"], again["from_cache"]) == (False, True)
    assert first["heads"] == again["heads"]
    assert bases.computed == computed + 1


def test_many_pictures_come_in_their_order_as_a_zip_or_as_lines(serve: Serve) -> None:
    running = serve()
    pictures = {f"{seed}.png": png(600 + seed) for seed in (3, 1, 2)}
    by_zip = running.ask(
        "POST", "/v1/predict", content=zipped(**pictures), headers={"content-type": "application/zip"}
    ).json()["predictions"]
    lines = "".join(line(name, data) for name, data in pictures.items())
    by_lines = running.ask(
        "POST", "/v1/predict", content=lines.encode(), headers={"content-type": "application/x-ndjson"}
    ).json()["predictions"]
    assert [one["name"] for one in by_zip] == [*pictures]
    assert [one["heads"] for one in by_zip] == [one["heads"] for one in by_lines]
    assert [one["from_cache"] for one in by_lines] == [True] * 3


def test_a_broken_picture_among_good_ones_is_a_reason_and_no_failure(serve: Serve) -> None:
    running = serve()
    lines = line("good", png(1)) + line("broken", png(2)[:50]) + line("empty", b"")
    found = running.ask(
        "POST", "/v1/predict", content=lines.encode(), headers={"content-type": "application/x-ndjson"}
    ).json()["predictions"]
    assert [one["rejected"] for one in found] == [None, "truncated", "empty-file"]
    assert [len(one["heads"]) for one in found] == [1, 0, 0]


def test_a_name_with_half_a_character_is_answered(serve: Serve) -> None:
    body = json.dumps({"name": "\ud800.png", "image": base64.b64encode(png(1)).decode()})
    answer = serve().ask("POST", "/v1/predict", content=body, headers={"content-type": "application/x-ndjson"})
    assert answer.json()["predictions"][0]["name"] == "\\ud800.png"


def test_features_are_those_of_the_store(serve: Serve) -> None:
    running = serve()
    file = running.photos / "train" / "cats" / "2.png"
    [found] = running.ask("POST", "/v1/features", content=file.read_bytes()).json()["pictures"]
    [namespace] = running.store.namespaces()
    assert [*found["features"]] == [namespace.fingerprint]
    digest = np.frombuffer(bytes.fromhex(found["digest"]), np.uint8).reshape(1, -1)
    expected = namespace.snapshot().read(digest)[0]
    assert np.array_equal(np.array(found["features"][namespace.fingerprint], np.float32), expected)


def test_too_much_waiting_is_a_503_with_the_time_to_come_back(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "MAX_WAITING", 0)
    answer = serve().ask("POST", "/v1/predict", content=png(800))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


def test_without_a_cache_new_rows_are_used_and_forgotten(serve: Serve) -> None:
    running = serve(keep=False)
    [answer] = running.ask("POST", "/v1/predict", content=png(850)).json()["predictions"]
    assert len(answer["heads"]) == 1
    running.served.close()
    assert running.store.namespaces()[0].summary().rows == 36


def test_a_picture_of_too_many_pixels_is_a_reason(serve: Serve) -> None:
    [answer] = serve().ask("POST", "/v1/predict", content=png_bomb(8000)).json()["predictions"]
    assert (answer["rejected"], answer["heads"]) == ("too-many-pixels", [])


def test_requests_that_come_together_share_a_forward_pass(
    serve: Serve, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = hold(monkeypatch)
    running = serve()
    [rows] = running.served.rows.values()
    with ThreadPoolExecutor(9) as threads:
        asked = [threads.submit(running.ask, "POST", "/v1/predict", content=png(2000))]
        until(lambda: bool(rows._asked) and not rows.waiting)
        time.sleep(0.1)  # now the base computes the first
        asked += [threads.submit(running.ask, "POST", "/v1/predict", content=png(2001 + n)) for n in range(8)]
        until(lambda: rows.waiting == 8)
        free.set()
        assert {one.result().status_code for one in asked} == {200}
    assert sorted(size for runtime in bases.opened for size in runtime.batches if size in (1, 8)) == [1, 8]


@pytest.fixture
def slow_to_decode(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Pictures that end in ``slow`` are decoded when this is set."""
    free, real = threading.Event(), online.decode

    def decode(data: bytes, pixels: Any) -> Any:
        if data.endswith(b"slow"):
            assert free.wait(20)
        return real(data, pixels)

    monkeypatch.setattr(online, "decode", decode)
    yield free
    free.set()


def ask_from(address: str, running: Running, data: bytes) -> int:
    with httpx.Client(transport=httpx.HTTPTransport(local_address=address), timeout=30) as there:
        return there.post(f"{running.url}/v1/predict", content=data).status_code


def test_known_pictures_are_answered_while_nothing_more_can_be_decoded_and_new_ones_of_others_while_one_has_its_share(
    serve: Serve, slow_to_decode: threading.Event
) -> None:
    running = serve()
    known = (running.photos / "train" / "cats" / "0.png").read_bytes()
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(ask_from, "127.0.0.2", running, png(4000 + n) + b"slow") for n in range(4)]
        time.sleep(0.5)
        began = time.monotonic()
        assert running.ask("POST", "/v1/predict", content=png(4010)).status_code == 200
        asked += [threads.submit(ask_from, "127.0.0.3", running, png(4020 + n) + b"slow") for n in range(4)]
        time.sleep(0.5)
        assert running.ask("POST", "/v1/predict", content=known).status_code == 200
        assert time.monotonic() - began < 10
        slow_to_decode.set()
        assert {one.result() for one in asked} == {200}


def test_once_its_time_is_over_nothing_more_of_a_request_is_decoded(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heads.service.routes.asking._ANSWER_SECONDS", 0.5)
    decoded: list[int] = []
    real = online.decode
    monkeypatch.setattr(
        online, "decode", lambda data, pixels: (time.sleep(0.3), decoded.append(len(data)), real(data, pixels))[2]
    )
    running = serve()
    body = zipped(**{f"{seed}.png": png(5000 + seed) for seed in range(20)})
    answer = running.ask("POST", "/v1/predict", content=body, headers={"content-type": "application/zip"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert len(decoded) <= 2


def test_a_base_that_takes_too_long_is_not_waited_for_and_what_it_computes_is_kept(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = hold(monkeypatch)
    running = serve()
    with monkeypatch.context() as hurried:
        hurried.setattr("heads.service.routes.asking._ANSWER_SECONDS", 0.3)
        began = time.monotonic()
        answer = running.ask("POST", "/v1/predict", content=png(7000))
        took = time.monotonic() - began
    free.set()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert 0.3 <= took < 3
    until(lambda: running.ask("POST", "/v1/predict", content=png(7000)).status_code == 200)
    assert running.ask("POST", "/v1/predict", content=png(7000)).json()["predictions"][0]["from_cache"]


def test_the_end_commits_what_is_new(serve: Serve) -> None:
    running = serve()
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: running.ask("POST", "/v1/predict", content=png(900 + n)), range(24)))
    assert {answer.status_code for answer in answers} == {200}
    running.served.close()
    assert running.store.namespaces()[0].summary().rows == 36 + 24
    assert verify(running.store, read_data=True).sound


@pytest.mark.parametrize(("kind", "body", "status"), [("text/html", b"x", 415), ("application/zip", b"no zip", 400)])
def test_a_body_that_is_not_what_it_says_is_refused_in_a_sentence(
    serve: Serve, kind: str, body: bytes, status: int
) -> None:
    answer = serve().ask("POST", "/v1/predict", content=body, headers={"content-type": kind})
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]
    assert "Traceback" not in answer.text


def test_one_address_has_a_share_of_what_waits_and_others_find_a_place(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online, "MAX_WAITING_OF_ONE", 2)
    free = hold(monkeypatch)
    running = serve()
    there = httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2"), timeout=30)

    def ask_from_there(*seeds: int) -> httpx.Response:
        body = zipped(**{f"{seed}.png": png(seed) for seed in seeds})
        return there.post(f"{running.url}/v1/predict", content=body, headers={"content-type": "application/zip"})

    with ThreadPoolExecutor(2) as threads, there:
        first = threads.submit(ask_from_there, 1000, 1001)
        time.sleep(0.5)
        second = ask_from_there(1002, 1003)
        mine = threads.submit(running.ask, "POST", "/v1/predict", content=png(1004))
        time.sleep(0.5)
        free.set()
        assert (second.status_code, second.headers["retry-after"]) == (503, "2")
        assert first.result().status_code == mine.result().status_code == 200
        assert ask_from_there(1002, 1003).status_code == 200, "what was answered counts no more"


def is_in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize(("path", "kind"), [("predict", answers.Predicted), ("features", answers.PictureFeatures)])
def test_long_answers_are_written_picture_by_picture_in_a_thread_so_that_others_are_answered(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, path: str, kind: type[answers.Picture]
) -> None:
    running = serve()
    in_loop: list[bool] = []
    real = kind.model_dump_json
    monkeypatch.setattr(kind, "model_dump_json", lambda self: (in_loop.append(is_in_a_loop()), real(self))[1])
    body = zipped(**{f"{seed}.png": png(seed) for seed in range(5)})
    answer = running.ask("POST", f"/v1/{path}", content=body, headers={"content-type": "application/zip"})
    assert answer.headers["content-type"] == "application/json"
    [pictures] = answer.json().values()
    assert [one["name"] for one in pictures] == [f"{seed}.png" for seed in range(5)]
    assert in_loop == [False] * 5
