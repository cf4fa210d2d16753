"""The frozen graph: uint8 images in, float32 features out, with the preprocessing and the pooling inside."""

from __future__ import annotations

import hashlib
import importlib
import json
from dataclasses import dataclass
from typing import Any

from featstore.catalog import Backbone, check_image_size
from featstore.errors import InputError
from featstore.spec import Precision, Preprocessing, Spec
from featstore.weights import Base, read_tensors, tensor_digest
from featstore.weights.cache import damaged
from featstore.weights.keras_io import (
    architecture,
    float32_policy,
    import_keras,
    load_own,
    named_layers,
    output_of,
    set_tensors,
)

GRAPH_VERSION = 3
"""Rises when :func:`build` builds another graph from the same spec; part of the name of a cached graph."""

BATCH_SIZE = 32
"""Every forward pass has this many images, padded if need be: so a row never depends on its neighbours or its run."""


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """A frozen graph: which base, which layer, what goes in and how the maps are pooled.

    ``image_size`` is (height, width) in pixels. ``preprocessing`` is "keras" (the base's own ``preprocess_input``),
    "rescale" (1/255) or "none"; ``pooling`` is "avg", "max" or "map". ``calibration`` is a spec's, for int8.
    """

    base: Base
    layer: str
    image_size: tuple[int, int]
    preprocessing: Preprocessing
    pooling: str
    precision: Precision
    calibration: str | None = None

    @classmethod
    def of(cls, base: Base, spec: Spec) -> GraphSpec:
        """The graph that makes features of ``spec``; flattened ones come as maps."""
        pooling = "map" if spec.pooling == "flatten" else spec.pooling
        return cls(base, spec.layer, spec.image_size, spec.preprocessing, pooling, spec.precision, spec.calibration)

    def key(self, **versions: str) -> str:
        """The converted graph's name (SHA-256, hex): all but the precision, which a runtime sets when it compiles."""
        parts = {
            "backbone": self.base.spec_name,
            "weights": self.base.digest,
            "layer": self.layer,
            "image_size": self.image_size,
            "preprocessing": self.preprocessing,
            "pooling": self.pooling,
            "batch": BATCH_SIZE,
            "graph_version": GRAPH_VERSION,
            **versions,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def build(graph: GraphSpec, batch_size: int | None = BATCH_SIZE) -> Any:
    """The ``keras.Model`` from uint8 (batch_size, H, W, 3), RGB, to float32 (batch_size, C), or (…, h, w, C) for "map".

    featstore's own passes always have BATCH_SIZE images; None leaves the number free, for models that others will use.
    At a precision below float32 the base computes in it with float32 weights (Keras's mixed policies); preprocessing
    and pooling stay in float32. Raises InputError for a size, layer or preprocessing that the base does not have,
    DamageError for weights that are not as they were cached.
    """
    base = graph.base
    check_image_size(base.backbone, graph.image_size)
    _check_preprocessing(base, graph.preprocessing)
    name = base.layer(graph.layer).name
    keras = import_keras()
    model = _load(base, graph.image_size)
    with float32_policy():
        features = keras.Model(model.inputs, output_of(named_layers(model, own=base.backbone.is_own)[name]))
        mixed = "" if graph.precision == "float32" else "mixed_"  # an own model may have been saved with another policy
        _compute_in(features, keras.DTypePolicy(f"{mixed}{graph.precision}"))
        images = keras.Input((*graph.image_size, 3), batch_size=batch_size, dtype="uint8")
        values = keras.ops.cast(images, "float32")
        if graph.preprocessing == "rescale":
            values = values / 255.0
        elif graph.preprocessing == "keras" and not base.backbone.is_own:
            values = preprocess(base.backbone, values)
        maps = keras.ops.cast(features(values, training=False), "float32")
        return keras.Model(images, _pool(maps, graph.pooling))


def _load(base: Base, image_size: tuple[int, int]) -> Any:
    if not base.backbone.is_own:
        model = architecture(base.backbone, image_size)
        set_tensors(model, read_tensors(base), base.tensors)
        return model
    model = load_own(base.tensors)
    found = tensor_digest(model.get_weights())
    if found != base.digest:
        raise damaged(base, f"the tensors' digest is {found}")
    fixed = model.input_shape[1:3]
    if any(wanted not in (None, given) for wanted, given in zip(fixed, image_size, strict=True)):
        raise InputError(
            f"{base.backbone.name} takes images of one size only",
            where="--image-size",
            expected=" × ".join(map(str, fixed)),
            received=" × ".join(map(str, image_size)),
        )
    return model


def _check_preprocessing(base: Base, preprocessing: Preprocessing) -> None:
    if preprocessing == "rescale" and base.backbone.normalisation == "included":
        raise InputError(
            f"{base.backbone.name} normalises pixels of 0 to 255 itself",
            where="--preprocessing",
            expected="keras or none",
            received="rescale",
            todo="leave the option out",
        )


def preprocess(backbone: Backbone, values: Any) -> Any:
    """Pixels (batch, H, W, 3) of 0 to 255, float32, as Keras's own ``preprocess_input`` makes them for this base."""
    return importlib.import_module(f"keras.applications.{backbone.module}").preprocess_input(values)


def _pool(maps: Any, pooling: str) -> Any:
    layers = import_keras().layers
    if pooling == "avg":
        return layers.GlobalAveragePooling2D(dtype="float32")(maps)
    if pooling == "max":
        return layers.GlobalMaxPooling2D(dtype="float32")(maps)
    return maps


def _compute_in(model: Any, policy: Any) -> None:
    """Give every layer, those of nested models too, the policy that its next call computes in."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            _compute_in(layer, policy)
        layer.dtype_policy = policy
