"""The networks of the live path, as Keras models: from scratch, and on a base that is frozen up to some layer.

A base computes as in inference even where it is trained, as Keras's guide to transfer learning advises. Calling it with
``training=False`` does not see to that: a functional model passes on what it was called with itself, and ``fit`` calls
it with True. So its batch normalisation is never trained, which keeps it in inference, and its dropout is taken out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from featstore.backbone import GraphSpec, build
from featstore.errors import InputError, unknown_name
from featstore.weights.keras_io import float32_policy, import_keras, named_layers

LEAST_OF_SCRATCH = 22
"""Pixels a side of which one is left after three convolutions and poolings."""

INPUT, HEAD = "images", "head"
"""The names of a network's input, and of the part that follows the base."""


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """What follows the maps: how they are pooled ("flatten", "avg"), hidden layers with relu, and dropout before the
    last layer, which has a logit for each of ``classes``, or one for two.
    """

    classes: int
    pooling: str = "flatten"
    hidden: tuple[int, ...] = (256,)
    dropout: float = 0.5
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Network:
    """A network in two parts that share their layers with ``model``.

    model : from the input to logits (N, 1) or (N, K). trunk : from float32 pictures (N, H, W, 3) of 0 to 255 to maps.
    base : the layers that may be unfrozen, in order; none of a network from scratch, where everything is trained.
    names : where in ``base`` each layer with maps is, by the name that a spec gives it.
    """

    model: Any
    trunk: Any
    head: Any
    base: tuple[Any, ...] = ()
    names: Mapping[str, int] = field(default_factory=dict)


def shared_by(devices: Sequence[str]) -> AbstractContextManager[Any]:
    """Where networks are built and trained on all of ``devices`` at once, which share every batch (tf.distribute).

    devices : TensorFlow's names, such as GPU:0; with fewer than two there is nothing to share. Raises InputError for
    one that it does not have.
    """
    if len(devices) < 2:
        return nullcontext()
    import_keras()
    import tensorflow as tf

    there = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]
    if not set(devices) <= set(there):
        raise InputError(
            "TensorFlow does not have these devices",
            where="--devices",
            expected=f"some of {', '.join(there)}",
            received=", ".join(devices),
            todo="pip install 'tensorflow[and-cuda]', if that is what is missing",
        )
    scope: AbstractContextManager[Any] = _strategy(tuple(devices)).scope()
    return scope


@cache
def _strategy(devices: tuple[str, ...]) -> Any:
    """One for the life of the process: TensorFlow counts sums over devices anew in each, and takes equal counts for the
    same sum.
    """
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(devices)


def scratch(image_size: tuple[int, int], head: HeadSpec) -> Network:
    """The convolutional network of the tutorials that begin at nothing: 16, 32 and 64 filters of 3 x 3, each with relu
    and followed by max pooling; pixels are scaled to 0 to 1.

    Raises InputError for pictures so small that nothing would be left of them.
    """
    if min(image_size) < LEAST_OF_SCRATCH:
        raise InputError(
            "the images are too small for a network from scratch",
            where="--image-size",
            expected=f"at least {LEAST_OF_SCRATCH} pixels a side",
            received=f"{image_size[0]} × {image_size[1]}",
        )
    keras = import_keras()
    layers = keras.layers
    with float32_policy():
        keras.utils.set_random_seed(head.seed)
        pictures = keras.Input((*image_size, 3), name=INPUT)
        values = layers.Rescaling(1 / 255)(pictures)
        for number, filters in enumerate((16, 32, 64), 1):
            values = layers.Conv2D(filters, 3, activation="relu", name=f"conv{number}")(values)
            values = layers.MaxPooling2D(2, name=f"pool{number}")(values)
        trunk = keras.Model(pictures, values, name="scratch")
        top = _head(trunk.output_shape[1:], head)
        return Network(keras.Model(pictures, top(values)), trunk, top)


