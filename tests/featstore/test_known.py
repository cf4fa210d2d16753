from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from featstore import known as module
from featstore.known import KnownRows
from featstore.records import Reason
from featstore.spec import Spec
from featstore.store import Place, Store

SPEC = Spec("vgg16", "ab" * 32, "block5_pool", (150, 150))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def add(store: Store, *numbers: int) -> None:
    with store.namespace(SPEC).writer({}) as writer:
        for number in numbers:
            writer.add(digest(number), 0, np.full(3, number, np.float32))


def remembered(rows: KnownRows, count: int) -> list[int]:
    return [number for number in range(count) if rows.recall(digest(number)) is not None]


def test_large_rows_are_forgotten_sooner_than_small_ones(store: Store) -> None:
    for width, expected in ((1000, 16), (10, 224), (100_000, 0)):
        rows = KnownRows(store, SPEC, memory_bytes=2**16)
        for number in range(300):
            rows.remember(digest(number), np.zeros(width, np.float32))
        kept = remembered(rows, 300)
        assert kept == [*range(300 - len(kept), 300)], "those used last"
        assert len(kept) <= expected
        assert len(kept) >= 0.8 * expected


def test_reasons_weigh_something_too(store: Store) -> None:
    rows = KnownRows(store, SPEC, memory_bytes=2**16)
    for number in range(10_000):
        rows.remember(digest(number), Reason.CORRUPT)
    assert 0 < len(remembered(rows, 10_000)) <= 256


def test_a_row_that_is_used_stays(store: Store) -> None:
    rows = KnownRows(store, SPEC, memory_bytes=2**14)
    for number in range(100):
        rows.remember(digest(number), np.zeros(100, np.float32))
        assert rows.recall(digest(0)) is not None


def test_a_row_that_is_remembered_again_weighs_once(store: Store) -> None:
    rows = KnownRows(store, SPEC, memory_bytes=2**14)
    rows.remember(digest(1), Reason.CORRUPT)
    for _ in range(100):
        rows.remember(digest(0), np.zeros(1000, np.float32))
    assert remembered(rows, 2) == [0, 1]


def test_what_is_not_in_memory_comes_from_the_store_and_stays(store: Store) -> None:
    add(store, 1)
    rows = KnownRows(store, SPEC)
    assert rows.recall(digest(1)) is None
    found = rows.get(digest(1))
    assert isinstance(found, np.ndarray)
    assert found.tolist() == [1, 1, 1]
    assert rows.recall(digest(1)) is found
    assert rows.get(digest(2)) is None


def test_a_reject_in_the_store_is_a_reason(store: Store) -> None:
    with store.namespace(SPEC).writer({}) as writer:
        writer.reject(digest(1), 0, Reason.TRUNCATED)
    assert KnownRows(store, SPEC).get(digest(1)) is Reason.TRUNCATED


def test_rows_that_others_add_are_known_soon(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = KnownRows(store, SPEC)
    add(store, 1)
    assert rows.get(digest(1)) is None
    monkeypatch.setattr(Place, "look_seconds", 0.0)
    assert rows.get(digest(1)) is not None


def test_while_it_cannot_be_told_what_others_add_what_is_known_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store, 1)
    rows = KnownRows(store, SPEC)
    monkeypatch.setattr(Place, "look_seconds", 0.0)
    monkeypatch.setattr(Place, "state", lambda *_: None)
    monkeypatch.setattr(module, "CachedRows", None)  # nothing is opened anew
    assert rows.get(digest(1)) is not None
    assert rows.get(digest(2)) is None


def test_a_look_that_takes_long_holds_up_nobody_who_asks_the_memory(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, looking, go_on = KnownRows(store, SPEC), threading.Event(), threading.Event()
    rows.remember(digest(1), np.ones(4, np.float32))
    monkeypatch.setattr(Place, "look_seconds", 0.0)
    monkeypatch.setattr(Place, "state", lambda *_: (looking.set(), go_on.wait(60), None)[-1])
    asking = threading.Thread(target=rows.get, args=(digest(2),))
    asking.start()
    try:
        assert looking.wait(60)
        assert not rows._lock.locked()
        assert rows.recall(digest(1)) is not None
    finally:
        go_on.set()
        asking.join()
