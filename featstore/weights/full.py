"""Whole ImageNet classifiers: a known architecture with its top, and the names of its 1,000 classes."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from featstore.catalog import Backbone
from featstore.errors import InputError, from_os_error
from featstore.folders import cache_folder, is_offline
from featstore.progress import Progress, silent
from featstore.weights.files import file_hash, read_npz
from featstore.weights.keras_io import architecture, first_line, float32_policy, import_keras, load_own, set_tensors
from featstore.weights.own import inspect
from featstore.weights.package_index import Wheel, download, take
from featstore.weights.published import Unavailable

CLASSES = 1_000
"""The classes of ILSVRC 2012, which every network of keras.applications was trained on."""

_KERAS_NAMES = ("imagenet_class_index.json", "c2c37ea517e94d9795004a39431a14cb")
"""Keras's own list of the names in its cache, and the MD5 that Keras publishes of it."""

_NAMES_WHEEL = Wheel("timm==1.0.31", 2_600_000, "5bd50f7d0fe6d09bf9285ac2523234a1b7e6bf075c0be3e7aed09139fcb617c7")
"""A package (Apache-2.0) that carries the list of classes in their usual order, and the words for each."""

_SYNSETS, _LEMMAS = "timm/data/_info/imagenet_synsets.txt", "timm/data/_info/imagenet_synset_to_lemma.txt"


def full_model(backbone: Backbone, weights: str = "imagenet") -> Any:
    """The ``keras.Model`` from preprocessed images (N, size, size, 3) to probabilities (N, 1000).

    weights : "imagenet" (Keras's cache or download), "random:SEED", or the file of a whole model's weights (``.h5``,
        ``.weights.h5``, ``.npz``, or the model as a ``.keras`` file, which must carry no code).
    Raises InputError if they cannot be had or do not fit.
    """
    size = (backbone.default_size, backbone.default_size)
    if weights == "imagenet":
        return _imagenet(backbone)
    if seed := re.fullmatch(r"random(?::(\d{1,9}))?", weights):
        import_keras().utils.set_random_seed(int(seed[1] or 0))
        return architecture(backbone, size, top=True)
    model, path = architecture(backbone, size, top=True), Path(weights).expanduser()
    if not path.is_file():
        raise InputError("there is no such file of weights", where="--weights", received=weights)
    if path.suffix in (".npz", ".keras"):
        set_tensors(model, _tensors(path), path)
        return model
    try:
        with float32_policy():
            model.load_weights(path)
    except Exception as error:  # a foreign file can make Keras raise anything
        raise InputError(
            f"these are not the weights of the whole {backbone.name}",
            where=path,
            expected=f"{len(model.weights)} tensors, the top with its {CLASSES} classes among them",
            received=first_line(error),
            todo="save them from a model that was made with include_top=True",
        ) from error
    return model


def class_names(progress: Progress = silent) -> tuple[str, ...] | None:
    """The names of the 1,000 classes in their order: from our cache, Keras's, or the package index; None if from none.

    Raises NoSpaceError and its kin for the disk's faults.
    """
    kept = cache_folder() / "imagenet_class_names.json"
    for read in (_from_ours, _from_keras):
        try:
            return read(kept)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    if is_offline():
        return None
    try:
        with tempfile.TemporaryDirectory(prefix="featstore-", ignore_cleanup_errors=True) as folder:
            wheel = download(_NAMES_WHEEL, Path(folder), "fetch the names of ImageNet's classes", progress)
            synsets, lemmas = (take(_NAMES_WHEEL, wheel, e).read_text(encoding="utf-8") for e in (_SYNSETS, _LEMMAS))
    except OSError as error:
        raise from_os_error(error, "unpack a package", tempfile.gettempdir()) from error
    except Unavailable:
        return None
    words = dict(line.split("\t", 1) for line in lemmas.splitlines() if "\t" in line)
    names = _checked([words[synset].split(",")[0].strip() for synset in synsets.split()])
    _keep(kept, names)
    return names


def _imagenet(backbone: Backbone) -> Any:
    keras = import_keras()
    problem = "the network: not tried, FEATSTORE_OFFLINE is set"
    if not is_offline():
        try:
            with float32_policy(), redirect_stdout(sys.stderr):  # where Keras's progress belongs
                return getattr(keras.applications, backbone.keras_name)(weights="imagenet")
        except Exception as error:  # Keras raises whatever its download raises
            problem = f"Keras's cache and download: {first_line(error)}"
    raise InputError(
        f"the ImageNet weights of the whole {backbone.name}, with its top, cannot be had here",
        where="--weights imagenet",
        received=problem,
        todo="give a file of them with --weights PATH: on a machine with a network, "
        f"keras.applications.{backbone.keras_name}().save_weights('{backbone.name}.weights.h5')",
    )


def _tensors(path: Path) -> list[Any]:
    if path.suffix == ".keras":
        inspect(path)
        return list(load_own(path).get_weights())
    try:
        return read_npz(path)
    except (OSError, ValueError) as error:
        raise InputError("these weights cannot be read", where=path, received=error) from error


def _from_ours(kept: Path) -> tuple[str, ...]:
    return _checked(json.loads(kept.read_text(encoding="utf-8")))


def _from_keras(_: Path) -> tuple[str, ...]:
    name, published = _KERAS_NAMES
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras").expanduser()
    path = home / "models" / name
    if file_hash(path, "md5") != published:
        raise ValueError("not Keras's list")
    index = json.loads(path.read_text(encoding="utf-8"))
    return _checked([index[str(i)][1].replace("_", " ") for i in range(CLASSES)])


def _checked(names: list[str]) -> tuple[str, ...]:
    if len(names) != CLASSES or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"not the names of {CLASSES} classes")
    return tuple(names)


def _keep(path: Path, names: tuple[str, ...]) -> None:
    """Keep the names for the next time if that is possible."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(names), encoding="utf-8")
        temporary.replace(path)
    except OSError:  # read-only or full: they were only to be quicker next time
        temporary.unlink(missing_ok=True)
