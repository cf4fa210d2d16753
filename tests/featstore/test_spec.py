from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featstore.errors import InputError
from featstore.spec import MOST_PIXELS_A_SIDE, PixelSpec, Spec

SPEC = Spec(backbone="vgg16", weights="ab" * 32, layer="block5_pool", image_size=(150, 150))

INT8 = SPEC.but(precision="int8", calibration="ab" * 32)

OTHER: dict[str, Any] = {
    "backbone": "vgg19",
    "weights": "cd" * 32,
    "layer": "block4_pool",
    "image_size": (150, 151),
    "resize": "nearest",
    "fit": "crop",
    "preprocessing": "rescale",
    "precision": "bfloat16",
    "pooling": "max",
    "dtype": "float16",
    "augmentation": "flip",
    "calibration": "ef" * 32,
    "decode_version": 2,
    "spec_version": 2,
}

_CHOICES: dict[str, tuple[Any, ...]] = {
    "resize": ("bilinear", "nearest"),
    "fit": ("stretch", "crop"),
    "pooling": ("avg", "max"),
    "dtype": ("float32", "float16"),
    "augmentation": (None, "flip"),
    "weights": ("ab" * 32, "cd" * 32),
}

GOLDEN = "3c0dc48c6a21fdfcf8a9e40dfb704f332f55d5d3838d1c3d754a6b96ea5460a2"
GOLDEN_INT8 = "5a2931053e5c48b4bbeebcd7e03e1e9e366325bcb4dcc6d820d51929eb52c206"


def test_the_test_knows_every_field() -> None:
    assert set(OTHER) == {f.name for f in fields(Spec)}


@pytest.mark.parametrize("name", sorted(OTHER))
def test_any_field_changed_gives_another_fingerprint(name: str) -> None:
    spec = INT8 if name == "calibration" else SPEC
    assert spec.but(**{name: OTHER[name]}).fingerprint != spec.fingerprint


def test_the_fingerprint_of_a_known_spec_never_changes() -> None:
    """If this fails, every store in the world has just become a miss: raise SPEC_VERSION on purpose instead."""
    assert SPEC.fingerprint == GOLDEN
    assert INT8.fingerprint == GOLDEN_INT8
    assert Spec.from_json(INT8.to_json()) == INT8


@pytest.mark.parametrize("changes", [{"precision": "int8"}, {"calibration": "ab" * 32}])
def test_int8_and_only_int8_has_a_calibration(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="calibration="):
        SPEC.but(**changes)


def test_another_process_gives_the_same_fingerprint() -> None:
    code = f"from featstore.spec import Spec; print(Spec.from_json({SPEC.to_json()!r}).fingerprint)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == SPEC.fingerprint


def test_the_order_of_keys_does_not_matter() -> None:
    shuffled = json.dumps(dict(reversed(json.loads(SPEC.to_json()).items())))
    assert Spec.from_json(shuffled) == SPEC


_SIDES = st.integers(1, MOST_PIXELS_A_SIDE)


@given(
    backbone=st.text(min_size=1, max_size=40),
    size=st.tuples(_SIDES, _SIDES),
    augmentation=st.none() | st.text(max_size=40),
)
def test_json_gives_back_the_spec(backbone: str, size: tuple[int, int], augmentation: str | None) -> None:
    spec = SPEC.but(backbone=backbone, image_size=size, augmentation=augmentation)
    assert Spec.from_json(spec.to_json()) == spec
    assert spec.to_json().isascii()


_SPECS = st.builds(
    lambda *values: SPEC.but(**dict(zip(("backbone", "layer", "image_size", *sorted(_CHOICES)), values, strict=True))),
    st.sampled_from(["vgg16", "vgg19", "own-ab"]),
    st.text("abc_1", min_size=1, max_size=3),
    st.tuples(st.integers(32, 35), st.integers(32, 35)),
    *(st.sampled_from(_CHOICES[name]) for name in sorted(_CHOICES)),
)


@given(_SPECS, _SPECS, st.randoms(use_true_random=False))
def test_two_specs_share_a_fingerprint_only_if_they_are_the_same(one: Spec, other: Spec, random: Random) -> None:
    assert (one.fingerprint == other.fingerprint) == (one == other)
    items = list(json.loads(one.to_json()).items())
    random.shuffle(items)
    assert Spec.from_json(json.dumps(dict(items))).fingerprint == one.fingerprint


def test_all_values_that_do_not_exist_are_named_at_once() -> None:
    with pytest.raises(InputError) as caught:
        SPEC.but(resize="cubic", pooling="mean", image_size=(0, 5))
    assert all(part in str(caught.value) for part in ("resize='cubic'", "pooling='mean'", "image_size=(0, 5)"))


@pytest.mark.parametrize("size", [(2049, 32), (32, 20_000), (32, 10**400), (0, 32), (32, 1.5), (32, "9"), (32,), ()])
def test_a_picture_has_as_many_pixels_as_fit_into_memory_and_whole_ones(size: Any) -> None:
    """Whoever made the store or the bundle that the spec came with."""
    assert SPEC.but(image_size=(MOST_PIXELS_A_SIDE, 1)).image_size == (2048, 1)
    with pytest.raises(InputError, match="from 1 to 2048"):
        SPEC.but(image_size=size)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"image_size": [1, 2], "colour": 1}', '{"image_size": 3}', "null"])
def test_a_spec_that_cannot_be_read_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        Spec.from_json(text)


def test_differences_name_the_fields_with_mine_first() -> None:
    other = SPEC.but(layer="block4_pool", precision="bfloat16")
    assert SPEC.differences(other) == {
        "layer": ("block5_pool", "block4_pool"),
        "precision": ("float32", "bfloat16"),
    }


def test_pixels_hold_only_what_decoding_needs() -> None:
    assert SPEC.but(resize="lanczos", fit="pad").pixels == PixelSpec((150, 150), "lanczos", "pad")