def on_base(graph: GraphSpec, head: HeadSpec) -> Network:
    """The base of ``graph`` with its preprocessing, all of it frozen, and a head."""
    keras = import_keras()
    with float32_policy():
        whole = build(graph, batch_size=None)
        inner = next(layer for layer in whole.layers if isinstance(layer, keras.Model))
        keras.utils.set_random_seed(head.seed)
        top = _head(tuple(inner.output_shape[1:]), head)
        pictures = keras.Input((*graph.image_size, 3), name=INPUT)
        maps = whole(pictures, training=False)
        _still(inner)
        inner.trainable = False
        trunk = keras.Model(pictures, maps, name=f"{graph.base.backbone.name}_trained")
        return Network(keras.Model(pictures, top(maps)), trunk, top, tuple(inner.layers), _places(inner, graph))


def _still(base: Any) -> None:
    """Take out what is random in training: dropout, and the leaving out of whole blocks."""
    for layer in base._flatten_layers(include_self=False):
        for rate in ("rate", "drop_path_rate"):
            if hasattr(layer, rate):
                setattr(layer, rate, 0.0)


def _places(inner: Any, graph: GraphSpec) -> Mapping[str, int]:
    places = {id(layer): place for place, layer in enumerate(inner.layers)}
    return {name: places[id(layer)] for name, layer in named_layers(inner, own=graph.base.backbone.is_own).items()}


def _head(shape: Sequence[int], head: HeadSpec) -> Any:
    keras = import_keras()
    layers = keras.layers
    maps = keras.Input(tuple(shape), name="maps")
    pool = layers.GlobalAveragePooling2D() if head.pooling == "avg" else layers.Flatten()
    values = pool(maps)
    for number, units in enumerate(head.hidden, 1):
        values = layers.Dense(units, activation="relu", name=f"dense{number}")(values)
    if head.dropout:
        values = layers.Dropout(head.dropout, seed=head.seed)(values)
    logits = layers.Dense(1 if head.classes == 2 else head.classes, dtype="float32", name="logits")(values)
    return keras.Model(maps, logits, name=HEAD)


def unfreeze(network: Network, layer: str | None) -> None:
    """Make the base trainable from ``layer`` on, all of it for "all", nothing for None; what comes before is frozen.

    Batch normalisation never is.

    Raises InputError for a layer that it does not have.
    """
    if not network.base:
        return
    if layer not in (None, "all", *network.names):
        raise _unknown(network, str(layer))
    start = len(network.base) if layer is None else 0 if layer == "all" else network.names[layer]
    for place, one in enumerate(network.base):
        one.trainable = place >= start
        for part in one._flatten_layers():
            if type(part).__name__ == "BatchNormalization":
                part.trainable = False


def tail(network: Network, layer: str) -> tuple[str, Any]:
    """The part of the base from ``layer`` on with the head, sharing their weights: the layer below it, and the model
    from that layer's maps to logits.

    Raises InputError if anything but the layer below leads into this part: then no single map holds all it needs.
    """
    keras = import_keras()
    if layer not in network.names:
        raise _unknown(network, layer)
    first = network.base[network.names[layer]]
    below: Any = first.input if not isinstance(first.input, list) else None
    try:
        with float32_policy():
            part = keras.Model(below, network.base[-1].output)
            maps = keras.Input(tuple(part.input_shape[1:]), name="maps")
            model = keras.Model(maps, network.head(part(maps, training=False)))
    except (ValueError, AttributeError) as error:
        raise _uncut(layer, "more than one layer leads into what is trained") from error
    source = below._keras_history.operation
    for name, place in network.names.items():
        if network.base[place] is source:
            return name, model
    raise _uncut(layer, "nothing below it could be stored but the pictures")


def _unknown(network: Network, layer: str) -> InputError:
    """With every name from the last layer back: the end is where fine-tuning begins."""
    return unknown_name("layer", layer, ["all", *reversed(list(network.names))], "--from", most=None)


def _uncut(layer: str, why: str) -> InputError:
    return InputError(
        f"fine-tuning from here cannot go on stored maps: {why}",
        where=f"--from {layer}",
        expected="a layer that all paths go through, as the first of a later block",
        todo="choose such a layer, or train on the pictures: without --views",
    )


def counts(network: Network) -> tuple[int, int]:
    """Numbers that are trained, and all of them."""
    size = import_keras().ops.size
    trained = sum(int(size(weight)) for weight in network.model.trainable_weights)
    return trained, sum(int(size(weight)) for weight in network.model.weights if "seed_generator" not in weight.path)
