from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore.catalog import find
from featstore.errors import InputError
from featstore.weights.base import tensor_digest
from featstore.weights.keras_files import random_tensors, read_h5, read_model
from featstore.weights.keras_io import architecture, import_keras, set_tensors
from tests.reliability.campaign import takes_long

SMALL = find("mobilenet")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's, when it saves


@pytest.fixture(scope="module")
def tensors() -> list[np.ndarray]:
    return random_tensors(SMALL, 3)


@pytest.fixture(scope="module")
def model(tensors: list[np.ndarray]) -> Any:
    model = architecture(SMALL)
    set_tensors(model, tensors, "test")
    return model


def test_a_seed_always_gives_the_same_tensors(tensors: list[np.ndarray]) -> None:
    again = random_tensors(SMALL, 3)
    assert tensor_digest(again) == tensor_digest(tensors)
    assert tensor_digest(random_tensors(SMALL, 4)) != tensor_digest(tensors)


def test_random_tensors_leave_the_global_random_state_alone() -> None:
    before = np.random.get_state()[1].copy()
    random_tensors(SMALL, 0)
    assert np.array_equal(np.random.get_state()[1], before)


def test_random_kernels_have_hes_deviation(tensors: list[np.ndarray], model: Any) -> None:
    paths = [w.path for w in model.weights]
    kernel = tensors[paths.index("conv_pw_13/kernel")]
    assert kernel.std() == pytest.approx((2 / 1024) ** 0.5, rel=0.01)
    depthwise = tensors[next(i for i, p in enumerate(paths) if p.startswith("conv_dw_13/"))]
    assert depthwise.std() == pytest.approx((2 / 9) ** 0.5, rel=0.05)


def test_weights_saved_without_the_top_are_read(model: Any, tensors: list[np.ndarray], tmp_path: Path) -> None:
    model.save_weights(tmp_path / "a.weights.h5")
    assert tensor_digest(read_h5(SMALL, tmp_path / "a.weights.h5")) == tensor_digest(tensors)


@pytest.mark.parametrize("name", ["full.weights.h5", "full.h5"])
@pytest.mark.filterwarnings("ignore")  # Keras would rather that nobody used .h5
def test_weights_saved_with_the_top_are_read(name: str, tensors: list[np.ndarray], tmp_path: Path) -> None:
    full = architecture(replace(SMALL, classes=1000))
    full.set_weights([*tensors, *full.get_weights()[len(tensors) :]])
    if name == "full.h5":
        full.save(tmp_path / name)
    else:
        full.save_weights(tmp_path / name)
    assert tensor_digest(read_h5(SMALL, tmp_path / name)) == tensor_digest(tensors)


