from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featstore
from featstore import shuffling
from featstore.cached import CachedRows
from featstore.errors import InputError
from featstore.records import Digests
from featstore.shuffling import Batches, pieces, shuffled_blocks
from featstore.spec import Spec
from featstore.store import Store, compact
from featstore.store.segment import Segment
from featstore.table import StoredPart, StoredRows, Table
from tests.memory import mib_taken_by
from tests.pictures import class_folders
from tests.stubs import FEATURES, Bases, put_in_place

ROW = 4 * FEATURES
"""Bytes."""

Asked = dict[str, Any]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """Of each class 40 to train on, extracted into a store: what to ask for them with."""
    folder = tmp_path_factory.mktemp("shuffling")
    with pytest.MonkeyPatch.context() as patch:
        put_in_place(patch)
        asked = {"data": class_folders(folder / "photos", ("train",), count=40), "store": folder / "store"}
        featstore.extract(**asked)
        yield asked


def joined(batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    X, y = zip(*batches, strict=True)
    return np.concatenate(X), np.concatenate(y)


def ordered(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The rows with their labels, whatever their order was."""
    rows = np.column_stack([X, y])
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize("buffer_rows", [10, 33, 1000])
@pytest.mark.parametrize("batch_size", [1, 7, 80, 500])
def test_an_epoch_has_every_row_of_the_table_once_in_full_batches(
    photos: Asked, buffer_rows: int, batch_size: int
) -> None:
    table = featstore.load_table(**photos)
    batches = featstore.batches(**photos, batch_size=batch_size, buffer_bytes=buffer_rows * ROW)
    found = list(batches.epoch(0))
    assert {(X.dtype, y.dtype) for X, y in found} == {(np.dtype(np.float32), np.dtype(np.int64))}
    assert [len(y) for _, y in found[:-1]] == [batch_size] * (len(batches) - 1)
    np.testing.assert_array_equal(ordered(*joined(found)), ordered(table.X, table.y))
    assert (batches.classes, batches.shape) == (table.classes, table.X.shape)


def test_the_seed_and_the_epoch_decide_the_order_and_iterations_are_the_epochs(photos: Asked) -> None:
    batches, again, other = (featstore.batches(**photos, seed=seed, buffer_bytes=20 * ROW) for seed in (3, 3, 4))
    epochs = [joined(batches)[0] for _ in range(3)]
    for number, expected in enumerate(epochs):
        np.testing.assert_array_equal(joined(again.epoch(number))[0], expected)
        assert not np.array_equal(joined(other.epoch(number))[0], expected)
    assert not np.array_equal(epochs[0], epochs[1])


def test_classes_are_mixed_although_they_lie_one_after_another(photos: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shuffling, "_RUNS", 5)
    _, y = joined(featstore.batches(**photos, buffer_bytes=20 * ROW))
    assert all(0 < part.sum() < 20 for part in np.split(y, 4))


@pytest.mark.parametrize("buffer_rows", [10, 1000])
def test_workers_share_an_epoch_without_a_row_twice(photos: Asked, buffer_rows: int) -> None:
    table = featstore.load_table(**photos)
    batches = featstore.batches(**photos, batch_size=8, buffer_bytes=buffer_rows * ROW)
    parts = [joined(batches.epoch(2, part=(worker, 3))) for worker in range(3)]
    np.testing.assert_array_equal(ordered(*map(np.concatenate, zip(*parts, strict=True))), ordered(table.X, table.y))
    assert len(list(batches.epoch(0, part=(99, 100)))) == 0, "more workers than rows"


def test_another_process_gets_the_same_epoch(photos: Asked) -> None:
    batches = featstore.batches(**photos, batch_size=8, buffer_bytes=10 * ROW)
    there = pickle.loads(pickle.dumps(batches))
    for found, expected in zip(there.epoch(1), batches.epoch(1), strict=True):
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_workers_share_the_same_epoch_whatever_happens_to_the_store_meanwhile(tmp_path: Path) -> None:
    store, digests = scattered(tmp_path, segments=4, rows=192, width=4)
    batches = Batches(table_of(store, digests), 32, buffer_bytes=192 * 16)
    first, second = pickle.dumps(batches), pickle.dumps(batches)
    one, _ = joined(pickle.loads(first).epoch(0, part=(0, 2)))
    assert compact(store).segments_after == 1
    two, _ = joined(pickle.loads(second).epoch(0, part=(1, 2)))
    assert sorted(np.concatenate([one, two])[:, 0]) == list(range(4 * 192))


def test_a_batch_that_is_kept_stays_as_it_was(photos: Asked) -> None:
    (first, _), *_ = batches = list(featstore.batches(**photos, batch_size=8, buffer_bytes=10 * ROW))
    assert not any(np.shares_memory(first, X) for X, _ in batches[1:])


def test_rows_that_are_not_there_are_the_tables_own_error(photos: Asked) -> None:
    with pytest.raises(InputError, match="no features in the store yet") as caught:
        featstore.batches(**photos, pooling="max")
    with pytest.raises(InputError) as expected:
        featstore.load_table(**photos, pooling="max")
    assert str(caught.value) == str(expected.value)
    with pytest.raises(InputError, match="there is no split 'test'"):
        featstore.batches(**photos, split="test")


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"buffer_bytes": 0}, {"seed": -1}], ids=str)
def test_sizes_that_cannot_be_are_refused(photos: Asked, wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="too small"):
        featstore.batches(**photos, **wrong)


@pytest.mark.parametrize(("number", "part"), [(-1, (0, 1)), (0, (1, 1)), (0, (-1, 2)), (0, (0, 0))])
def test_epochs_and_parts_that_cannot_be_are_refused(photos: Asked, number: int, part: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="no such epoch"):
        featstore.batches(**photos).epoch(number, part=part)


def test_derived_rows_and_views_come_as_in_the_table(tmp_path: Path, bases: Bases) -> None:
    photos = class_folders(tmp_path / "photos", ("train",), count=6)
    featstore.extract(photos, pooling="map", views=3)
    for pooling in ("avg", "flatten", "map"):
        table = featstore.load_table(photos, pooling=pooling, views=3)
        assert len(table) == 36
        batches = featstore.batches(photos, pooling=pooling, views=3, batch_size=5, buffer_bytes=200)
        np.testing.assert_array_equal(ordered(*joined(batches)), ordered(table.X, table.y))


def scattered(tmp_path: Path, segments: int, rows: int, width: int) -> tuple[Store, Digests]:
    """A store of so many segments of so many rows; and their digests in an order that is not the store's."""
    store = Store.open(tmp_path / "store")
    random = np.random.default_rng(0)
    digests = random.integers(0, 256, (segments * rows, 32), np.uint8)
    with store.namespace(Spec("vgg16", "ab" * 32, "block5_pool", (150, 150))).writer({}) as writer:
        for i, digest in enumerate(digests):
            writer.add(digest.tobytes(), 0, np.full(width, i, np.float32))
    return store, digests[random.permutation(len(digests))]


def table_of(store: Store, digests: Digests) -> Table:
    [namespace] = store.namespaces()
    X, names = StoredRows([StoredPart.images(CachedRows(store, namespace.spec), digests)]), ("",) * len(digests)
    y, views = np.arange(len(digests)) % 2, np.zeros(len(digests), np.uint16)
    return Table(X, y, names, names, ("a", "b"), digests, "train", (namespace.spec,), X.widths, views)


def test_each_segment_is_read_about_once_an_epoch_whatever_the_order_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, digests = scattered(tmp_path, segments=8, rows=192, width=4)
    table = table_of(store, digests)
    read: list[Segment] = []
    real = Segment.read_into
    monkeypatch.setattr(Segment, "read_into", lambda segment, *rest: (read.append(segment), real(segment, *rest)))
    monkeypatch.setattr(shuffling, "_RUNS", 2)
    batches = Batches(table, 32, buffer_bytes=2 * 192 * 16)
    X, _ = joined(batches)
    assert sorted(X[:, 0]) == list(range(8 * 192))
    assert len(read) <= 2 * 8, "a run touches two segments at most"
    read.clear()
    for _, _part in pieces(table.X, 192):
        pass
    assert len(read) <= 2 * 8
    assert sorted(np.concatenate(list(shuffled_blocks(table.X, 300, np.random.default_rng(0))))) == list(range(8 * 192))


MEMORY = """
import sys
from pathlib import Path
from featstore.shuffling import Batches
from tests.featstore.test_shuffling import opened
table = opened(Path(sys.argv[1]))
for _ in Batches(table.select(range(64)), buffer_bytes=2**16): pass  # what is imported and indexed once
"""


def opened(folder: Path) -> Table:
    """The table of a store that :func:`scattered` made in another process, whose memory does not count here."""
    store = Store.open(folder / "store")
    [namespace] = store.namespaces()
    return table_of(store, CachedRows(store, namespace.spec).with_features())


def test_memory_is_bounded_by_the_buffer_and_not_by_the_table(tmp_path: Path) -> None:
    scattered(tmp_path, segments=25, rows=192, width=2048)
    taken = mib_taken_by(MEMORY, "for _ in Batches(table, buffer_bytes=2**23): pass", tmp_path)
    assert taken < 15, "of a table of 37 MiB, with a buffer of 8"
