from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featstore.cached import CachedRows, joined, pool
from featstore.records import Reason
from featstore.spec import Spec
from featstore.store import Store

SPEC = Spec(backbone="vgg16", weights="ab" * 32, layer="block5_pool", image_size=(150, 150))


def digests(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32), dtype=np.uint8)


def fill(store: Store, spec: Spec, keys: np.ndarray, rows: np.ndarray) -> None:
    with store.namespace(spec).writer({}) as writer:
        for key, row in zip(keys, rows, strict=True):
            writer.add(key.tobytes(), 0, row)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


@pytest.fixture
def maps() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(300, 3, 4, 5)).astype(np.float32)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("avg", lambda m: m.mean(axis=(1, 2), dtype=np.float64)),
        ("max", lambda m: m.max(axis=(1, 2))),
        ("flatten", lambda m: m.reshape(len(m), -1)),
    ],
)
def test_pooled_rows_follow_from_stored_maps(store: Store, maps: np.ndarray, pooling: str, expected) -> None:
    keys = digests(300)
    fill(store, SPEC.but(pooling="map"), keys, maps)
    rows = CachedRows(store, SPEC.but(pooling=pooling))
    assert (rows.lookup(keys) == 0).all()
    order = np.random.default_rng(2).permutation(300)
    found = rows.read(keys[order])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected(maps)[order], rtol=1e-5, atol=1e-6)


def test_a_row_of_its_own_wins_over_a_derived_one_and_both_mix_in_the_order_asked(
    store: Store, maps: np.ndarray
) -> None:
    keys = digests(6)
    fill(store, SPEC.but(pooling="map"), keys[:4], maps[:4])
    fill(store, SPEC, keys[3:], np.full((3, 5), 7, np.float32))
    found = CachedRows(store, SPEC).read(keys[[5, 0, 3]])
    np.testing.assert_array_equal(found[[0, 2]], np.full((2, 5), 7))
    np.testing.assert_allclose(found[1], maps[0].mean(axis=(0, 1)), rtol=1e-5)


def test_lookups_tell_missing_features_and_rejects_apart(store: Store, maps: np.ndarray) -> None:
    keys = digests(4)
    fill(store, SPEC, keys[:1], np.ones((1, 5), np.float32))
    with store.namespace(SPEC.but(pooling="map")).writer({}) as writer:
        writer.reject(keys[1].tobytes(), 0, Reason.TRUNCATED)
        writer.add(keys[2].tobytes(), 0, maps[0])
    assert CachedRows(store, SPEC).lookup(keys).tolist() == [0, Reason.TRUNCATED, 0, -1]


def test_maps_do_not_follow_from_pooled_rows(store: Store) -> None:
    keys = digests(1)
    fill(store, SPEC, keys, np.ones((1, 5), np.float32))
    assert CachedRows(store, SPEC.but(pooling="map")).lookup(keys).tolist() == [-1]


def test_another_spec_of_the_map_gives_nothing(store: Store, maps: np.ndarray) -> None:
    keys = digests(2)
    fill(store, SPEC.but(pooling="map", precision="bfloat16"), keys, maps[:2])
    assert CachedRows(store, SPEC).lookup(keys).tolist() == [-1, -1]


def test_what_is_read_does_not_change_when_rows_are_added_later(store: Store) -> None:
    keys = digests(2)
    rows = CachedRows(store, SPEC)
    assert rows.lookup(keys).tolist() == [-1, -1]
    fill(store, SPEC, keys, np.ones((2, 5), np.float32))
    assert rows.lookup(keys).tolist() == [-1, -1]


def test_pooling_float16_maps_does_not_overflow() -> None:
    maps = np.full((1, 40, 40, 1), 60_000, np.float16)
    np.testing.assert_allclose(pool(maps, "avg"), 60_000, rtol=1e-3)


def test_images_with_features_are_those_of_its_own_and_of_the_map_each_once(store: Store, maps: np.ndarray) -> None:
    keys = digests(6)
    with store.namespace(SPEC).writer({}) as writer:
        writer.add(keys[0].tobytes(), 0, np.ones(5, np.float32))
        writer.add(keys[1].tobytes(), 0, np.ones(5, np.float32))
        writer.add(keys[5].tobytes(), 1, np.ones(5, np.float32))
        writer.reject(keys[2].tobytes(), 0, Reason.NOT_FINITE)
    fill(store, SPEC.but(pooling="map"), keys[[1, 2, 3]], maps[:3])
    found = CachedRows(store, SPEC).with_features()
    assert [one.tobytes() for one in found] == sorted(keys[at].tobytes() for at in (0, 1, 3))


def test_where_nothing_is_stored_no_image_has_features(store: Store) -> None:
    assert CachedRows(store, SPEC).with_features().shape == (0, 32)


def test_features_of_several_specs_stand_beside_one_another(store: Store, maps: np.ndarray) -> None:
    keys = digests(3)
    fill(store, SPEC.but(pooling="map", dtype="float16"), keys, maps[:3])
    fill(store, SPEC.but(layer="block4_pool"), keys, np.arange(6, dtype=np.float32).reshape(3, 2))
    rows = [CachedRows(store, SPEC.but(layer="block4_pool")), CachedRows(store, SPEC.but(dtype="float16"))]
    found = joined(rows, keys[[2, 0]])
    assert (found.shape, found.dtype) == ((2, 7), np.float32)
    assert found[:, :2].tolist() == [[4, 5], [0, 1]]
    np.testing.assert_allclose(found[:, 2:], maps[[2, 0]].mean(axis=(1, 2)), atol=1e-2)
