from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featstore
from featstore import online as module
from featstore.errors import NoSpaceError, StorageError
from featstore.job import Job, resolve_jobs
from featstore.online import Busy, OnlineRows, _size
from featstore.records import Reason, Rejected
from featstore.store import Place, Store, verify
from tests.pictures import png
from tests.stubs import Bases, StubRuntime, hold
from tests.waiting import until


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


@pytest.fixture
def job(bases: Bases, store: Store, tmp_path: Path) -> Job:
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "a.png").write_bytes(png(0))
    [job] = resolve_jobs([featstore.Request("vgg16", image_size=32)], store, featstore.open_dataset(tmp_path / "some"))
    return job


@pytest.fixture
def rows(job: Job, store: Store) -> Iterator[OnlineRows]:
    made = OnlineRows(job, store)
    yield made
    made.close()


def test_a_new_picture_is_computed_once_and_then_known(rows: OnlineRows, bases: Bases) -> None:
    first, again = rows.ask(png(1)).result(60), rows.ask(png(1)).result(60)
    assert (first.from_cache, again.from_cache) == (False, True)
    assert first.features is not None
    assert again.features is not None
    assert first.features.tobytes() == again.features.tobytes()
    assert first.digest == hashlib.sha256(png(1)).digest()
    assert bases.computed == 1


def test_new_rows_are_those_of_an_extraction_and_stay_in_the_store(
    job: Job, store: Store, bases: Bases, tmp_path: Path
) -> None:
    rows = OnlineRows(job, store)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda seed: rows.ask(png(seed)).result(60), range(40)))
    rows.close()
    for seed in range(40):
        (tmp_path / "some" / f"{seed}.png").write_bytes(png(seed))
    done = featstore.extract(tmp_path / "some", featstore.Request("vgg16", image_size=32), store=store)
    assert (done.report.specs[0].hits, done.report.specs[0].computed) == (41, 0)
    held = store.namespace(job.spec).snapshot()
    for row in found:
        assert row.features is not None
        assert held.read(np.frombuffer(row.digest, np.uint8).reshape(1, -1))[0].tobytes() == row.features.tobytes()
    other = Store.open(tmp_path / "other", create=True)
    featstore.extract(tmp_path / "some", featstore.Request("vgg16", image_size=32), store=other)
    fresh = other.namespace(job.spec).snapshot()
    digests = np.stack([np.frombuffer(row.digest, np.uint8) for row in found])
    assert held.read(digests).tobytes() == fresh.read(digests).tobytes()
    assert verify(store, read_data=True).sound


def test_a_picture_that_the_store_knows_opens_no_base(job: Job, store: Store, tmp_path: Path, bases: Bases) -> None:
    featstore.extract(tmp_path / "some", featstore.Request("vgg16", image_size=32), store=store)
    opened = len(bases.opened)
    rows = OnlineRows(job, store)
    assert rows.ask(png(0)).result(60).from_cache
    rows.close()
    assert len(bases.opened) == opened


def test_rows_that_another_process_adds_are_seen(
    rows: OnlineRows, store: Store, tmp_path: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Place, "look_seconds", 0.0)
    featstore.extract(tmp_path / "some", featstore.Request("vgg16", image_size=32), store=Store.open(store.path))
    assert rows.ask(png(0)).result(60).from_cache
    assert rows.computed == 0


def test_a_picture_that_is_asked_for_at_once_by_many_is_computed_once(rows: OnlineRows, bases: Bases) -> None:
    data = png(3)
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda _: rows.ask(data).result(60), range(64)))
    assert len({row.features.tobytes() for row in found if row.features is not None}) == 1
    assert bases.computed == 1


def test_a_row_does_not_depend_on_who_shared_its_batch(job: Job, store: Store, tmp_path: Path) -> None:
    alone = OnlineRows(job, Store.open(tmp_path / "alone", create=True))
    one = alone.ask(png(5)).result(60)
    alone.close()
    crowd = OnlineRows(job, store)
    asked = [crowd.ask(png(seed)) for seed in range(20)]
    crowd.close()
    among = asked[5].result(60)
    assert one.features is not None
    assert among.features is not None
    assert one.features.tobytes() == among.features.tobytes()


def test_a_broken_picture_has_a_reason_that_is_stored(job: Job, store: Store) -> None:
    rows = OnlineRows(job, store)
    found = rows.ask(png(1)[:60]).result(60)
    rows.close()
    assert (found.features, found.reason) == (None, Reason.TRUNCATED)
    status = store.namespace(job.spec).snapshot().lookup(np.frombuffer(found.digest, np.uint8).reshape(1, -1))
    assert status.tolist() == [Reason.TRUNCATED]
    again = OnlineRows(job, store)
    assert again.ask(png(1)[:60]).result(60).from_cache
    again.close()


