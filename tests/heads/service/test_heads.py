"""What is served follows what lies on the disk, and nobody waits for that."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from featstore import online
from featstore.online import Busy, OnlineRows
from heads.service import heads as module
from heads.service.heads import ServedHeads
from tests.commands import good
from tests.heads.service.conftest import Running, Serve
from tests.pictures import png
from tests.stubs import Bases, hold
from tests.waiting import until


def test_a_bundle_that_is_added_replaced_or_broken_is_noticed(serve: Serve) -> None:
    running = serve()
    [name] = [head["name"] for head in running.ask("GET", "/v1/heads").json()["heads"]]
    copy = running.bundle.with_name("a-second-head")
    shutil.copytree(running.bundle, copy)
    time.sleep(1.1)
    assert [h["name"] for h in running.ask("GET", "/v1/heads").json()["heads"]] == sorted([name, copy.name])
    (copy / "head.npz").write_bytes(b"broken")
    (copy / "card.json").touch()
    time.sleep(1.1)
    told = running.ask("GET", "/v1/heads").json()
    assert copy.name in [head["name"] for head in told["heads"]], "what could be used before goes on being served"
    assert [*told["problems"]] == [str(copy)]
    shutil.rmtree(copy)
    time.sleep(1.1)
    assert [head["name"] for head in running.ask("GET", "/v1/heads").json()["heads"]] == [name]
    assert running.ask("POST", "/v1/predict", content=png(1)).json()["predictions"][0]["heads"]


def trained_elsewhere(running: Running) -> Path:
    """A head on features of another size that is not served."""
    folder = running.bundle.parent.with_name("elsewhere")
    good(
        "train",
        running.photos,
        "--head",
        "logreg",
        "--image-size",
        "48",
        "--out",
        folder,
        "--store",
        running.store.path,
    )
    [made] = folder.iterdir()
    return made


def swap(running: Running, other: Path) -> None:
    """Put the other bundle in the place of the one that is served, and wait until it is."""
    before = running.served.now.rows.keys()
    running.bundle.rename(running.bundle.parent.with_name("away"))
    other.rename(running.bundle)
    until(lambda: not running.served.now.rows.keys() & before and running.served.is_ready)


def test_a_good_bundle_that_takes_the_place_of_another_is_served(serve: Serve) -> None:
    running = serve()
    [before] = running.ask("POST", "/v1/features", content=png(1)).json()["pictures"]
    swap(running, trained_elsewhere(running))
    [after] = running.ask("POST", "/v1/features", content=png(1)).json()["pictures"]
    assert not {*before["features"]} & {*after["features"]}
    [told] = running.ask("POST", "/v1/predict", content=png(1)).json()["predictions"]
    assert [head["head"] for head in told["heads"]] == [running.head]


def test_who_asked_before_a_head_was_replaced_is_answered_by_the_one_before(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve()
    other = trained_elsewhere(running)
    free = hold(monkeypatch)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(running.ask, "POST", "/v1/predict", content=png(3000))
        until(lambda: any(rows._asked for rows in running.served.rows.values()))
        swap(running, other)
        free.set()
        [told] = asked.result().json()["predictions"]
    assert [head["head"] for head in told["heads"]] == [running.head]


def test_of_two_bundles_of_a_name_the_first_is_served_and_the_other_is_told(serve: Serve, bases: Bases) -> None:
    running = serve()
    other = running.bundle.parent.with_name("others") / running.head
    shutil.copytree(running.bundle, other)
    served = ServedHeads([running.bundle.parent, other.parent], running.store)
    served.close()
    assert served.bundles[running.head].path == running.bundle
    assert served.problems == {str(other): f"another head has this name: {running.bundle}"}


def test_each_change_of_what_is_served_is_told_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    running = serve()
    monkeypatch.setattr(module, "_LOOK_SECONDS", 3600.0)
    told: list[str] = []
    served = ServedHeads([running.bundle.parent], running.store, tell=told.append)
    second, broken = (running.bundle.with_name(name) for name in ("second", "third"))
    shutil.copytree(running.bundle, second)
    served._look(frozenset())
    assert told == ["serving second, too"]
    shutil.rmtree(second)
    trained_elsewhere(running).rename(second)
    served._look(frozenset())
    assert told[1:] == ["serving the new second"]
    shutil.rmtree(second)
    shutil.copytree(running.bundle, broken)
    (broken / "card.json").write_text("{")
    for _ in range(2):
        served._look(frozenset())
    served.close()
    assert told[2] == "serving second no more"
    assert [line.partition(": ")[0] for line in told[3:]] == [str(broken)]


def test_a_folder_that_is_emptied_leaves_no_head_and_no_fault(serve: Serve) -> None:
    running = serve()
    [answer] = running.ask("POST", "/v1/predict", content=png(1)).json()["predictions"]
    shutil.rmtree(running.bundle)
    running.bundle.mkdir()
    _assert_that_no_head_is_left(running, answer["digest"])


def test_a_folder_that_was_named_and_is_removed_leaves_no_head_and_is_told(serve: Serve) -> None:
    running = serve()
    [answer] = running.ask("POST", "/v1/predict", content=png(1)).json()["predictions"]
    folder, away = running.bundle.parent, running.bundle.parent.with_name("away")
    folder.rename(away)
    _assert_that_no_head_is_left(running, answer["digest"])
    assert running.served.problems == {str(folder): "it is not there any more"}
    away.rename(folder)
    until(lambda: running.served.is_ready)
    assert running.served.problems == {}


def _assert_that_no_head_is_left(running: Running, digest: str) -> None:
    until(lambda: not running.served.is_ready)
    assert running.ask("GET", "/v1/heads").json()["heads"] == []
    refused = running.ask("POST", "/v1/predict", content=png(1))
    assert (refused.status_code, refused.json()["detail"].partition(":")[0]) == (503, "no head is served")
    assert running.ask("GET", f"/v1/neighbours/{digest}").status_code == 404
    assert running.ask("GET", "/readyz").status_code == 503


def test_a_head_whose_files_come_one_after_the_other_is_served_in_the_end(serve: Serve) -> None:
    running = serve()
    copy = running.bundle.with_name("copied-slowly")
    copy.mkdir()
    for name in ("card.json", "rows.npz", "held-out.npz", "head.npz"):
        shutil.copyfile(running.bundle / name, copy / name)
        time.sleep(1.1)
        told = running.ask("GET", "/v1/heads").json()
        assert (copy.name in [head["name"] for head in told["heads"]]) == (name == "head.npz")


def train_another(running: Running, *words: object) -> Path:
    """A second head among those that are served, on features of another size."""
    before = set(running.bundle.parent.iterdir())
    options = ("--image-size", "48", "--out", running.bundle.parent, "--store", running.store.path)
    good("train", running.photos, "--head", "logreg", *options, *words)
    [made] = set(running.bundle.parent.iterdir()) - before
    return made


def is_closed(rows: OnlineRows) -> bool:
    try:
        rows.ask(png(51)).result(30)
    except Busy:
        return True
    return False


def test_rows_that_no_head_needs_any_more_are_closed(serve: Serve, bases: Bases) -> None:
    running = serve()
    [kept] = running.served.rows
    other = train_another(running)
    until(lambda: len(running.served.rows) == 2)
    rows = next(rows for fingerprint, rows in running.served.rows.items() if fingerprint != kept)
    assert rows.ask(png(50)).result(30).features is not None
    shutil.rmtree(other)
    until(lambda: [*running.served.rows] == [kept])
    until(lambda: is_closed(rows))
    computed = bases.computed
    assert running.ask("POST", "/v1/predict", content=png(52)).status_code == 200
    assert bases.computed == computed + 1


def test_the_base_of_a_new_head_is_open_before_it_is_served(
    serve: Serve, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve()
    free, opening = threading.Event(), threading.Event()

    def slow_open(*given: Any) -> Any:
        opening.set()
        free.wait(20)
        return bases.open(*given)

    monkeypatch.setattr(online, "open_runtime", slow_open)
    other = train_another(running)
    assert opening.wait(20)
    began = time.monotonic()
    told = running.ask("GET", "/v1/heads").json()["heads"]
    known = (running.photos / "test" / "cats" / "0.png").read_bytes()
    assert running.ask("POST", "/v1/predict", content=known).status_code == 200
    assert time.monotonic() - began < 10, "nobody waits for it"
    assert [head["name"] for head in told] == [running.head]
    free.set()
    until(lambda: other.name in running.served.bundles)


def test_while_a_bundle_is_read_the_others_answer(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    running = serve()
    free, real = threading.Event(), module.read_bundle
    monkeypatch.setattr(module, "read_bundle", lambda place: (free.wait(20), real(place))[1])
    shutil.copytree(running.bundle, running.bundle.with_name("another"))
    time.sleep(1.2)
    began = time.monotonic()
    assert [head["name"] for head in running.ask("GET", "/v1/heads").json()["heads"]] == [running.head]
    assert running.ask("POST", "/v1/predict", content=png(1)).status_code == 200
    assert time.monotonic() - began < 10
    free.set()
    until(lambda: "another" in running.served.bundles)


def test_a_head_whose_base_cannot_be_opened_is_told_and_the_others_are_served(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve()

    def fail(*_: object) -> None:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(online, "open_runtime", fail)
    other = train_another(running)
    until(lambda: bool(running.served.problems))
    assert running.served.problems == {str(other): "RuntimeError: no such instruction"}
    assert [*running.served.bundles] == [running.head]
    assert len(running.served.rows) == 1


def test_closing_twice_is_as_good_as_once(serve: Serve) -> None:
    running = serve()
    running.served.close()
    running.served.close()


def test_a_bundle_that_has_not_changed_is_not_read_again(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    running = serve()
    kept, read, real = running.served.bundles[running.head], list[Path](), module.read_bundle
    monkeypatch.setattr(module, "read_bundle", lambda place: (read.append(place), real(place))[1])
    another = running.bundle.with_name("another")
    shutil.copytree(running.bundle, another)
    until(lambda: "another" in running.served.bundles)
    assert set(read) == {another}
    assert running.served.bundles[running.head] is kept
    (running.bundle / "card.json").touch()
    until(lambda: running.bundle in read)


def test_the_end_does_not_wait_for_a_base_that_is_being_opened(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    running = serve()
    monkeypatch.setattr(module, "_END_SECONDS", 0.2)
    free, opening = threading.Event(), threading.Event()
    monkeypatch.setattr(module, "read_bundle", lambda place: (opening.set(), free.wait(20))[1])
    shutil.copytree(running.bundle, running.bundle.with_name("another"))
    assert opening.wait(20)
    began = time.monotonic()
    running.served.close()
    assert time.monotonic() - began < 10
    free.set()
