"""One Keras model from images to probabilities: the frozen bases, the head and its calibration, as plain Keras layers.

Every layer and operation is Keras's own, so that the saved file needs no code to be loaded, in safe mode too. What a
head computes in float64 is float32 here; whoever writes the model measures what that changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.backbone import GraphSpec, build
from featstore.errors import InputError
from featstore.spec import PixelSpec, Spec
from featstore.weights import Base
from featstore.weights.keras_io import float32_policy, import_keras
from heads.bundles.bundle import Bundle
from heads.evaluation.calibration import Calibration
from heads.kinds.dense import DenseHead
from heads.kinds.head import Head
from heads.kinds.kernel import KernelHead
from heads.kinds.linear import LinearHead
from heads.kinds.neighbours import SMOOTHING, NeighboursHead

OUTPUT = "probabilities"
"""The name of the model's output."""

_LEAST_STEP = 1e-9
"""The narrowest step of a calibration curve; np.interp knows steps of no width, a layer does not."""


@dataclass(frozen=True, slots=True)
class ImageInput:
    """An input of the model: its name, how its pixels are made, and the places of the backbones that it feeds."""

    name: str
    pixels: PixelSpec
    feeds: tuple[int, ...]


def inputs_of(specs: Sequence[Spec]) -> tuple[ImageInput, ...]:
    """One input for all backbones that take the same pixels: ``images``; several are ``images_1``, ``images_2``, …"""
    kinds = list(dict.fromkeys((spec.pixels, spec.decode_version) for spec in specs))
    feeds = [tuple(i for i, s in enumerate(specs) if (s.pixels, s.decode_version) == kind) for kind in kinds]
    names = ["images"] if len(kinds) == 1 else [f"images_{number}" for number in range(1, len(kinds) + 1)]
    return tuple(ImageInput(*parts) for parts in zip(names, (pixels for pixels, _ in kinds), feeds, strict=True))


def float32_graph(spec: Spec, base: Base) -> GraphSpec:
    """The frozen graph that makes features of ``spec``, but in float32."""
    return replace(GraphSpec.of(base, spec), precision="float32", calibration=None)


def build_model(bundle: Bundle, bases: Sequence[Base]) -> Any:
    """The ``keras.Model`` from uint8 (N, H, W, 3), RGB, a block an input, to float32 (N, K); N is free.

    It computes in float32 whatever the precision of the specs. Raises InputError for a kind of head that is not known
    here, and what :func:`featstore.backbone.build` raises.
    """
    keras = import_keras()
    blocks: dict[int, Any] = {}
    with float32_policy():
        images = []
        for one in inputs_of(bundle.card.specs):
            images.append(keras.Input((*one.pixels.image_size, 3), dtype="uint8", name=one.name))
            for place in one.feeds:
                base = build(float32_graph(bundle.card.specs[place], bases[place]), batch_size=None)
                base.name = f"base_{place + 1}"
                blocks[place] = keras.layers.Flatten()(base(images[-1], training=False))
        columns = [blocks[place] for place in sorted(blocks)]
        features = columns[0] if len(columns) == 1 else keras.layers.Concatenate()(columns)
        found = _calibrated(bundle.card.calibration, _logits(bundle.head, features))
        named = keras.layers.Identity(name=OUTPUT)(found)
        model = keras.Model(images if len(images) > 1 else images[0], named, name="featstore")
    model.trainable = False
    return model


def _logits(head: Head, features: Any) -> Any:
    layers = _HEADS.get(head.format)
    if layers is None:
        raise InputError("this kind of head cannot be exported", expected=", ".join(_HEADS), received=head.format)
    return layers(head, features)


def _linear(head: LinearHead, features: Any) -> Any:
    return _dense(features, head.weights.T, head.bias)


def _layers(head: DenseHead, features: Any) -> Any:
    """Dense layers with relu between them."""
    last = len(head.weights) - 1
    for place, (weights, bias) in enumerate(zip(head.weights, head.biases, strict=True)):
        features = _dense(features, weights, bias, "linear" if place == last else "relu")
    return features