@pytest.mark.parametrize("name", ["a.weights.h5", "a.h5"])
@pytest.mark.filterwarnings("ignore")
def test_weights_of_another_architecture_are_refused(name: str, tmp_path: Path) -> None:
    other = import_keras().applications.MobileNet(weights=None, include_top=False, alpha=0.5)
    if name == "a.h5":
        other.save(tmp_path / name)
    else:
        other.save_weights(tmp_path / name)
    with pytest.raises(InputError) as caught:
        read_h5(SMALL, tmp_path / name)
    message = str(caught.value)
    assert "(3, 3, 3, 32)" in message
    assert "(3, 3, 3, 16)" in message
    assert "conv1" in message
    assert name in message


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights of three architectures."""
    folder = tmp_path_factory.mktemp("saved")
    for name in ("mobilenetv2", "vgg16", "vgg19"):
        architecture(find(name)).save_weights(folder / f"{name}.weights.h5")
    keras = import_keras()
    image = keras.Input((None, None, 3))
    only = keras.Model(image, keras.layers.Conv2D(64, 3, name="only")(image))
    only.save_weights(folder / "only.weights.h5")
    return folder


@pytest.mark.parametrize(
    ("name", "other", "expected", "received"),
    [
        ("vgg16", "mobilenetv2", "block1_conv1/kernel (3, 3, 3, 64)", "(3, 3, 3, 32)"),
        ("mobilenetv2", "vgg16", "Conv1/kernel (3, 3, 3, 32)", "(3, 3, 3, 64)"),
        ("vgg16", "vgg19", "block4_conv1/kernel (3, 3, 256, 512)", "(3, 3, 256, 256)"),
        ("vgg16", "only", "block1_conv2/kernel (3, 3, 64, 64)", "nothing there"),
        ("xception", "mobilenetv2", "block1_conv2/kernel (3, 3, 32, 64)", "(1, 1, 32, 16)"),
        ("resnet50", "mobilenetv2", "conv1_conv/kernel (7, 7, 3, 64)", "(3, 3, 3, 32)"),
    ],
)
def test_weights_of_another_base_name_the_first_tensor_that_is_not_there(
    name: str, other: str, expected: str, received: str, saved: Path
) -> None:
    with pytest.raises(InputError, match=f"these weights are not {name}'s") as caught:
        read_h5(find(name), saved / f"{other}.weights.h5")
    assert (caught.value.expected, caught.value.received) == (expected, received)


def test_a_tensor_that_cannot_be_read_is_told_with_the_reason(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = importlib.import_module("keras.src.saving.saving_lib").H5IOStore

    def fail(*_: object) -> None:
        raise OSError("bad block")

    monkeypatch.setattr(store, "__getitem__", fail)
    with pytest.raises(InputError, match=r"block1_conv1/kernel \(3, 3, 3, 64\)(.|\n)*OSError: bad block"):
        read_h5(find("vgg16"), saved / "vgg16.weights.h5")


def test_a_layer_with_a_tensor_too_many_is_told(tmp_path: Path) -> None:
    keras = import_keras()
    image = keras.Input((None, None, 3))
    other = keras.Model(image, keras.layers.Conv2D(32, 3, strides=2, use_bias=True)(image))
    other.save_weights(tmp_path / "a.weights.h5")  # mobilenet's first kernel, and a bias that it does not have
    with pytest.raises(InputError) as caught:
        read_h5(SMALL, tmp_path / "a.weights.h5")
    assert (caught.value.expected, caught.value.received) == ("tensors of conv1: 1", "2")


@pytest.mark.filterwarnings("ignore")  # Keras would rather that nobody used .h5
def test_another_number_of_layers_in_the_older_format_is_told_with_the_first_tensor(tmp_path: Path) -> None:
    architecture(find("vgg16")).save(tmp_path / "a.h5")
    with pytest.raises(InputError, match=r"conv1/kernel \(3, 3, 3, 32\)(.|\n)*found 13 saved layers"):
        read_h5(SMALL, tmp_path / "a.h5")


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\x89HDF\r\n\x1a\n" + b"\xff" * 2000])
@pytest.mark.parametrize("name", ["a.weights.h5", "a.h5"])
def test_a_file_that_is_not_hdf5_is_an_input_error(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="no weights of mobilenet can be read"):
        read_h5(SMALL, tmp_path / name)


def test_a_damaged_weight_file_never_escapes_as_another_error(
    model: Any, tensors: list[np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "a.weights.h5"
    model.save_weights(path)
    good = path.read_bytes()
    for size in (100, 5_000, len(good) // 2):
        path.write_bytes(good[:size])
        with pytest.raises(InputError):
            read_h5(SMALL, path)


def test_a_keras_model_that_is_the_base_is_read(model: Any, tensors: list[np.ndarray], tmp_path: Path) -> None:
    model.save(tmp_path / "a.keras")
    assert tensor_digest(read_model(SMALL, tmp_path / "a.keras")) == tensor_digest(tensors)


def test_a_keras_model_that_contains_the_base_is_read(model: Any, tensors: list[np.ndarray], tmp_path: Path) -> None:
    keras = import_keras()
    image = keras.Input((64, 64, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(model(image))
    keras.Model(image, keras.layers.Dense(2)(pooled)).save(tmp_path / "a.keras")
    assert tensor_digest(read_model(SMALL, tmp_path / "a.keras")) == tensor_digest(tensors)


def test_another_keras_model_is_refused_with_the_tensor_that_does_not_fit(tiny_file: Path) -> None:
    with pytest.raises(InputError, match=r"conv1/kernel \(3, 3, 3, 32\)"):
        read_model(SMALL, tiny_file)


@takes_long
def test_efficientnet_has_the_imagenet_deviation_folded_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = find("efficientnetb0")
    path = tmp_path / "b0.weights.h5"
    source = architecture(backbone)
    drawn = random_tensors(backbone, 0)
    drawn[0], drawn[1] = np.float32([0.485, 0.456, 0.406]), np.float32([0.05, 0.06, 0.07])
    set_tensors(source, drawn, "test")
    source.save_weights(path)
    file_utils = importlib.import_module("keras.src.utils.file_utils")
    monkeypatch.setattr(file_utils, "get_file", lambda *_, **__: str(path))
    plain = import_keras().applications.EfficientNetB0(weights="imagenet", include_top=False, input_shape=(64, 64, 3))
    ours = architecture(backbone, (64, 64))
    set_tensors(ours, read_h5(backbone, path, published=True), "test")
    image = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    expected = np.asarray(plain(image, training=False))
    found = np.asarray(ours(image, training=False))
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    set_tensors(ours, read_h5(backbone, path), "test")
    assert np.abs(np.asarray(ours(image, training=False)) - expected).max() > 1e-2 * np.abs(expected).max()
