from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore import calibration as module
from featstore.backbone import GraphSpec
from featstore.calibration import calibration_for
from featstore.dataset import Dataset, open_dataset
from featstore.errors import InputError
from featstore.runtime import calibrate
from featstore.scan import digest_all
from featstore.spec import PixelSpec
from featstore.weights import resolve
from tests.pictures import class_folders

PIXELS = PixelSpec((40, 48))


@pytest.fixture
def graph(private_cache: Path, tiny_file: Path) -> GraphSpec:
    return GraphSpec(resolve(str(tiny_file)), "second", (40, 48), "rescale", "map", "float32")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, Any]]:
    """The pictures and the note of every calibration, none of which is made."""
    made: list[tuple[np.ndarray, Any]] = []

    def calibrated(graph: GraphSpec, key: str, images: np.ndarray, about: Any, progress: Any) -> str:
        made.append((images, {**about, "key": key}))
        return "ab" * 32

    monkeypatch.setattr(calibrate, "calibrate", calibrated)
    return made


def ask(graph: GraphSpec, dataset: Dataset, pixels: PixelSpec = PIXELS) -> str:
    return calibration_for(graph, pixels, dataset, digest_all(dataset, None).values)


def test_images_to_train_on_are_taken_whatever_their_names_and_no_others(
    graph: GraphSpec, tmp_path: Path, asked: list[Any]
) -> None:
    photos = class_folders(tmp_path / "photos")
    dataset = open_dataset(photos)
    ask(graph, dataset)
    for i, path in enumerate(sorted(photos.rglob("*.png"))):
        path.rename(path.with_name(f"{(7 * i) % 100}-other.png"))
    ask(graph, open_dataset(photos))
    (pictures, about), (again, about_again) = asked
    np.testing.assert_array_equal(pictures, again)
    assert about["images"] == about_again["images"]
    assert about["key"] == about_again["key"]
    train = dataset.splits == 0
    digests = digest_all(open_dataset(photos), None).values
    assert set(about["images"]) == {digest.tobytes().hex() for digest in digests[train]}
    assert pictures.shape == (12, 40, 48, 3)


def test_of_many_some_are_taken_and_broken_ones_passed_over(
    graph: GraphSpec, tmp_path: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = class_folders(tmp_path / "photos")
    (photos / "train" / "cats" / "broken.png").write_bytes(b"no picture")
    monkeypatch.setattr(module, "IMAGES", 5)
    ask(graph, open_dataset(photos))
    [(pictures, about)] = asked
    assert len(pictures) == len(about["images"]) == 5


def test_without_a_split_to_train_on_all_images_may_be_taken(
    graph: GraphSpec, tmp_path: Path, asked: list[Any]
) -> None:
    photos = class_folders(tmp_path / "photos")
    ask(graph, open_dataset(sorted((photos / "test").rglob("*.png"))))
    assert len(asked[0][0]) == 12


def test_without_any_image_there_is_nothing_to_calibrate_on(graph: GraphSpec, tmp_path: Path, asked: list[Any]) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="none of these can be decoded"):
        ask(graph, open_dataset([tmp_path / "broken.png"]))
    assert asked == []


def test_a_base_is_calibrated_once_for_its_pictures(graph: GraphSpec, tmp_path: Path) -> None:
    first = ask(graph, open_dataset(class_folders(tmp_path / "photos")))
    other = open_dataset(class_folders(tmp_path / "others", splits=("more", "train")))
    assert ask(graph, other) == first
    assert ask(graph, other, PixelSpec((40, 48), "nearest")) != first
