from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore.backbone import BATCH_SIZE, GraphSpec, build
from featstore.catalog import DOCUMENTED, find
from featstore.errors import DamageError, InputError
from featstore.weights import Base, Layer, read_tensors, resolve
from featstore.weights.keras_io import architecture, import_keras, set_tensors
from tests.reliability.campaign import FULL

DAILY = [base for base in DOCUMENTED if FULL or base.name in ("vgg16", "xception", "resnet50", "mobilenetv2")]
"""The deepest take ten seconds each to build."""

pytestmark = [
    pytest.mark.usefixtures("private_cache", "no_network"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


@pytest.fixture
def tiny(tiny_file: Path) -> Base:
    return resolve(str(tiny_file))


def _run(base: Base, images: np.ndarray, **options: Any) -> np.ndarray:
    settings: dict[str, Any] = {"preprocessing": "keras", "pooling": "avg", "precision": "float32"} | options
    layer = settings.pop("layer", base.layer().name)
    model = build(GraphSpec(base, layer, images.shape[1:3], **settings))
    batch = np.zeros((BATCH_SIZE, *images.shape[1:]), np.uint8)
    batch[: len(images)] = images
    assert model.input.dtype == "uint8"
    assert model.input_shape == batch.shape
    return np.asarray(model(batch, training=False))[: len(images)]


def test_the_graph_goes_from_uint8_to_pooled_float32(tiny: Base, images: np.ndarray) -> None:
    features = _run(tiny, images)
    assert (features.shape, features.dtype) == ((5, 8), np.float32)


def test_average_and_maximum_are_those_of_the_map(tiny: Base, images: np.ndarray) -> None:
    maps = _run(tiny, images, pooling="map")
    assert maps.shape == (5, 9, 11, 8)
    np.testing.assert_allclose(_run(tiny, images, pooling="avg"), maps.mean((1, 2)), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(_run(tiny, images, pooling="max"), maps.max((1, 2)))


def test_any_layer_can_be_the_last(tiny: Base, images: np.ndarray) -> None:
    assert _run(tiny, images, layer="first").shape == (5, 4)


def test_an_own_model_gets_the_pixels_as_they_are(tiny: Base, images: np.ndarray) -> None:
    np.testing.assert_array_equal(_run(tiny, images), _run(tiny, images, preprocessing="none"))


def test_rescale_divides_by_255(tiny: Base, images: np.ndarray) -> None:
    keras = import_keras()
    model = keras.saving.load_model(tiny.tensors)
    expected = np.asarray(model(images.astype(np.float32) / 255)).mean((1, 2))
    np.testing.assert_allclose(_run(tiny, images, preprocessing="rescale"), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_lower_precision_is_close_but_not_the_same(tiny: Base, images: np.ndarray, precision: str) -> None:
    exact = _run(tiny, images, preprocessing="rescale")
    low = _run(tiny, images, preprocessing="rescale", precision=precision)
    assert low.dtype == np.float32
    assert not np.array_equal(exact, low)
    cosine = (exact * low).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(low, axis=1)
    assert cosine.min() > 0.999


def test_float32_is_float32_even_where_an_own_model_was_saved_to_compute_in_less(
    tiny: Base, images: np.ndarray, tmp_path: Path
) -> None:
    keras = import_keras()
    model = keras.saving.load_model(tiny.tensors)
    exact = _run(tiny, images, preprocessing="rescale")
    for layer in model.layers:
        layer.dtype_policy = keras.DTypePolicy("mixed_bfloat16")
    model.save(tmp_path / "mixed.keras")
    mixed = resolve(str(tmp_path / "mixed.keras"))
    np.testing.assert_array_equal(_run(mixed, images, preprocessing="rescale"), exact)


def test_a_layer_that_does_not_exist_is_told_the_nearest(tiny: Base, images: np.ndarray) -> None:
    with pytest.raises(InputError, match="did you mean second"):
        _run(tiny, images, layer="secnd")


def test_a_model_of_one_size_says_which(images: np.ndarray, tmp_path: Path) -> None:
    keras = import_keras()
    image = keras.Input((32, 32, 3))
    keras.Model(image, keras.layers.Conv2D(2, 3)(image), name="fixed").save(tmp_path / "fixed.keras")
    base = resolve(str(tmp_path / "fixed.keras"))
    assert base.backbone.default_size == 32
    with pytest.raises(InputError, match=r"one size only(.|\n)*32 × 32(.|\n)*40 × 48"):
        _run(base, images)


def test_a_changed_copy_of_an_own_model_is_damage(tiny: Base, images: np.ndarray, tmp_path: Path) -> None:
    keras = import_keras()
    model = keras.saving.load_model(tiny.tensors)
    model.set_weights([w + 1 for w in model.get_weights()])
    model.save(tmp_path / "changed.keras")
    tiny.tensors.write_bytes((tmp_path / "changed.keras").read_bytes())
    with pytest.raises(DamageError, match="damaged"):
        _run(tiny, images)


def _unreachable(name: str) -> Base:
    """A base whose weights cannot be read: whatever is refused is refused before that."""
    backbone = find(name)
    return Base(backbone, "imagenet", "0", (Layer(backbone.last_layer, 1),), Path("nowhere"), "")


def test_an_image_below_the_least_size_is_refused_before_any_work(images: np.ndarray) -> None:
    base = _unreachable("xception")
    with pytest.raises(InputError, match="at least 71"):
        _run(base, images)


def test_rescaling_is_refused_where_the_base_normalises_itself(images: np.ndarray) -> None:
    base = _unreachable("efficientnetb0")
    with pytest.raises(InputError, match="normalises pixels"):
        _run(base, images, preprocessing="rescale")


def _plain_keras(base: Base, images: np.ndarray) -> np.ndarray:
    model = architecture(base.backbone, images.shape[1:3])  # the padding of some bases depends on the size
    set_tensors(model, read_tensors(base), "test")
    preprocess = importlib.import_module(f"keras.applications.{base.backbone.module}").preprocess_input
    return np.asarray(model(preprocess(images.astype(np.float32)), training=False)).mean((1, 2))


@pytest.mark.parametrize("name", ["mobilenetv2", "mobilenetv3small", "densenet121"])
def test_features_equal_plain_keras(name: str, images: np.ndarray) -> None:
    base = resolve(name, "random:0")
    found, expected = _run(base, images), _plain_keras(base, images)
    assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()


@pytest.fixture
def graph() -> GraphSpec:
    base = Base(find("vgg16"), "imagenet", "d9", (Layer("block5_pool", 512),), Path(), "")
    return GraphSpec(base, "block5_pool", (40, 48), "keras", "avg", "float32")


def test_the_key_names_everything_but_the_precision(graph: GraphSpec) -> None:
    others = [
        replace(graph, layer="block4_pool"),
        replace(graph, image_size=(48, 40)),
        replace(graph, preprocessing="rescale"),
        replace(graph, pooling="max"),
        replace(graph, base=replace(graph.base, digest="d8")),
        replace(graph, base=replace(graph.base, backbone=find("vgg19"))),
    ]
    keys = {g.key(openvino="1") for g in [graph, *others]} | {graph.key(openvino="2")}
    assert len(keys) == len(others) + 2
    assert replace(graph, precision="bfloat16").key() == graph.key()


def test_the_key_does_not_depend_on_where_the_weights_were_found(graph: GraphSpec) -> None:
    elsewhere = replace(graph.base, source="another", origin="a.h5", tensors=Path("b.npz"))
    assert replace(graph, base=elsewhere).key() == graph.key()


@pytest.mark.real
@pytest.mark.parametrize("backbone", DAILY, ids=[b.name for b in DAILY])
def test_every_documented_base_can_be_built(backbone: Any) -> None:
    base = resolve(backbone.name, "random:0")
    assert base.layer().channels == backbone.features
    size = backbone.least_size
    image = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    found, expected = _run(base, image), _plain_keras(base, image)
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()
