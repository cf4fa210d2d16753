"""Cached augmentation: several views of each training image are rows like any others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import featstore
from featstore import Request, Store, load_tables, open_dataset
from featstore.augmentation import POLICIES, augment
from featstore.cached import CachedRows
from featstore.decode import decode
from featstore.errors import InputError
from featstore.folders import default_store
from featstore.spec import PixelSpec
from tests.pictures import class_folders, png
from tests.stubs import Bases, StubRuntime

TRAIN, ALL = 12, 36


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "photos")


def counts(done: featstore.Extraction) -> list[tuple[int, int, int]]:
    return [(spec.hits, spec.computed, spec.rejected) for spec in done.report.specs]


def features_of(picture: np.ndarray) -> np.ndarray:
    means = picture.astype(np.float32)[None]
    return np.concatenate([means.mean(axis=(1, 2)), means.std(axis=(1, 2))], axis=1)[0]


def test_training_images_alone_get_more_views_and_each_once(photos: Path, bases: Bases) -> None:
    first = featstore.extract(photos, views=4)
    assert counts(first) == [(0, ALL, 0), (0, 3 * TRAIN, 0)]
    assert counts(featstore.extract(photos, views=4)) == [(ALL, 0, 0), (3 * TRAIN, 0, 0)]
    assert bases.computed == ALL + 3 * TRAIN
    assert counts(featstore.extract(photos, views=6)) == [(ALL, 0, 0), (3 * TRAIN, 2 * TRAIN, 0)]
    assert counts(featstore.extract(photos)) == [(ALL, 0, 0)]
    assert (first.reasons[1] == -1).sum() == ALL - TRAIN


def test_another_policy_is_another_set_of_rows(photos: Path, bases: Bases) -> None:
    featstore.extract(photos, views=2)
    [plain, other] = featstore.extract(photos, views=2, augment="flip").report.specs
    assert (plain.computed, other.computed) == (0, TRAIN)


def test_the_rows_are_those_of_the_views_whatever_the_batch(
    photos: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = load_table_with_views(photos, 3)
    for row in range(len(table)):
        file = photos / table.paths[row]
        [plain] = decode(file.read_bytes(), [PixelSpec((224, 224))])
        picture = augment(plain, POLICIES["tutorial"], table.digests[row].tobytes(), int(table.views[row]))
        np.testing.assert_allclose(table.X[row], features_of(picture), rtol=1e-5)


def load_table_with_views(photos: Path, views: int) -> featstore.Table:
    featstore.extract(photos, views=views)
    return load_tables(photos, views=views)["train"]


def test_a_table_holds_the_images_first_and_then_view_by_view(photos: Path, bases: Bases) -> None:
    table = load_table_with_views(photos, 3)
    assert table.views.tolist() == [0] * TRAIN + [1] * TRAIN + [2] * TRAIN
    assert table.paths[:TRAIN] == table.paths[TRAIN : 2 * TRAIN]
    assert table.augmentation == POLICIES["tutorial"].to_text()
    plain = load_tables(photos)["train"]
    np.testing.assert_array_equal(table.originals.X, plain.X)
    assert plain.augmentation is None
    others = load_tables(photos, views=3)
    assert {split: len(other) for split, other in others.items()} == {"train": 36, "validation": 12, "test": 12}


def test_a_stored_table_reads_the_same_rows(photos: Path, bases: Bases) -> None:
    from featstore.table import read_tables

    done = featstore.extract(photos, views=3)
    rows = CachedRows(Store.open(default_store()), done.jobs[0].spec, POLICIES["tutorial"].to_text())
    dataset = open_dataset(photos)
    stored = read_tables(dataset, done.digests, done.known, rows, views=3, stored=True)["train"]
    chosen = np.array([30, 2, 15, 2])
    np.testing.assert_array_equal(stored.X[chosen], load_table_with_views(photos, 3).X[chosen])
    np.testing.assert_array_equal(stored.select(chosen).X[:], stored.X[chosen])


def test_views_follow_from_stored_maps(photos: Path, bases: Bases) -> None:
    featstore.extract(photos, views=3, pooling="map")
    before = bases.computed
    maps = load_tables(photos, views=3, pooling="avg")["train"]
    assert counts(featstore.extract(photos, views=3, pooling="avg")) == [(ALL, 0, 0), (2 * TRAIN, 0, 0)]
    assert bases.computed == before
    assert len(maps) == 3 * TRAIN


def test_views_that_are_missing_are_named(photos: Path, bases: Bases) -> None:
    featstore.extract(photos, views=2)
    with pytest.raises(InputError, match=r"view 2 of 12"):
        load_tables(photos, views=3)


def test_a_split_decided_by_content_gives_its_training_images_views(tmp_path: Path, bases: Bases) -> None:
    for i in range(30):
        target = tmp_path / "flat" / ("cats" if i % 2 else "dogs") / f"{i}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(png(i))
    done = featstore.extract(tmp_path / "flat", views=2)
    train = int((open_dataset(tmp_path / "flat").split_of(done.digests) == 0).sum())
    assert 0 < train < 30
    assert counts(done) == [(0, 30, 0), (0, train, 0)]


def test_a_copy_in_another_split_costs_no_view(photos: Path, bases: Bases) -> None:
    original = photos / "train" / "cats" / "0.png"
    (photos / "test" / "cats" / "copy.png").write_bytes(original.read_bytes())
    (photos / "train" / "cats" / "again.png").write_bytes(original.read_bytes())
    assert counts(featstore.extract(photos, views=2)) == [(2, ALL, 0), (1, TRAIN, 0)]


def test_a_broken_image_is_rejected_in_every_view_and_not_tried_again(photos: Path, bases: Bases) -> None:
    (photos / "train" / "cats" / "broken.png").write_bytes(png(1)[:60])
    for computed in (True, False):
        plain, views = counts(featstore.extract(photos, views=3))
        assert (plain[2], views[2]) == (1, 2)
        assert (plain[1] > 0) == computed
    assert len(load_tables(photos, views=3)["train"]) == 3 * TRAIN


def test_a_view_without_finite_features_leaves_the_others(
    photos: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled = features_of(augment_of(photos / "train" / "cats" / "0.png", 1))
    plain = StubRuntime.__call__

    def sometimes(self: StubRuntime, images: np.ndarray) -> np.ndarray:
        rows = plain(self, images)
        rows[np.isclose(rows, spoiled, rtol=1e-5).all(axis=1)] = np.inf
        return rows

    monkeypatch.setattr(StubRuntime, "__call__", sometimes)
    assert counts(featstore.extract(photos, views=3)) == [(0, ALL, 0), (0, 2 * TRAIN - 1, 1)]
    assert len(load_tables(photos, views=3)["train"]) == 3 * TRAIN - 1


def augment_of(file: Path, view: int) -> np.ndarray:
    import hashlib

    data = file.read_bytes()
    return augment(decode(data, [PixelSpec((224, 224))])[0], POLICIES["tutorial"], hashlib.sha256(data).digest(), view)


def test_a_plan_counts_the_views(photos: Path, bases: Bases) -> None:
    plan = featstore.plan(photos, views=4)
    assert [(part.hits, part.computed) for part in plan.specs] == [(0, ALL), (0, 3 * TRAIN)]
    assert plan.specs[1].misses == {"new view": 3 * TRAIN}
    featstore.extract(photos, views=3)
    assert [(part.hits, part.computed) for part in featstore.plan(photos, views=4).specs] == [
        (ALL, 0),
        (2 * TRAIN, TRAIN),
    ]


@pytest.mark.parametrize("views", [0, -1, 1001])
def test_an_impossible_number_of_views_is_refused(views: int) -> None:
    with pytest.raises(InputError, match="this many views"):
        Request("vgg16", views=views)


def test_two_requests_that_differ_in_their_views_are_one_job(photos: Path, bases: Bases) -> None:
    done = featstore.extract(photos, [Request("vgg16", views=2), Request("vgg16", views=4), Request("vgg16")])
    assert [job.views for job in done.jobs] == [(0,), (1, 2, 3)]
