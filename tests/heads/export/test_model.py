from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featstore.errors import InputError
from featstore.spec import PixelSpec, Spec
from featstore.weights import Base
from heads.evaluation.calibration import Calibration
from heads.export.check import drawn_pictures
from heads.export.model import ImageInput, build_model, inputs_of
from tests.heads.export.conftest import ISOTONIC, MakeBundle

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

KINDS = ["linear", "dense", "single", "kernel", "neighbours", "nearer", "every row"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "calibration", [Calibration(), Calibration("temperature", 2.5), ISOTONIC], ids=lambda found: found.method
)
def test_the_model_says_what_the_bundle_says(
    kind: str, calibration: Calibration, make_bundle: MakeBundle, tiny: Base, features: np.ndarray
) -> None:
    bundle = make_bundle(kind, calibration)
    images = drawn_pictures(inputs_of(bundle.card.specs))["images"]
    model = build_model(bundle, [tiny])
    found = np.asarray(model(images))
    assert (found.shape, found.dtype) == ((8, 3), np.float32)
    expected = bundle.probabilities(features)
    assert np.ptp(expected, axis=0).max() > 0.05, "the pictures are all the same to this head"
    np.testing.assert_allclose(found, expected, atol=3e-6)


def test_any_number_of_images_gives_the_same_rows(make_bundle: MakeBundle, tiny: Base) -> None:
    bundle = make_bundle("kernel")
    images = drawn_pictures(inputs_of(bundle.card.specs))["images"]
    model = build_model(bundle, [tiny])
    assert model.input_shape == (None, 24, 20, 3)
    assert model.input.dtype == "uint8"
    np.testing.assert_allclose(np.asarray(model(images[3:4])), np.asarray(model(images))[3:4], atol=1e-6)


def test_nothing_in_the_model_can_be_trained_away(make_bundle: MakeBundle, tiny: Base) -> None:
    assert build_model(make_bundle("nearer"), [tiny]).trainable_weights == []


def test_a_curve_is_followed_at_its_corners_and_beyond(make_bundle: MakeBundle, tiny: Base) -> None:
    keras = pytest.importorskip("keras")
    from heads.export.model import _bent

    plain = np.random.default_rng(0).dirichlet(np.full(3, 0.3), size=500).astype(np.float32)
    plain[:4] = [[0.1, 0.1, 0.8], [0.3, 0.5, 0.2], [0.8, 0.2, 0.0], [0.0, 0.0, 1.0]]
    given = keras.Input((3,))
    found = np.asarray(keras.Model(given, _bent(ISOTONIC, given))(plain))
    bent = np.stack([np.interp(plain[:, i], x, y) for i, (x, y) in enumerate(ISOTONIC.curves)], axis=1)
    near_the_step = np.abs(plain[:, 0] - 0.3) < 1e-5
    difference = np.abs(found - bent / bent.sum(axis=1, keepdims=True))
    assert difference[~near_the_step].max() < 2e-6


def test_backbones_that_take_the_same_pixels_share_an_input() -> None:
    one = Spec("vgg16", "0" * 64, "block5_pool", (96, 96))
    other = one.but(backbone="xception", layer="add_2", pooling="max")
    larger = other.but(image_size=(128, 96))
    assert inputs_of([one]) == (ImageInput("images", PixelSpec((96, 96)), (0,)),)
    assert inputs_of([one, other]) == (ImageInput("images", PixelSpec((96, 96)), (0, 1)),)
    assert inputs_of([larger, one, other]) == (
        ImageInput("images_1", PixelSpec((128, 96)), (0,)),
        ImageInput("images_2", PixelSpec((96, 96)), (1, 2)),
    )
    assert len(inputs_of([one, other.but(fit="crop")])) == 2


def test_joined_backbones_keep_their_order(make_bundle: MakeBundle, tiny: Base, tiny_spec: Spec) -> None:
    larger = tiny_spec.but(image_size=(40, 32), pooling="max")
    bundle = make_bundle("linear", None, larger, tiny_spec, larger.but(pooling="avg"))
    model = build_model(bundle, [tiny] * 3)
    assert [one.name for one in model.inputs] == ["images_1", "images_2"]
    images = drawn_pictures(inputs_of(bundle.card.specs))
    from featstore.backbone import build
    from heads.export.model import float32_graph

    blocks = [
        np.asarray(build(float32_graph(spec, tiny), batch_size=None)(images[name]))
        for spec, name in zip(bundle.card.specs, ("images_1", "images_2", "images_1"), strict=True)
    ]
    expected = bundle.probabilities(np.concatenate(blocks, axis=1))
    found = np.asarray(model([images["images_1"], images["images_2"]]))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_flattened_features_come_in_the_order_of_the_store(
    make_bundle: MakeBundle, tiny: Base, tiny_spec: Spec
) -> None:
    from featstore.backbone import build
    from featstore.cached import pool
    from heads.export.model import float32_graph

    flat = tiny_spec.but(pooling="flatten")
    bundle = make_bundle("kernel", None, flat)
    images = drawn_pictures(inputs_of([flat]))["images"]
    maps = np.asarray(build(float32_graph(flat, tiny), batch_size=None)(images))
    found = np.asarray(build_model(bundle, [tiny])(images))
    np.testing.assert_allclose(found, bundle.probabilities(pool(maps, "flatten")), atol=1e-5)


def test_a_head_that_is_not_known_here_is_one_message(make_bundle: MakeBundle, tiny: Base, tmp_path: Path) -> None:
    from dataclasses import replace

    class Strange:
        format = "strange"

    with pytest.raises(InputError, match="cannot be exported"):
        build_model(replace(make_bundle(), head=Strange()), [tiny])
