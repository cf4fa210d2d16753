from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from featstore.backbone import GraphSpec
from featstore.errors import InputError
from featstore.weights import resolve
from heads.live.networks import HeadSpec, Network, counts, on_base, scratch, tail, unfreeze
from tests.reliability.campaign import takes_long


def graph(name: str = "vgg16", size: int = 32) -> GraphSpec:
    base = resolve(name, "random:0")
    return GraphSpec(base, base.layer(None).name, (size, size), "keras", "map", "float32")


@pytest.fixture(scope="module")
def vgg16() -> Network:
    return on_base(graph(size=150), HeadSpec(2))


def pictures(count: int = 3, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.float32)


def test_numbers_in_training_are_those_that_the_tutorials_print(vgg16: Network) -> None:
    unfreeze(vgg16, None)
    assert counts(vgg16) == (2_097_665, 16_812_353)
    unfreeze(vgg16, "block5_conv1")
    assert counts(vgg16) == (9_177_089, 16_812_353)
    unfreeze(vgg16, "block3_conv1")
    assert counts(vgg16)[0] == 16_812_353 - 260_160
    unfreeze(vgg16, "all")
    assert counts(vgg16) == (16_812_353, 16_812_353)
    unfreeze(vgg16, None)
    assert counts(vgg16)[0] == 2_097_665


def test_a_layer_that_does_not_exist_is_named(vgg16: Network) -> None:
    for use in (unfreeze, tail):
        with pytest.raises(InputError, match="did you mean block5_conv1"):
            use(vgg16, "block5_conv_1")


def test_layers_are_listed_from_the_last_one_back_for_there_tuning_begins(vgg16: Network) -> None:
    with pytest.raises(InputError) as refused:
        unfreeze(vgg16, "?")
    listed = str(refused.value)
    assert "all, block5_pool, block5_conv3" in listed
    assert "block1_conv1" in listed


@pytest.mark.parametrize(("size", "is_enough"), [((22, 22), True), ((21, 22), False), ((150, 8), False)])
def test_pictures_too_small_for_a_network_from_scratch_are_refused(size: tuple[int, int], is_enough: bool) -> None:
    if is_enough:
        assert scratch(size, HeadSpec(2)).trunk.output_shape[1:3] == (1, 1)
    else:
        with pytest.raises(InputError, match="too small for a network from scratch"):
            scratch(size, HeadSpec(2))


@pytest.mark.parametrize(
    ("name", "layer", "below"),
    [("vgg16", "block5_conv1", "block4_pool"), ("xception", "block14_sepconv1", None)],
)
def test_maps_of_the_layer_below_give_the_logits_of_the_whole(name: str, layer: str, below: str | None) -> None:
    size = 32 if name == "vgg16" else 71
    one, other = on_base(graph(name, size), HeadSpec(2)), on_base(graph(name, size), HeadSpec(2))
    found, part = tail(one, layer)
    assert found == below or below is None
    base = graph(name, size).base
    lower = on_base(GraphSpec(base, found, (size, size), "keras", "map", "float32"), HeadSpec(2))
    maps = lower.trunk(pictures(size=size), training=False)
    np.testing.assert_allclose(part(maps), one.model(pictures(size=size)), rtol=1e-4, atol=1e-4)
    assert found == tail(other, layer)[0], "the name is the same in every network of a process"


def test_a_place_that_several_paths_lead_to_cannot_be_cut(vgg16: Network) -> None:
    network = on_base(graph("xception", 71), HeadSpec(2))
    with pytest.raises(InputError, match="cannot go on stored maps"):
        tail(network, "block13_sepconv2")


@pytest.mark.parametrize(("name", "size"), [("mobilenetv2", 32), pytest.param("efficientnetb0", 32, marks=takes_long)])
def test_a_base_computes_as_in_inference_even_where_all_of_it_is_trained(name: str, size: int) -> None:
    network = on_base(graph(name, size), HeadSpec(2, "avg", (), 0.0))
    unfreeze(network, "all")
    images = pictures(8, size)
    np.testing.assert_array_equal(network.trunk(images, training=True), network.trunk(images, training=False))
    before = [weight.numpy() for weight in network.model.weights]
    network.model.compile("adam", "mse")
    network.model.train_on_batch(images, np.arange(8) % 2)
    moved = [not np.array_equal(a, w.numpy()) for a, w in zip(before, network.model.weights, strict=True)]
    kinds = [weight.path.split("/")[-1] for weight in network.model.weights]
    assert not any(one for one, kind in zip(moved, kinds, strict=True) if kind.startswith("moving"))
    assert sum(moved) > 40


def test_where_nothing_is_below_but_the_pictures_there_are_no_maps_to_store(vgg16: Network) -> None:
    with pytest.raises(InputError, match="nothing below it"):
        tail(vgg16, "block1_conv1")


def test_the_same_seed_gives_the_same_head_and_another_another() -> None:
    def first(seed: int) -> Any:
        return on_base(graph(), HeadSpec(2, seed=seed)).head.get_weights()[0]

    assert np.array_equal(first(1), first(1))
    assert not np.array_equal(first(1), first(2))


@pytest.mark.parametrize(("classes", "outputs"), [(2, 1), (5, 5)])
def test_a_network_from_scratch_takes_pictures_and_gives_logits(classes: int, outputs: int) -> None:
    network = scratch((150, 150), HeadSpec(classes, hidden=(512,), dropout=0.5))
    assert network.model(pictures(2, 150)).shape == (2, outputs)
    assert network.trunk.output_shape == (None, 17, 17, 64)
    assert counts(network)[0] == counts(network)[1]


def test_the_trunk_and_the_head_are_the_model(vgg16: Network) -> None:
    whole = vgg16.model(pictures(2, 150))
    np.testing.assert_allclose(vgg16.head(vgg16.trunk(pictures(2, 150))), whole, rtol=1e-5)


def test_pooling_hidden_layers_and_dropout_are_as_asked_for() -> None:
    network = on_base(graph(), HeadSpec(3, "avg", (7, 5), 0.0))
    shapes = [array.shape for array in network.head.get_weights()]
    assert shapes == [(512, 7), (7,), (7, 5), (5,), (5, 3), (3,)]
