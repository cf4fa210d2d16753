from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import featstore
from featstore.cached import CachedRows
from featstore.errors import InputError
from featstore.folders import default_store
from featstore.table import StoredRows, join_tables, read_tables, stack_tables
from tests.pictures import class_folders, png
from tests.stubs import Bases


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "photos")


def test_a_table_has_one_row_an_image_with_its_label_id_and_path(photos: Path, bases: Bases) -> None:
    featstore.extract(photos)
    table = featstore.load_table(photos, split="train")
    assert table.X.shape == (12, 6)
    assert table.X.dtype == np.float32
    assert table.y.dtype == np.int64
    assert table.classes == ("cats", "dogs")
    assert [table.classes[label] for label in table.y] == [path.split("/")[1] for path in table.paths]
    assert table.ids == table.paths
    assert len(table) == 12


def test_every_split_is_there_and_no_image_is_in_two(photos: Path, bases: Bases) -> None:
    featstore.extract(photos)
    tables = featstore.load_tables(photos)
    assert list(tables) == ["train", "validation", "test"]
    assert sum(map(len, tables.values())) == len({p for t in tables.values() for p in t.paths}) == 36


def test_rejected_images_are_left_out(photos: Path, bases: Bases) -> None:
    (photos / "train" / "cats" / "broken.png").write_bytes(png(seed=5)[:80])
    featstore.extract(photos)
    assert len(featstore.load_table(photos)) == 12


def test_an_image_without_a_row_is_an_error_that_says_what_to_run(photos: Path, bases: Bases) -> None:
    featstore.extract(photos)
    (photos / "train" / "cats" / "new.png").write_bytes(png(seed=77))
    with pytest.raises(InputError, match=r"1 of 37 images.*new\.png") as caught:
        featstore.load_table(photos)
    assert "featstore extract" in str(caught.value)


def test_a_split_that_is_not_there_is_named_with_those_that_are(photos: Path, bases: Bases) -> None:
    featstore.extract(photos)
    with pytest.raises(InputError, match="train, validation, test"):
        featstore.load_table(photos, split="holdout")


def test_maps_come_flattened(photos: Path, bases: Bases) -> None:
    featstore.extract(photos, pooling="map")
    assert featstore.load_table(photos, pooling="map").X.shape == (12, 24)


def test_an_exact_spec_needs_no_weights(photos: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch) -> None:
    [job] = featstore.extract(photos).jobs
    monkeypatch.setattr("featstore.api.resolve_jobs", lambda *args: pytest.fail("weights were asked for"))
    assert len(featstore.load_table(photos, job.spec)) == 12


def test_copies_of_one_image_never_straddle_splits_that_content_decides(tmp_path: Path, bases: Bases) -> None:
    for name in ("cats", "dogs"):
        (tmp_path / "p" / name).mkdir(parents=True)
        for i in range(40):
            (tmp_path / "p" / name / f"{i}.png").write_bytes(png(seed=i))  # every image once as a cat, once as a dog
    featstore.extract(tmp_path / "p")
    tables = featstore.load_tables(tmp_path / "p")
    seen = [{d.tobytes() for d in table.digests} for table in tables.values()]
    assert len(seen) == 3
    assert [a & b for a, b in combinations(seen, 2)] == [set()] * 3


def test_a_table_larger_than_the_memory_given_stays_in_the_store_and_reads_the_same(photos: Path, bases: Bases) -> None:
    done = featstore.extract(photos, pooling="map")
    dataset = featstore.open_dataset(photos)
    rows = CachedRows(featstore.Store.open(default_store()), done.jobs[0].spec.but(pooling="flatten"))
    [small, *_] = read_tables(dataset, done.digests, done.known, rows).values()
    [large, *_] = read_tables(dataset, done.digests, done.known, rows, stored=True).values()
    assert isinstance(large.X, StoredRows)
    assert (large.X.shape, large.X.nbytes) == (small.X.shape, small.X.nbytes)
    chosen = np.array([7, 2, 2])
    for pick in (slice(3, 5), chosen, small.y == 1):
        np.testing.assert_array_equal(large.X[pick], small.X[pick])
    np.testing.assert_array_equal(large.select(chosen).X[:], small.X[chosen])
    np.testing.assert_array_equal(stack_tables(large, large).X[:], stack_tables(small, small).X)
    np.testing.assert_array_equal(join_tables([large, large]).X[:], join_tables([small, small]).X)
    with pytest.raises(InputError, match="cannot be joined"):
        join_tables([small, large])


def test_joined_tables_have_the_columns_of_both_for_the_images_that_both_have(photos: Path, bases: Bases) -> None:
    featstore.extract(photos, ["vgg16", "xception"])
    one, two = (featstore.load_table(photos, name) for name in ("vgg16", "xception"))
    shuffled = two.select(np.array([5, 0, 3]))
    joined = join_tables([one, shuffled])
    assert joined.widths == (6, 6)
    assert joined.specs == (one.spec, two.spec)
    assert joined.paths == tuple(one.paths[i] for i in (0, 3, 5))
    np.testing.assert_array_equal(joined.X[:, 6:], two.X[[0, 3, 5]])
    with pytest.raises(ValueError, match="too many"):
        _ = joined.spec


def test_tables_of_different_splits_are_not_joined(photos: Path, bases: Bases) -> None:
    featstore.extract(photos)
    tables = featstore.load_tables(photos)
    with pytest.raises(InputError, match="not of the same images"):
        join_tables([tables["train"], tables["test"]])