def test_a_picture_for_which_there_was_no_memory_is_told_and_neither_kept_nor_remembered(
    job: Job, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise Rejected(Reason.UNREADABLE, "not enough memory to decode it")

    rows = OnlineRows(job, store)
    with monkeypatch.context() as full:
        full.setattr(module, "decode", fail)
        found = rows.ask(png(1)).result(60)
    assert (found.features, found.reason, found.from_cache) == (None, Reason.UNREADABLE, False)
    assert rows.ask(png(1)).result(60).features is not None
    rows.close()
    assert rows.problem is None
    assert store.namespace(job.spec).snapshot().rows == 1


def test_rejects_that_keep_coming_do_not_delay_a_batch(rows: OnlineRows, monkeypatch: pytest.MonkeyPatch) -> None:
    real = OnlineRows._finish

    def slow(self: OnlineRows, digest: bytes, found: Any) -> None:
        if isinstance(found, Reason):
            time.sleep(module.MAX_WAIT_SECONDS)
        real(self, digest, found)

    monkeypatch.setattr(OnlineRows, "_finish", slow)
    asked = rows.ask(png(1))
    for number in range(300):
        rows._waiting.put((number.to_bytes(32, "big"), Reason.CORRUPT))
    assert asked.result(60).features is not None
    assert rows.waiting > 200


def test_a_permit_is_held_while_a_picture_is_decoded_and_only_then(
    rows: OnlineRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[bool] = []

    @contextmanager
    def permit() -> Iterator[None]:
        held.append(True)
        yield
        held.append(False)

    real = module.decode
    monkeypatch.setattr(module, "decode", lambda *given: (real(*given), held.append(held == [True]))[0])
    assert rows.ask(png(1), None, permit()).result(60).features is not None
    assert held == [True, True, False]
    assert rows.ask(png(1), None, permit()).result(60).from_cache
    assert len(held) == 3, "what is known needs none"


def test_whoever_gets_no_permit_is_refused_and_the_next_who_asks_is_answered(rows: OnlineRows) -> None:
    @contextmanager
    def refuse() -> Iterator[None]:
        raise Busy
        yield

    with pytest.raises(Busy):
        rows.ask(png(1), None, refuse())
    assert rows.ask(png(1)).result(60).features is not None


def test_nothing_is_written_where_nothing_is_to_be_kept(job: Job, store: Store) -> None:
    rows = OnlineRows(job, store, keep=False)
    assert rows.ask(png(1)).result(60).features is not None
    rows.close()
    assert not store.namespace(job.spec).exists


def test_a_store_that_cannot_be_written_is_said_and_answers_go_on(
    job: Job, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise StorageError("the disk is broken")

    monkeypatch.setattr(store.namespace(job.spec).__class__, "writer", refuse)
    rows = OnlineRows(job, store)
    assert rows.ask(png(1)).result(60).features is not None
    assert rows.problem is not None
    assert "the disk is broken" in rows.problem
    monkeypatch.undo()
    rows.close()


def test_rows_that_could_not_be_committed_are_once_the_disk_has_room(
    job: Job, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise NoSpaceError("no space left")

    monkeypatch.setattr("featstore.online.SECONDS_PER_COMMIT", 0.05)
    rows = OnlineRows(job, store)
    with monkeypatch.context() as full:
        full.setattr(Place, "commit", refuse)
        digests = [rows.ask(png(number)).result(60).digest for number in range(1, 6)]
        until(lambda: rows.problem is not None)
        assert caplog.text.count("no space left") == 1
    until(lambda: rows.problem is None)
    rows.close()
    kept = store.namespace(job.spec).snapshot()
    assert (kept.lookup(np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)) == 0).all()


def test_rows_that_could_not_be_kept_to_the_end_are_counted(
    job: Job, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise NoSpaceError("no space left")

    monkeypatch.setattr(Place, "commit", refuse)
    rows = OnlineRows(job, store)
    for number in range(1, 4):
        rows.ask(png(number)).result(60)
    rows.close()
    assert "3 new rows could not be kept: no space left" in caplog.text


def test_a_base_that_fails_answers_all_who_wait_with_its_error_and_the_next_are_answered(
    rows: OnlineRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise StorageError("no graph")

    with monkeypatch.context() as patch:
        patch.setattr(StubRuntime, "__call__", fail)
        with pytest.raises(StorageError, match="no graph"):
            rows.ask(png(1)).result(60)
    assert rows.ask(png(1)).result(60).features is not None


def test_too_many_waiting_pictures_are_refused_and_those_that_wait_are_answered(
    rows: OnlineRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    free = hold(monkeypatch)
    asked = [rows.ask(png(0))]
    while rows.waiting:
        time.sleep(0.001)
    time.sleep(2 * module.MAX_WAIT_SECONDS)  # now the base computes the first
    asked += [rows.ask(png(seed)) for seed in (1, 2, 3)]
    with pytest.raises(Busy):
        rows.ask(png(4))
    assert not asked[0].done()
    free.set()
    assert all(future.result(60).features is not None for future in asked)


def test_one_asker_has_a_share_of_what_waits_and_the_others_find_a_place(
    rows: OnlineRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING_OF_ONE", 2)
    free = hold(monkeypatch)
    asked = [rows.ask(png(seed), "one") for seed in (1, 2)]
    with pytest.raises(Busy):
        rows.ask(png(3), "one")
    assert rows.ask(png(2), "one") is asked[1], "what was asked for already takes no place"
    asked += [rows.ask(png(seed), "other") for seed in (3, 4)]
    free.set()
    assert all(future.result(60).features is not None for future in asked)
    assert rows.ask(png(5), "one").result(60).features is not None, "what was answered takes none any more"


def test_a_base_that_is_to_be_warm_is_open_before_anything_is_asked(job: Job, store: Store, bases: Bases) -> None:
    opened = len(bases.opened)
    rows = OnlineRows(job, store, warm=True)
    assert len(bases.opened) == opened + 1
    rows.close()


def test_closed_rows_have_answered_all_that_was_asked_and_refuse_more_but_still_know(
    job: Job, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoding, free, real = threading.Event(), threading.Event(), module.decode

    def slow(*given: Any) -> Any:
        decoding.set()
        assert free.wait(20)
        return real(*given)

    rows = OnlineRows(job, store)
    known = rows.ask(png(1)).result(60)
    monkeypatch.setattr(module, "decode", slow)
    with ThreadPoolExecutor(2) as threads:
        asked = threads.submit(rows.ask, png(2))
        assert decoding.wait(20)
        closed = threads.submit(rows.close)
        time.sleep(0.2)
        assert not closed.done()
        free.set()
        assert asked.result().result(60).features is not None
        closed.result(60)
    rows.close()
    with pytest.raises(Busy):
        rows.ask(png(3))
    assert rows.ask(png(1)).result(0).from_cache
    assert rows.known(known.digest) is not None
    assert store.namespace(job.spec).snapshot().rows == 2


def test_rows_that_nobody_follows_are_committed_after_a_while(
    job: Job, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS_PER_COMMIT", 0.05)
    rows = OnlineRows(job, store)
    rows.ask(png(1)).result(60)
    deadline = time.monotonic() + 10
    while not store.namespace(job.spec).exists and time.monotonic() < deadline:
        time.sleep(0.01)
    assert store.namespace(job.spec).exists
    rows.close()


@pytest.mark.parametrize(("waiting", "sizes"), [(1, [1]), (7, [1] * 7), (8, [8]), (11, [8, 1, 1, 1]), (17, [8, 8, 1])])
def test_batches_are_as_large_as_what_waits_fills_them(waiting: int, sizes: list[int]) -> None:
    found = []
    while waiting:
        found.append(_size(waiting, (8, 1)))
        waiting -= found[-1]
    assert found == sizes


@pytest.mark.parametrize(("runtime", "sizes"), [("openvino", [8, 8, 8, 8, 8]), ("tensorflow", [32, 8])])
def test_no_graph_is_opened_that_is_larger_than_what_is_fast(
    job: Job, store: Store, bases: Bases, monkeypatch: pytest.MonkeyPatch, runtime: str, sizes: list[int]
) -> None:
    free = hold(monkeypatch)
    before = len(bases.opened)
    rows = OnlineRows(replace(job, runtime=runtime), store)
    first = rows.ask(png(0))
    until(lambda: not rows.waiting)
    time.sleep(0.1)  # now the base computes the first
    asked = [rows.ask(png(seed)) for seed in range(1, 41)]
    free.set()
    assert all(future.result(60).features is not None for future in (first, *asked))
    rows.close()
    assert [size for one in bases.opened[before:] for size in one.batches if size > 1] == sizes
