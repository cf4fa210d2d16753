from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from featstore.catalog import find
from featstore.errors import InputError
from featstore.weights import Base, Layer, tensor_digest


@pytest.fixture
def base() -> Base:
    layers = (Layer("block4_pool", 512), Layer("block5_pool", 512))
    return Base(find("vgg16"), "imagenet", "00", layers, Path("x.npz"), "nowhere")


def test_the_digest_is_sha256_of_little_endian_float32() -> None:
    expected = hashlib.sha256(struct.pack("<4f", 1, 2, 3, 4)).hexdigest()
    assert tensor_digest([np.array([1, 2], ">f4"), np.array([[3], [4]], np.float64)]) == expected


def test_the_digest_does_not_depend_on_memory_layout() -> None:
    tensor = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert tensor_digest([np.asfortranarray(tensor)]) == tensor_digest([tensor])


def test_the_digest_depends_on_order() -> None:
    a, b = np.zeros(1, np.float32), np.ones(1, np.float32)
    assert tensor_digest([a, b]) != tensor_digest([b, a])


def test_a_scalar_counts() -> None:
    assert tensor_digest([np.array(7, np.int64)]) == tensor_digest([np.array([7.0], np.float32)])


def test_the_default_layer_is_the_last(base: Base) -> None:
    assert base.layer().name == "block5_pool"
    assert base.layer("block4_pool") == Layer("block4_pool", 512)


def test_a_layer_that_does_not_exist_is_told_the_nearest(base: Base) -> None:
    with pytest.raises(InputError, match="did you mean block4_pool"):
        base.layer("block4pool")
