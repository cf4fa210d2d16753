"""Rows on their way into a store that cannot always be written."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore.errors import NoSpaceError
from featstore.keeping import Keeper
from featstore.known import weight
from featstore.records import Reason
from featstore.spec import Spec
from featstore.store import Place, Store
from featstore.store.rows import ROWS_PER_COMMIT

_SPEC = Spec("vgg16", "ab" * 32, "block5_pool", (150, 150))
_DIGESTS = np.random.default_rng(0).integers(0, 256, (1000, 32), dtype=np.uint8)
_ROW = np.ones(8, np.float32)


@contextmanager
def full_disk() -> Iterator[None]:
    def refuse(*_: Any) -> None:
        raise NoSpaceError("no space left")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Place, "commit", refuse)
        yield


def take(keeper: Keeper, start: int, stop: int) -> None:
    for digest in _DIGESTS[start:stop]:
        keeper.take(digest.tobytes(), _ROW)


def kept(store: Store) -> int:
    return int((store.namespace(_SPEC).snapshot().lookup(_DIGESTS) == 0).sum())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


@pytest.fixture
def keeper(store: Store) -> Keeper:
    return Keeper(store.namespace(_SPEC), {})


def test_rows_are_committed_as_they_come_and_what_is_durable_is_held_no_longer(keeper: Keeper, store: Store) -> None:
    for start in range(0, 1000, 100):
        take(keeper, start, start + 100)
        assert keeper.pending < ROWS_PER_COMMIT
    keeper.close()
    assert (kept(store), keeper.pending, keeper.lost) == (1000, 0, 0)


def test_what_a_full_disk_refused_is_committed_once_there_is_room(keeper: Keeper, store: Store) -> None:
    with full_disk():
        take(keeper, 0, 500)
        keeper.commit()
        assert (keeper.problem, keeper.pending) == ("no space left", 500)
    keeper.commit()
    assert (keeper.problem, keeper.pending, kept(store)) == (None, 0, 500)
    take(keeper, 500, 600)
    keeper.close()
    assert (kept(store), keeper.lost) == (600, 0)


def test_while_the_disk_is_full_it_is_not_tried_with_every_row(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def refuse(*_: Any) -> None:
        tried.append(1)
        raise NoSpaceError("no space left")

    monkeypatch.setattr(Place, "commit", refuse)
    take(keeper, 0, 1000)
    assert len(tried) == 1


def test_a_store_that_was_removed_meanwhile_is_made_again(keeper: Keeper, store: Store) -> None:
    take(keeper, 0, 10)
    shutil.rmtree(store.path)
    keeper.commit()
    assert keeper.problem is not None
    keeper.commit()
    assert (keeper.problem, kept(store)) == (None, 10)


def test_more_than_memory_may_take_is_given_up_the_oldest_first_and_counted(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = Keeper(store.namespace(_SPEC), {}, memory_bytes=10 * weight(_ROW))
    with full_disk():
        take(keeper, 0, ROWS_PER_COMMIT + 50)  # the first commit fails, and its rows stay with the writer
        assert (keeper.pending, keeper.lost) == (ROWS_PER_COMMIT + 10, 40)
    keeper.close()
    assert kept(store) == ROWS_PER_COMMIT + 10
    assert caplog.text.count("cannot be kept for now: no space left") == 1
    assert "40 new rows could not be kept: no space left" in caplog.text


def test_rejects_wait_like_rows(keeper: Keeper, store: Store) -> None:
    with full_disk():
        keeper.take(_DIGESTS[0].tobytes(), Reason.CORRUPT)
        keeper.commit()
    keeper.close()
    assert store.namespace(_SPEC).snapshot().lookup(_DIGESTS[:1]).tolist() == [Reason.CORRUPT]
