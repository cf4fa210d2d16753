from __future__ import annotations

from pathlib import Path

import pytest

from featstore import open_dataset
from featstore.errors import InputError
from featstore.spec import PixelSpec
from heads.live.batches import Pictures
from heads.live.splits import Splits
from tests.pictures import class_folders, png


def splits_of(folder: Path) -> Splits:
    dataset = open_dataset(folder)
    return Splits.of(dataset, Pictures(dataset, PixelSpec((8, 8))))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "photos")


def test_every_image_has_its_place_and_nothing_is_left_out(photos: Path) -> None:
    splits = splits_of(photos)
    assert [len(part) for part in (splits.train, splits.held_out, splits.test)] == [12, 12, 12]
    assert splits.notes == ()


def test_broken_images_are_left_out_and_counted(photos: Path) -> None:
    (photos / "train" / "cats" / "broken.png").write_bytes(b"no picture")
    (photos / "test" / "dogs" / "half.png").write_bytes(png(1)[:60])
    splits = splits_of(photos)
    assert len(splits.train) == 12
    assert splits.notes == ("left out: 2 images that cannot be decoded (featstore extract lists them)",)


def test_a_class_that_train_never_sees_is_left_out_by_name(photos: Path) -> None:
    (photos / "validation" / "birds").mkdir()
    (photos / "validation" / "birds" / "1.png").write_bytes(png(900))
    splits = splits_of(photos)
    assert len(splits.held_out) == 12
    assert splits.notes == ("left out: 1 validation image of birds: train has none of it",)


def test_images_that_are_all_broken_are_not_called_none(photos: Path) -> None:
    for path in photos.rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(InputError, match="none of the images can be decoded") as refused:
        splits_of(photos)
    assert "36 broken images" in str(refused.value)


def test_validation_images_that_are_all_broken_are_missed_at_once(photos: Path) -> None:
    for path in (photos / "validation").rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(InputError, match="needs validation images"):
        splits_of(photos)
