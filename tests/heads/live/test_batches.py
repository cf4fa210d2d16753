from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featstore import open_dataset
from featstore.augmentation import POLICIES, augment
from featstore.decode import decode
from featstore.errors import DamageError
from featstore.spec import PixelSpec
from heads.live import batches as module
from heads.live.batches import MapBatches, PictureBatches, Pictures, Views, order_of
from tests.heads.conftest import make_table, with_views
from tests.pictures import class_folders

SIZE = PixelSpec((12, 16))
POLICY = POLICIES["tutorial"]


@pytest.fixture
def pictures(tmp_path: Path) -> PictureBatches:
    dataset = open_dataset(class_folders(tmp_path / "p", ("train",), count=5))
    return PictureBatches(Pictures(dataset, SIZE), np.arange(10), dataset.labels, POLICY)


def test_an_order_is_a_function_of_seed_and_epoch() -> None:
    assert sorted(order_of(20, 1, 5).tolist()) == list(range(20))
    assert order_of(20, 1, 5).tolist() == order_of(20, 1, 5).tolist()
    assert order_of(20, 1, 5).tolist() != order_of(20, 1, 6).tolist() != order_of(20, 2, 5).tolist()


def test_fresh_views_never_come_again_and_counted_ones_take_turns() -> None:
    assert [Views(fresh=True).of(epoch) for epoch in range(4)] == [1, 2, 3, 4]
    assert [Views(3).of(epoch) for epoch in range(5)] == [0, 1, 2, 0, 1]
    assert [Views().of(epoch) for epoch in range(3)] == [0, 0, 0]


class TestPictures:
    def test_are_those_of_the_decoder_in_the_order_that_is_asked_for(self, pictures: PictureBatches) -> None:
        dataset = pictures._pictures._dataset
        order = np.array([3, 0, 9, 7, 1])
        got = list(pictures.read(order, 0, 2))
        assert [len(images) for images, _ in got] == [2, 2, 1]
        images = np.concatenate([images for images, _ in got])
        assert images.dtype == np.uint8
        for row, image in zip(order, images, strict=True):
            [plain] = decode(dataset.source.read(dataset.paths[row], 10**6), [SIZE])
            np.testing.assert_array_equal(image, plain)
        np.testing.assert_array_equal(np.concatenate([y for _, y in got]), dataset.labels[order])

    def test_are_the_views_that_extraction_stores(self, pictures: PictureBatches) -> None:
        import hashlib

        dataset = pictures._pictures._dataset
        [(images, _)] = pictures.read(np.array([4]), 3, 1)
        data = dataset.source.read(dataset.paths[4], 10**6)
        [plain] = decode(data, [SIZE])
        np.testing.assert_array_equal(images[0], augment(plain, POLICY, hashlib.sha256(data).digest(), 3))

    def test_are_decoded_once_where_they_fit_into_memory(
        self, pictures: PictureBatches, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for view in range(3):
            list(pictures.read(np.arange(10), view, 4))
        assert pictures._pictures.decoded == 10
        monkeypatch.setattr(module.machine, "is_large", lambda count: True)
        large = Pictures(pictures._pictures._dataset, SIZE)
        for _ in range(2):
            list(PictureBatches(large, np.arange(10), pictures.y).read(np.arange(10), 0, 4))
        assert large.decoded == 20

    def test_that_cannot_be_decoded_are_told_before_training(self, pictures: PictureBatches, tmp_path: Path) -> None:
        (tmp_path / "p" / "train" / "cats" / "1.png").write_bytes(b"no picture")
        digests, good = pictures._pictures.look_at_all()
        assert np.flatnonzero(~good).tolist() == [1]
        assert digests[0].any()
        assert pictures._pictures.decoded == 10
        list(pictures.read(np.array([0, 2, 3]), 0, 4))
        assert pictures._pictures.decoded == 10

    def test_that_vanished_are_named(self, pictures: PictureBatches, tmp_path: Path) -> None:
        (tmp_path / "p" / "train" / "cats" / "0.png").unlink()
        with pytest.raises(DamageError, match="cannot be read any more"):
            list(pictures.read(np.arange(10), 0, 4))


class TestMaps:
    def test_are_rows_of_the_view_that_is_asked_for(self) -> None:
        table = with_views(make_table(12, 8), 3)
        maps = MapBatches(table, table.y[:12], (2, 2, 2))
        order = np.array([5, 0, 11])
        for view in range(3):
            [(inputs, y)] = maps.read(order, view, 8)
            np.testing.assert_array_equal(inputs, table.X[order + 12 * view].reshape(3, 2, 2, 2))
            np.testing.assert_array_equal(y, table.y[order])

    def test_copies_of_an_image_keep_their_places(self) -> None:
        plain = make_table(6, 8)
        plain.digests[4] = plain.digests[1]
        table = with_views(plain, 2)
        maps = MapBatches(table, table.y[:6], (8,))
        [(inputs, _)] = maps.read(np.arange(6), 1, 8)
        np.testing.assert_array_equal(inputs, table.X[6:])

    def test_a_view_that_was_rejected_is_the_image_itself(self) -> None:
        table = with_views(make_table(6, 8), 2)
        table = table.select(np.arange(12) != 8)
        maps = MapBatches(table, table.y[:6], (8,))
        [(inputs, _)] = maps.read(np.arange(6), 1, 8)
        np.testing.assert_array_equal(inputs[2], table.X[2])
        np.testing.assert_array_equal(inputs[3], table.X[8])

    def test_may_stay_in_the_store(self, stored) -> None:
        table = make_table(12, 8)
        maps = MapBatches(replace(table, X=stored(table.X)), table.y, (2, 4))
        [(inputs, _)] = maps.read(np.array([7, 2]), 0, 8)
        np.testing.assert_array_equal(inputs.reshape(2, 8), table.X[np.array([7, 2])])
