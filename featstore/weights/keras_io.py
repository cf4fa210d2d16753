"""Keras's part of the weights: its import, its architectures and their layers."""

from __future__ import annotations

import json
import math
import os
import random
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from featstore.catalog import Backbone
from featstore.errors import InputError
from featstore.weights.base import Layer

_UNSAVED_BYTES = 2**20
"""Weights that a model may have beside those in its file: states of random numbers, and the like."""


def import_keras() -> Any:
    """Keras with its TensorFlow backend, without the noise that TensorFlow makes; raises InputError otherwise."""
    keras = _import_silently()
    asked = os.environ.get("KERAS_BACKEND")
    if keras.config.backend() != "tensorflow":
        raise InputError(
            "featstore needs Keras's TensorFlow backend",
            where="KERAS_BACKEND or keras.json",
            expected="tensorflow",
            received=keras.config.backend() if asked in (None, "tensorflow") else asked,
            todo="unset KERAS_BACKEND before Keras is imported",
        )
    if keras.config.image_data_format() != "channels_last":
        raise InputError(
            "featstore needs images with the channels last",
            where="keras.json",
            expected="channels_last",
            received=keras.config.image_data_format(),
            todo='set "image_data_format" to "channels_last"',
        )
    return keras


@cache  # once a process: stderr is away meanwhile, for every thread
def _import_silently() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with _silent_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what these libraries deprecate in one another
        import keras
    return keras


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """TensorFlow's C++ writes to file descriptor 2 while it loads, whatever its log level."""
    try:
        saved = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


@contextmanager
def float32_policy() -> Iterator[None]:
    """Build models in float32, leaving the caller's Keras policy and random state as they were."""
    keras = import_keras()
    policy, state = keras.config.dtype_policy(), random.getstate()
    keras.config.set_dtype_policy("float32")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras's advice on sizes and formats is not for featstore's users
            yield
    finally:
        keras.config.set_dtype_policy(policy)
        random.setstate(state)  # Keras draws the seeds of its initialisers from it


def architecture(backbone: Backbone, image_size: tuple[int, int] | None = None) -> Any:
    """The ``keras.Model`` of a known base with meaningless weights, for any image size unless one is given.

    With ``classes`` it has its classifier on top, and takes images of the default size alone.
    """
    keras = import_keras()
    make = getattr(keras.applications, backbone.keras_name)
    shape = None if image_size is None else (*image_size, 3)
    with float32_policy():
        top = {"include_top": True, "classes": backbone.classes} if backbone.classes else {"include_top": False}
        model = make(weights=None, input_shape=shape, **top)
    model.name = backbone.name  # Keras's own is another, "mobilenetv2_1.00_None"; as name= it would rename layers too
    return model


def load_own(path: Path) -> Any:
    """Somebody's own ``keras.Model``, in safe mode. The archive must have passed :func:`featstore.weights.own.inspect`.

    Raises InputError if Keras cannot load it, or if its config asks for more weights than the file has.
    """
    keras = import_keras()
    try:
        with float32_policy():
            _check_size(keras, path)
            return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a foreign file can make Keras raise anything
        raise InputError(
            "Keras cannot load this model", where=path, received=first_line(error), todo="save it again with Keras 3"
        ) from error


def _check_size(keras: Any, path: Path) -> None:
    """Raise ValueError unless the file holds the weights that its config asks for: Keras makes room for all of them
    before it looks. Here the model is made without its weights.
    """
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
        held = archive.getinfo("model.weights.h5").file_size
    with keras.StatelessScope(initialize_variables=False):
        model = keras.saving.deserialize_keras_object({**config, "compile_config": None}, safe_mode=True)
    asked = sum(math.prod(weight.shape) * np.dtype(weight.dtype).itemsize for weight in model.variables)
    if asked > held + _UNSAVED_BYTES:
        raise ValueError(f"the model asks for weights of {asked} bytes, and the file has {held}")


def input_size(model: Any, where: object) -> int | None:
    """The height that an own model wants, None if it takes any; raises InputError unless it takes one RGB image."""
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[-1] not in (3, None):
        raise InputError(
            "this model does not take one RGB image", where=where, expected="(None, height, width, 3)", received=shape
        )
    height: int | None = shape[1]
    return height


def named_layers(model: Any, *, own: bool = False) -> dict[str, Any]:
    """The model's layers with a single output (batch, H, W, C), by name, in the model's order.

    Keras numbers unnamed layers through the whole process (``activation_633``); here they are numbered within the
    model, so a name means the same in every run. Own models have the names that were saved.
    """
    counts: dict[str, int] = {}
    named = {}
    for layer in model.layers:
        name = layer.name if own else _steady_name(layer, counts)
        if type(layer).__name__ != "InputLayer" and len(getattr(output_of(layer), "shape", ())) == 4:
            named[name] = layer
    return named


def _steady_name(layer: Any, counts: dict[str, int]) -> str:
    stem = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(layer).__name__).lower()
    if not re.fullmatch(rf"{stem}(_\d+)?", layer.name):
        return str(layer.name)
    number = counts.get(stem, 0)
    counts[stem] = number + 1
    return f"{stem}_{number}" if number else stem


def output_of(layer: Any) -> Any:
    """A layer's output in the model that it is a part of; a list if it has several, None if it was never called."""
    keras = import_keras()
    if isinstance(layer, keras.Model):  # its .output is the one of its own graph, not of the graph around it
        nodes = layer._inbound_nodes
        return nodes[-1].outputs[0] if nodes else None
    try:
        return layer.output
    except (AttributeError, ValueError):
        return None


def list_layers(model: Any, *, own: bool = False) -> tuple[Layer, ...]:
    """What :func:`named_layers` found, as plain data."""
    found = {name: output_of(layer).shape[-1] for name, layer in named_layers(model, own=own).items()}
    return tuple(Layer(name, int(channels)) for name, channels in found.items() if channels is not None)


def set_tensors(model: Any, tensors: Sequence[Any], where: object) -> None:
    """Give the model its tensors, in ``get_weights()`` order; raises InputError naming the first that does not fit."""
    weights = model.weights
    for weight, tensor in zip(weights, tensors, strict=False):
        if tuple(weight.shape) != tensor.shape:
            raise misfit(model.name, where, describe(weight), tensor.shape)
    if len(weights) != len(tensors):
        raise misfit(model.name, where, f"{len(weights)} tensors", f"{len(tensors)} tensors")
    model.set_weights(tensors)
    for layer in model.layers:
        if hasattr(layer, "finalize_state"):  # Normalization keeps a derived copy of its mean and variance
            layer.finalize_state()


def describe(weight: Any) -> str:
    """A tensor's name and shape, as errors name it."""
    return f"{weight.path} {tuple(weight.shape)}"


def misfit(name: str, where: object, expected: object, received: object) -> InputError:
    """The error for weights of another architecture than the one called ``name``."""
    return InputError(
        f"these weights are not {name}'s",
        where=where,
        expected=expected,
        received=received,
        todo="give the weights of the same architecture",
    )


def first_line(error: Exception) -> str:
    """What a library said, short enough to pass on: a line, or two where the first ends in a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
