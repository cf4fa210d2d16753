from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from featstore.errors import InputError
from heads.kinds.dense import DenseHead


def layers(*sizes: int, seed: int = 0) -> DenseHead:
    random = np.random.default_rng(seed)
    shapes = list(pairwise(sizes))
    return DenseHead(
        tuple(random.normal(size=shape).astype(np.float32) for shape in shapes),
        tuple(random.normal(size=shape[1]).astype(np.float32) for shape in shapes),
    )


def test_its_logits_are_those_of_keras_layers() -> None:
    from featstore.weights.keras_io import import_keras

    keras, head = import_keras(), layers(6, 5, 4, 3)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(4, "relu"), keras.layers.Dense(3)]
    )
    model.set_weights([array for pair in zip(head.weights, head.biases, strict=True) for array in pair])
    X = np.random.default_rng(1).normal(size=(70, 6)).astype(np.float32)
    np.testing.assert_allclose(head.logits(X), np.asarray(model(X)), atol=1e-4)
    assert (head.width, head.outputs) == (6, 3)


def test_a_row_does_not_depend_on_its_company() -> None:
    head, X = layers(40, 30, 2), np.random.default_rng(1).normal(size=(150, 40)).astype(np.float32)
    together = head.logits(X)
    np.testing.assert_array_equal(np.concatenate([head.logits(X[i : i + 1]) for i in range(150)]), together)


def test_features_of_another_width_are_refused() -> None:
    with pytest.raises(InputError, match="do not fit this head"):
        layers(6, 3).logits(np.zeros((2, 7), np.float32))


def test_it_comes_back_from_its_arrays() -> None:
    head = layers(6, 5, 3)
    arrays, config = head.to_arrays()
    assert set(arrays) == {"weights_0", "biases_0", "weights_1", "biases_1"}
    X = np.ones((3, 6), np.float32)
    np.testing.assert_array_equal(DenseHead.from_arrays(arrays, config).logits(X), head.logits(X))


def damaged(**changes: object) -> dict[str, np.ndarray]:
    arrays = dict(layers(6, 5, 3).to_arrays()[0])
    for name, value in changes.items():
        if value is None:
            del arrays[name]
        else:
            arrays[name] = value
    return arrays


@pytest.mark.parametrize(
    "changes",
    [
        {"biases_1": None},
        {"weights_0": None, "biases_0": None},
        {"weights_0": np.zeros((6, 5))},
        {"weights_0": np.zeros((6, 4), np.float32)},
        {"weights_1": np.zeros((5, 1), np.float32), "biases_1": np.zeros(1, np.float32)},
        {"weights_0": np.full((6, 5), np.nan, np.float32)},
        {"weights_0": np.zeros((6, 5, 1), np.float32)},
        {"other": np.zeros(3, np.float32)},
        {"weights_0": None, "biases_0": None, "weights_1": None, "biases_1": None},
    ],
    ids=lambda changes: "+".join(changes),
)
def test_arrays_that_cannot_be_one_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InputError):
        DenseHead.from_arrays(damaged(**changes), {})
    with pytest.raises(InputError):
        DenseHead.from_arrays(damaged(), {"activation": "evil"})
