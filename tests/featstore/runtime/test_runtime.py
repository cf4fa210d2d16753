from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore.errors import InputError
from featstore.runtime import BATCH_SIZE, GraphSpec, open_runtime
from featstore.weights import Base, read_tensors, resolve
from featstore.weights.keras_io import architecture, import_keras, set_tensors
from tests.reliability.campaign import FULL, takes_long

RUNTIMES = ["openvino", "tensorflow"]


@pytest.fixture
def tiny(private_cache: Path, tiny_file: Path) -> Base:
    return resolve(str(tiny_file))


def _graph(base: Base, **options: Any) -> GraphSpec:
    settings = {"layer": base.layer().name, "image_size": (40, 48), "preprocessing": "rescale", "pooling": "avg"}
    return GraphSpec(base, **(settings | {"precision": "float32"} | options))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(("pooling", "shape"), [("avg", (8,)), ("max", (8,)), ("map", (9, 11, 8))])
def test_a_runtime_gives_features_of_the_shape_it_says(
    runtime: str, pooling: str, shape: tuple[int, ...], tiny: Base, images: np.ndarray
) -> None:
    opened = open_runtime(_graph(tiny, pooling=pooling), runtime)
    features = opened(images)
    assert opened.feature_shape == shape
    assert (features.shape, features.dtype) == ((5, *shape), np.float32)
    assert (opened.name, opened.device, opened.precision) == (runtime, "cpu", "float32")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_row_does_not_depend_on_its_batch(runtime: str, tiny: Base) -> None:
    images = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, 40, 48, 3), dtype=np.uint8)
    opened = open_runtime(_graph(tiny), runtime)
    together = opened(images)
    for row in (0, 17, 31):
        assert np.array_equal(opened(images[row : row + 1])[0], together[row])
    assert np.array_equal(opened(images[::-1])[::-1], together)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_features_are_not_written_over_by_the_next_batch(runtime: str, tiny: Base, images: np.ndarray) -> None:
    opened = open_runtime(_graph(tiny), runtime)
    first = opened(images)
    kept = first.copy()
    opened(255 - images)
    assert np.array_equal(first, kept)


def test_the_runtimes_agree(tiny: Base, images: np.ndarray) -> None:
    ours, theirs = (open_runtime(_graph(tiny), runtime)(images) for runtime in RUNTIMES)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_bfloat16_is_close_and_really_used(runtime: str, tiny: Base, images: np.ndarray) -> None:
    exact = open_runtime(_graph(tiny), runtime)(images)
    try:
        opened = open_runtime(_graph(tiny, precision="bfloat16"), runtime)
    except InputError as error:
        pytest.skip(str(error))
    low = opened(images)
    assert opened.precision == "bfloat16"
    assert not np.array_equal(exact, low)
    assert _cosine(exact, low).min() > 0.999


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_device_that_is_not_there_is_an_input_error(runtime: str, tiny: Base) -> None:
    with pytest.raises(InputError, match="--device"):
        open_runtime(_graph(tiny), runtime, "gpu:7")


@pytest.mark.parametrize("runtime", ["auto", *RUNTIMES])
def test_an_unknown_device_is_told_the_nearest(runtime: str, tiny: Base) -> None:
    with pytest.raises(InputError, match=r"unknown device 'TPU'(.|\n)*one of cpu, gpu"):
        open_runtime(_graph(tiny), runtime, "TPU")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_wrong_batch_is_an_input_error(runtime: str, tiny: Base, images: np.ndarray) -> None:
    with pytest.raises(InputError, match="wrong shape"):
        open_runtime(_graph(tiny), runtime)(images[:, :39])


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.real
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"] if FULL else ["bilinear"])
@pytest.mark.parametrize(
    ("name", "weights"),
    [("vgg16", "imagenet"), ("xception", "imagenet"), pytest.param("resnet50", "random:0", marks=takes_long)],
)
def test_golden_features_equal_plain_keras(name: str, weights: str, interpolation: str, photographs: Path) -> None:
    """Keras's own way (load_img, preprocess_input, model(x, training=False), pooling) on real photographs."""
    keras = import_keras()
    base = resolve(name, weights)
    files = sorted((photographs / "validation").rglob("*.jpg"))[::40][:8]
    size = (150, 150)
    images = np.stack(
        [np.asarray(keras.utils.load_img(f, target_size=size, interpolation=interpolation)) for f in files]
    )
    model = architecture(base.backbone)
    set_tensors(model, read_tensors(base), "test")
    preprocess = importlib.import_module(f"keras.applications.{base.backbone.module}").preprocess_input
    maps = model(preprocess(images.astype(np.float32)), training=False)
    expected = np.asarray(keras.layers.GlobalAveragePooling2D()(maps))
    for runtime in RUNTIMES:
        settings = {"image_size": size, "preprocessing": "keras"}
        found = open_runtime(_graph(base, **settings), runtime)(images)
        assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()
        try:
            low = open_runtime(_graph(base, **settings, precision="bfloat16"), runtime)(images)
        except InputError:
            continue
        assert _cosine(low, expected).min() >= 0.995
