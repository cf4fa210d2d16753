"""Tensors of a known base: drawn at random, or read from the files that Keras writes."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from featstore.catalog import IMAGENET_CLASSES, Backbone
from featstore.errors import InputError
from featstore.weights.base import Tensors
from featstore.weights.keras_io import (
    architecture,
    describe,
    first_line,
    float32_policy,
    load_own,
    misfit,
    set_tensors,
)

# What keras.applications divides by after its Normalization layer, when and only when it loads ImageNet weights itself.
_EFFICIENTNET_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def random_tensors(backbone: Backbone, seed: int) -> Tensors:
    """Seeded random weights: He's normal rule for kernels, Keras's constants (zeros and ones) for the rest.

    A tensor depends on the seed and its position alone, and no global random state is touched.
    K. He et al., Delving deep into rectifiers, ICCV 2015.
    """
    tensors: Tensors = []
    for index, initial in enumerate(architecture(backbone).get_weights()):
        if initial.ndim < 2:
            tensors.append(initial.astype(np.float32))
            continue
        depthwise = initial.ndim == 4 and initial.shape[-1] == 1
        inputs = math.prod(initial.shape[:2] if depthwise else initial.shape[:-1])
        normal = np.random.default_rng([seed, index]).standard_normal(initial.shape, np.float32)
        tensors.append(normal * np.float32(math.sqrt(2 / inputs)))
    return tensors


def read_h5(backbone: Backbone, path: Path, *, published: bool = False) -> Tensors:
    """The base's tensors from Keras's ``.h5`` or ``.weights.h5``, saved with or without the classifier on top.

    ``published`` says that the file is Keras's own ImageNet file. Raises InputError for any other contents.
    """
    try:
        model = _load_into(architecture(backbone), path)
    except OSError as error:  # not HDF5 at all
        raise _unreadable(backbone, path, error) from error
    except Exception as error:
        try:
            whole = architecture(replace(backbone, classes=IMAGENET_CLASSES))
            model = _without_top(backbone, _load_into(whole, path))
        except Exception:
            raise _does_not_fit(backbone, path, error) from error
    tensors = [np.asarray(tensor, np.float32) for tensor in model.get_weights()]
    if published and backbone.module == "efficientnet":
        _fold_deviation(model, tensors)
    return tensors


def _load_into(model: Any, path: Path) -> Any:
    with float32_policy():
        model.load_weights(path)
    return model


def _without_top(backbone: Backbone, full: Any) -> Any:
    """The base with the weights of a full model: its tensors come first, in the same order."""
    model = architecture(backbone)
    set_tensors(model, full.get_weights()[: len(model.weights)], backbone.name)
    return model


def _fold_deviation(model: Any, tensors: Tensors) -> None:
    """Put keras.applications' extra division by sqrt(deviation) into the variance of the Normalization before it.

    EfficientNetB0 to B7 have one layer more when Keras loads the ImageNet weights than when it does not. Folded in, the
    graph is a function of the architecture and the tensors alone.
    """
    paths = [weight.path.rpartition("/")[2] for weight in model.weights]
    variance = paths.index("variance")
    tensors[variance] = tensors[variance] * _EFFICIENTNET_DEVIATION


_H5_MISFIT = re.compile(
    r"Shape mismatch in (?P<layer>.+?) ?for weight (?P<weight>\S+?)\.? "
    r".*?expects shape (?P<expected>\([^)]*\)).*?shape (?P<received>\([^)]*\))",
    re.DOTALL,
)


def _does_not_fit(backbone: Backbone, path: Path, error: Exception) -> InputError:
    """Which tensor was expected and what the file has instead, as far as that can be told."""
    if isinstance(error, InputError):
        return error
    if match := _H5_MISFIT.search(str(error)):
        expected = f"{match['layer']}, {match['weight']} {match['expected']}"
        return misfit(backbone.name, path, expected, match["received"])
    if path.name.endswith(".weights.h5"):
        found = _first_misfit(backbone, path)
        return misfit(backbone.name, path, *found) if found else _unreadable(backbone, path, error)
    if path.suffix == ".h5":
        weights = architecture(backbone).weights
        expected = f"{len(weights)} tensors, the first of them {describe(weights[0])}"
        return misfit(backbone.name, path, expected, first_line(error))
    return _unreadable(backbone, path, error)


def _first_misfit(backbone: Backbone, path: Path) -> tuple[str, str] | None:
    """The first tensor that a ``.weights.h5`` does not have, and what it has instead; None if nothing is amiss.

    Keras's own error names a layer at most. So every layer looks at its part of the file instead of loading it.
    """
    model = architecture(backbone)
    misfits: dict[str, tuple[str, str]] = {}
    for layer in model.layers:
        if layer.weights:
            layer.load_own_variables = partial(_compare, layer, misfits)
    with suppress(Exception):
        _load_into(model, path)
    return next(iter(misfits.values()), None)


def _compare(layer: Any, misfits: dict[str, tuple[str, str]], store: Any) -> None:
    """In the place of ``layer.load_own_variables``: note the first of its tensors that ``store`` does not have.

    Keras looks for a layer in several places of the file until nothing is raised.
    """
    problem = next(
        (
            (describe(weight), received)
            for i, weight in enumerate(layer.weights)
            if (received := _misfit(weight, store, i))
        ),
        None,
    )
    if problem is None and len(store.keys()) > len(layer.weights):
        problem = f"tensors of {layer.name}: {len(layer.weights)}", str(len(store.keys()))
    if problem is not None:
        misfits.setdefault(layer.name, problem)
        raise ValueError(problem)
    misfits.pop(layer.name, None)


def _misfit(weight: Any, store: Any, index: int) -> str:
    """What ``store`` has instead of the tensor; empty if it has the tensor."""
    if str(index) not in store.keys():  # noqa: SIM118 - Keras promises no more of a store
        return "nothing there"
    try:
        shape = store[str(index)].shape
    except Exception as error:  # whatever HDF5 makes of a damaged file
        return first_line(error)
    return "" if shape == tuple(weight.shape) else str(shape)


def _unreadable(backbone: Backbone, path: Path, error: Exception) -> InputError:
    return InputError(
        f"no weights of {backbone.name} can be read from this file",
        where=path,
        expected=f"the weights of keras.applications.{backbone.keras_name}, with or without its top",
        received=first_line(error),
        todo="save them with model.save_weights('base.weights.h5')",
    )


def tensors_of(backbone: Backbone, model: Any) -> Tensors:
    """The tensors of a loaded model; those of an EfficientNet with Keras's layer more as of one without it."""
    tensors = [np.asarray(tensor, np.float32) for tensor in model.get_weights()]
    rescalings = [layer for layer in getattr(model, "layers", ()) if type(layer).__name__ == "Rescaling"]
    if backbone.module == "efficientnet" and any(np.ndim(layer.scale) for layer in rescalings):  # by colour: that layer
        _fold_deviation(model, tensors)
    return tensors


def read_model(backbone: Backbone, path: Path) -> Tensors:
    """The base's tensors from a ``.keras`` model that is that base, or has it as one of its layers.

    Raises InputError if none of them fits.
    """
    model = load_own(path)
    target = architecture(backbone)
    shapes = [tuple(weight.shape) for weight in target.weights]
    for candidate in (model, *getattr(model, "layers", ())):
        tensors = tensors_of(backbone, candidate)
        if [tensor.shape for tensor in tensors] == shapes:
            return tensors
    set_tensors(target, model.get_weights(), path)  # says which tensor does not fit
    raise misfit(backbone.name, path, f"{len(shapes)} tensors", "others")
