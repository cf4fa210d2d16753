from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featstore import open_dataset
from featstore import top5 as module
from featstore.catalog import find
from featstore.top5 import top5
from featstore.weights.full import full_model
from featstore.weights.keras_io import import_keras
from tests.pictures import png

NAMES = tuple(f"name {i}" for i in range(1000))


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setattr(module, "class_names", lambda progress: NAMES)
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for i, file in enumerate(files):
        file.write_bytes(png(seed=i))
    files.append(tmp_path / "broken.png")
    files[-1].write_bytes(b"no picture")
    return files


def test_probabilities_are_those_of_plain_keras(images: list[Path]) -> None:
    found = top5(open_dataset(images), "mobilenetv2", "random:3", count=1000)
    keras, model = import_keras(), full_model(find("mobilenetv2"), "random:3")
    for file, seen in zip(images[:3], found, strict=False):
        picture = keras.utils.load_img(file, target_size=(224, 224), interpolation="bilinear")
        values = keras.applications.mobilenet_v2.preprocess_input(keras.utils.img_to_array(picture)[None])
        expected = np.asarray(model(values, training=False))[0]
        assert {name: pytest.approx(expected[int(name[5:])], abs=1e-4) for name, _ in seen.classes} == dict(
            seen.classes
        )
        assert [p for _, p in seen.classes] == sorted((p for _, p in seen.classes), reverse=True)


def test_the_class_that_the_weights_prefer_wins_and_a_broken_image_has_its_reason(
    images: list[Path], tmp_path: Path
) -> None:
    model = full_model(find("mobilenetv2"), "random:0")
    tensors = model.get_weights()
    tensors[-1][281] = 50.0  # the bias of the last layer
    np.savez(tmp_path / "tabby.npz", *tensors)
    *seen, broken = top5(open_dataset(images), "mobilenetv2", str(tmp_path / "tabby.npz"), count=2)
    assert {one.classes[0][0] for one in seen} == {"name 281"}
    assert {len(one.classes) for one in seen} == {2}
    assert (broken.classes, broken.reason.code) == ((), "not-an-image")
    assert broken.to_json()["rejected"] == "not-an-image"


def test_without_names_classes_are_numbered(images: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "class_names", lambda progress: None)
    [seen] = top5(open_dataset(images[:1]), "mobilenetv2", "random:0", count=1)
    assert seen.classes[0][0].startswith("class ")


def test_many_images_keep_their_order_over_batches(images: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH", 2)
    found = top5(open_dataset(images), "mobilenetv2", "random:0", count=1)
    assert [Path(seen.path).name for seen in found] == [file.name for file in images]
