from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore import open_dataset
from featstore import top5 as module
from featstore.catalog import find
from featstore.errors import InputError
from featstore.records import Reason
from featstore.top5 import Guess, top5
from featstore.weights import published
from featstore.weights.full import full_model
from featstore.weights.keras_io import import_keras
from tests.pictures import png

NAMES = tuple(f"name {i}" for i in range(1000))


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "class_names", lambda progress: NAMES)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for i, file in enumerate(files):
        file.write_bytes(png(seed=i))
    files.append(tmp_path / "broken.png")
    files[-1].write_bytes(b"no picture")
    return files


@pytest.fixture(scope="module")
def tensors() -> list[np.ndarray]:
    """Of a whole MobileNet whose probabilities differ by much."""
    *others, kernel, bias = full_model(find("mobilenet"), "random:3").get_weights()
    return [*others, kernel * 20, bias]


@pytest.fixture
def weights(tensors: list[np.ndarray], tmp_path: Path) -> Any:
    """Saves ``tensors`` with this bias for class 281; its path."""

    def save(bias: float) -> str:
        *others, last = tensors
        last = last.copy()
        last[281] = bias
        np.savez(tmp_path / "whole.npz", *others, last)
        return str(tmp_path / "whole.npz")

    return save


def test_probabilities_are_those_of_plain_keras(images: list[Path], weights: Any, tensors: list[np.ndarray]) -> None:
    look = top5(open_dataset(images), "mobilenet", weights(0), count=1000)
    keras = import_keras()
    model = keras.applications.MobileNet(weights=None)
    model.set_weights(tensors)
    for file, seen in zip(images[:3], look.images, strict=False):
        picture = keras.utils.load_img(file, target_size=(224, 224), interpolation="bilinear")
        values = keras.applications.mobilenet.preprocess_input(keras.utils.img_to_array(picture)[None])
        [expected] = model.predict(values, verbose=0)
        assert expected.std() > 1e-3
        np.testing.assert_allclose([g.probability for g in seen.classes], np.sort(expected)[::-1], atol=1e-4)
        np.testing.assert_allclose([expected[g.index] for g in seen.classes], np.sort(expected)[::-1], atol=1e-4)
        assert all(guess.name == NAMES[guess.index] for guess in seen.classes)


def test_the_class_that_the_weights_prefer_wins_and_a_broken_image_has_its_reason(
    images: list[Path], weights: Any
) -> None:
    look = top5(open_dataset(images), "MobileNet", weights(500), count=2)
    *seen, broken = look.images
    assert [one.classes[0] for one in seen] == [Guess(281, "name 281", pytest.approx(1))] * 3
    assert {len(one.classes) for one in seen} == {2}
    assert (broken.classes, broken.reason.code) == ((), "not-an-image")
    assert broken.to_json()["rejected"] == "not-an-image"
    assert (look.backbone, look.notes) == ("mobilenet", ())


def test_weights_that_give_no_numbers_reject_the_image_and_the_json_stays_valid(
    images: list[Path], weights: Any
) -> None:
    look = top5(open_dataset(images[:1]), "mobilenet", weights(float("nan")))
    assert [(seen.classes, seen.reason) for seen in look.images] == [((), Reason.NOT_FINITE)]
    json.dumps(look.to_json(), allow_nan=False)


def test_without_names_classes_are_numbered_and_a_note_says_which_file_to_put_where(
    images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(_: Any) -> None:
        raise published.Unavailable("no route")

    monkeypatch.setattr(module, "class_names", nothing)
    look = top5(open_dataset(images[:1]), "mobilenet", "random:0", count=1)
    [guess] = look.images[0].classes
    assert guess.name == f"class {guess.index}"
    note, random = look.notes
    assert "drawn at random" in random
    assert "imagenet_class_index.json" in note
    assert str(published.keras_file(module.INDEX)) in note
    assert "no route" in note


def test_another_number_of_classes_has_no_names(images: list[Path], tensors: list[np.ndarray], tmp_path: Path) -> None:
    *others, kernel, bias = tensors
    np.savez(tmp_path / "seven.npz", *others, kernel[..., :7], bias[:7])
    look = top5(open_dataset(images[:1]), "mobilenet", str(tmp_path / "seven.npz"), count=9)
    assert {guess.name for guess in look.images[0].classes} == {f"class {i}" for i in range(7)}
    assert look.notes == ("this model has 7 classes, not ImageNet's 1000: they have no names",)


def test_many_images_keep_their_order_over_batches(images: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH", 2)
    look = top5(open_dataset(images), "mobilenet", "random:0", count=1)
    assert [Path(seen.path).name for seen in look.images] == [file.name for file in images]


def test_somebodys_own_base_is_told_where_it_belongs(images: list[Path]) -> None:
    with pytest.raises(InputError, match="by its name") as caught:
        top5(open_dataset(images), "mine.keras")
    assert "--weights" in str(caught.value)


def test_odd_and_hostile_images_are_seen_or_have_a_reason(odd_images: Path, weights: Any) -> None:
    files = sorted(path for path in odd_images.rglob("*") if path.is_file())
    look = top5(open_dataset(files), "mobilenet", weights(500), count=1)
    assert len(look.images) == len(files)
    assert all((seen.reason is Reason.OK) == bool(seen.classes) for seen in look.images)
    assert {bool(seen.classes) for seen in look.images} == {True, False}
