from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featstore import neighbours as module
from featstore.cached import CachedRows
from featstore.neighbours import Neighbours, segments_of
from featstore.records import Reason
from featstore.spec import Spec
from featstore.store import Namespace, Store

SPEC = Spec("vgg16", "ab" * 32, "block5_pool", (150, 150))


@pytest.fixture
def namespace(tmp_path: Path) -> Namespace:
    return Store.open(tmp_path / "store").namespace(SPEC)


def neighbours(namespace: Namespace) -> Neighbours:
    return Neighbours([CachedRows(Store.open(namespace.path.parent.parent), namespace.spec)])


def digest(number: int) -> bytes:
    return bytes([number]) * 32


def test_the_nearest_come_first_whatever_their_length(namespace: Namespace) -> None:
    with namespace.writer({}) as writer:
        for number, row in enumerate(([1, 0], [0, 1], [10, 10], [-1, 0], [0, 0])):
            writer.add(digest(number), 0, np.array(row, np.float32))
        writer.reject(digest(9), 0, Reason.CORRUPT)
        writer.add(digest(0), 1, np.array([5, 5], np.float32))
    found = neighbours(namespace)
    assert len(found) == 5
    nearest = found.nearest(np.array([3, 0.1], np.float32), 4)
    assert [one.digest[0] for one in nearest] == [0, 2, 1, 4]
    assert [one.cosine for one in nearest] == pytest.approx([0.9994, 0.7303, 0.0333, 0.0], abs=1e-4)


def test_an_empty_store_has_none(namespace: Namespace) -> None:
    assert neighbours(namespace).nearest(np.ones(4, np.float32), 3) == []


def test_features_of_nothing_are_near_to_nothing(namespace: Namespace) -> None:
    with namespace.writer({}) as writer:
        writer.add(digest(1), 0, np.ones(2, np.float32))
    assert neighbours(namespace).nearest(np.zeros(2, np.float32), 3)[0].cosine == 0


def test_of_a_store_beyond_the_limit_the_first_rows_are_searched(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 3 * 4 * 2)
    with namespace.writer({}) as writer:
        for number in range(5):
            writer.add(digest(number), 0, np.array([1, number], np.float32))
    assert len(neighbours(namespace)) == 3


def test_the_segments_of_rows_are_others_once_rows_or_maps_are_added(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    seen = [segments_of(store, [SPEC])]
    for number, spec in enumerate((SPEC, SPEC.but(pooling="map"), SPEC)):
        with store.namespace(spec).writer({}) as writer:
            writer.add(digest(number), 0, np.ones((1, 1, 2) if spec.pooling == "map" else 2, np.float32))
        assert segments_of(store, [SPEC]) not in seen
        seen.append(segments_of(store, [SPEC]))
        assert segments_of(store, [SPEC]) == seen[-1]
    with store.namespace(SPEC.but(pooling="max")).writer({}) as writer:
        writer.add(digest(9), 0, np.ones(2, np.float32))
    assert segments_of(store, [SPEC]) == seen[-1], "of other features"


def test_what_is_held_are_features_and_digests(namespace: Namespace) -> None:
    with namespace.writer({}) as writer:
        for number in range(5):
            writer.add(digest(number), 0, np.ones(2, np.float32))
    assert neighbours(namespace).nbytes == 5 * (2 * 4 + 32)


def test_of_several_specs_images_with_features_of_all_are_searched_by_all_of_them(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    first, second = SPEC, SPEC.but(pooling="max")
    with store.namespace(first).writer({}) as writer:
        for number, row in enumerate(([1, 0], [1, 0.1], [0, 1])):
            writer.add(digest(number), 0, np.array(row, np.float32))
    with store.namespace(second).writer({}) as writer:
        writer.add(digest(2), 0, np.array([3, 0, 0], np.float32))
        writer.add(digest(1), 0, np.array([0, 3, 0], np.float32))
        writer.reject(digest(0), 0, Reason.CORRUPT)
        writer.add(digest(9), 0, np.array([3, 0, 0], np.float32))
    found = Neighbours([CachedRows(store, spec) for spec in (first, second)])
    nearest = found.nearest(np.array([1, 0, 3, 0, 0], np.float32), 9)
    assert [one.digest[0] for one in nearest] == [2, 1], "the second base counts, too"
    assert nearest[0].cosine == pytest.approx(0.9)


def test_rows_that_follow_from_a_stored_map_are_searched_too(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    with store.namespace(SPEC.but(pooling="map")).writer({}) as writer:
        writer.add(digest(1), 0, np.array([[[0, 2], [0, 4]]], np.float32))
        writer.add(digest(2), 0, np.array([[[1, 1], [1, 1]]], np.float32))
    with store.namespace(SPEC).writer({}) as writer:
        writer.add(digest(3), 0, np.array([1, 0], np.float32))
    found = Neighbours([CachedRows(store, SPEC)]).nearest(np.array([0, 1], np.float32), 9)
    assert [one.digest[0] for one in found] == [1, 2, 3]
    assert [one.cosine for one in found] == pytest.approx([1, 0.7071, 0], abs=1e-4)
