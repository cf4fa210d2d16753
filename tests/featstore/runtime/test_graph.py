from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featstore.catalog import find
from featstore.errors import InputError
from featstore.runtime import BATCH_SIZE, GraphSpec, feature_shape
from featstore.runtime.graph import library_versions, padded
from featstore.weights import Base, Layer


@pytest.fixture
def graph() -> GraphSpec:
    base = Base(find("vgg16"), "imagenet", "d9", (Layer("block5_pool", 512),), Path(), "")
    return GraphSpec(base, "block5_pool", (40, 48), "keras", "avg", "float32")


def test_a_short_batch_is_filled_with_black(images: np.ndarray) -> None:
    batch = padded(images, (40, 48))
    assert batch.shape == (BATCH_SIZE, 40, 48, 3)
    assert np.array_equal(batch[:5], images)
    assert not batch[5:].any()


def test_a_full_batch_is_made_contiguous() -> None:
    images = np.zeros((BATCH_SIZE, 3, 40, 48), np.uint8).transpose(0, 2, 3, 1)
    assert padded(images, (40, 48)).flags.c_contiguous


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((5, 48, 40, 3), np.uint8),
        np.zeros((5, 40, 48, 4), np.uint8),
        np.zeros((5, 40, 48, 3), np.float32),
        np.zeros((0, 40, 48, 3), np.uint8),
        np.zeros((BATCH_SIZE + 1, 40, 48, 3), np.uint8),
        np.zeros((40, 48, 3), np.uint8),
    ],
)
def test_a_wrong_batch_is_an_input_error(wrong: np.ndarray) -> None:
    with pytest.raises(InputError, match="wrong shape"):
        padded(wrong, (40, 48))


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


def test_the_shape_of_pooled_features_is_known_at_once(graph: GraphSpec) -> None:
    assert feature_shape(graph) == (512,)
    assert feature_shape(replace(graph, pooling="map")) is None


def test_versions_of_missing_packages_are_none() -> None:
    assert library_versions("numpy", "no-such-package") == {"numpy": np.__version__, "no-such-package": "none"}