def _kernel(head: KernelHead, features: Any) -> Any:
    near = import_keras().ops.exp(_squares(head, features) * -head.gamma)
    return _dense(near, head.coefficients.T, head.bias)


def _neighbours(head: NeighboursHead, features: Any) -> Any:
    """A row's vote is an embedding of its number: its weight in the column of its class."""
    keras = import_keras()
    ops = keras.ops
    closeness, nearest = ops.top_k(-_squares(head, features), head.k)
    table = head.row_weights[:, None] * (head.labels[:, None] == np.arange(head.outputs))
    embedding = keras.layers.Embedding(*table.shape, embeddings_initializer="zeros")
    votes = embedding(nearest)
    embedding.set_weights([_float32(table)])
    if head.by_distance:
        distances = ops.sqrt(ops.relu(-closeness))
        least = ops.maximum(distances[:, :1], 1e-6)
        votes = votes * ops.expand_dims(least / ops.maximum(distances, least), -1)
    return ops.log(_shares(ops.sum(votes, axis=1) + SMOOTHING))


_HEADS: Mapping[str, Callable[[Any, Any], Any]] = {
    "linear": _linear,
    "dense": _layers,
    "kernel": _kernel,
    "neighbours": _neighbours,
}
"""(head, features) → logits, by the format of the head's arrays."""


def _squares(head: KernelHead | NeighboursHead, features: Any) -> Any:
    """Squared distances (N, rows) of the standardised features: |z|² - 2 z · rowsᵀ + |rows|²."""
    keras = import_keras()
    standardise = keras.layers.BatchNormalization(epsilon=0.0, center=False, scale=False)
    z = standardise(features)
    standardise.set_weights([_float32(head.mean), _float32(head.scale**2)])
    norms = np.einsum("ij,ij->i", head.rows, head.rows, dtype=np.float64)
    rest = _dense(z, -2.0 * head.rows.T, norms)
    return keras.ops.relu(rest + keras.ops.sum(keras.ops.square(z), axis=1, keepdims=True))


def _calibrated(calibration: Calibration, logits: Any) -> Any:
    layers = import_keras().layers
    if calibration.factor != 1.0:
        logits = layers.Rescaling(calibration.factor)(logits)
    plain = layers.Softmax()(logits)
    return _bent(calibration, plain) if calibration.method == "isotonic" else plain


def _bent(calibration: Calibration, plain: Any) -> Any:
    """Every curve as a sum of steps that rise from 0 to their height: exact, and without cancellation."""
    steps = [
        (column, start, max(end - start, _LEAST_STEP), height - low)
        for column, (x, y) in enumerate(calibration.curves)
        for (start, low), (end, height) in pairwise(zip((*x, x[-1] + 1.0), (*y, y[-1]), strict=True))
    ]
    columns, starts, widths, heights = (np.array(numbers) for numbers in zip(*steps, strict=True))
    own = columns[None, :] == np.arange(len(calibration.curves))[:, None]
    risen = import_keras().layers.ReLU(max_value=1.0)(_dense(plain, own / widths, -starts / widths))
    return _shares(_dense(risen, (own * heights).T, np.array([y[0] for _, y in calibration.curves])))


def _shares(numbers: Any) -> Any:
    return numbers / import_keras().ops.sum(numbers, axis=1, keepdims=True)


def _dense(x: Any, kernel: npt.NDArray[Any], bias: npt.NDArray[Any], activation: str = "linear") -> Any:
    """The layer x · kernel + bias, for kernel (in, out) and bias (out,)."""
    layer = import_keras().layers.Dense(len(bias), activation=activation, kernel_initializer="zeros")
    out = layer(x)
    layer.set_weights([_float32(kernel), _float32(bias)])
    return out


def _float32(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(array, np.float32)
