"""The names of ImageNet's 1,000 classes, in the order of a classifier's outputs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from featstore.catalog import IMAGENET_CLASSES
from featstore.errors import FeatstoreError, from_os_error
from featstore.folders import cache_folder, is_offline
from featstore.progress import Progress, silent
from featstore.weights import package_index, published
from featstore.weights.cache import write_file
from featstore.weights.published import Unavailable


@dataclass(frozen=True, slots=True)
class _Index:
    """Keras's list of the names (``keras.applications.imagenet_utils``), as a file that it publishes."""

    name: str = "ImageNet's"
    weights_file: str = "imagenet_class_index.json"
    weights_url: str = "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json"
    weights_hash: str = "c2c37ea517e94d9795004a39431a14cb"


INDEX = _Index()

WHEEL = package_index.Wheel(
    "timm==1.0.31", 2_798_714, "5bd50f7d0fe6d09bf9285ac2523234a1b7e6bf075c0be3e7aed09139fcb617c7"
)
"""A package (Apache-2.0) that carries the list of classes in their usual order, and the words for each."""

_SYNSETS, _LEMMAS = "timm/data/_info/imagenet_synsets.txt", "timm/data/_info/imagenet_synset_to_lemma.txt"


def class_names(progress: Progress = silent) -> tuple[str, ...]:
    """The names: from our cache, Keras's cache or download, or the package index.

    Raises Unavailable, which tells what was tried, or NoSpaceError and its kin for the disk's faults.
    """
    kept = cache_folder() / "imagenet_class_names.json"
    with suppress(OSError, ValueError):
        return _checked(json.loads(kept.read_text(encoding="utf-8")))
    names = _first_found(progress)
    with suppress(FeatstoreError):  # a cache that cannot be written only costs the next run a little time
        write_file(kept, lambda file: file.write(json.dumps(names).encode()))
    return names


def _first_found(progress: Progress) -> tuple[str, ...]:
    sources: list[Callable[[], tuple[str, ...]]] = [lambda: _from_keras(published.from_keras_cache(INDEX))]
    if not is_offline():
        sources += [
            lambda: _from_keras(published.download(INDEX, progress, "class names")),
            lambda: _from_package(progress),
        ]
    tried = []
    for get in sources:
        try:
            return get()
        except Unavailable as reason:
            tried.append(str(reason))
    if is_offline():
        tried.append("the network: not tried, FEATSTORE_OFFLINE is set")
    raise Unavailable("; ".join(tried))


def _from_keras(path: Path) -> tuple[str, ...]:
    index = json.loads(path.read_text(encoding="utf-8"))  # its hash was checked
    return _checked([index[str(number)][1].replace("_", " ") for number in range(IMAGENET_CLASSES)])


def _from_package(progress: Progress) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory(prefix="featstore-", ignore_cleanup_errors=True) as folder:
        try:
            wheel = package_index.download(WHEEL, Path(folder), "fetch the names of ImageNet's classes", progress)
            synsets, lemmas = (
                package_index.take(WHEEL, wheel, entry).read_text(encoding="utf-8") for entry in (_SYNSETS, _LEMMAS)
            )
        except OSError as error:
            raise from_os_error(error, "unpack a package of class names", folder) from error
    words = dict(line.split("\t", 1) for line in lemmas.splitlines())
    return _checked([words[synset].split(",")[0].strip() for synset in synsets.split()])


def _checked(names: object) -> tuple[str, ...]:
    found = [name for name in names if isinstance(name, str) and name] if isinstance(names, list) else []
    if len(found) != IMAGENET_CLASSES:
        raise ValueError(f"not the names of {IMAGENET_CLASSES} classes")
    return tuple(found)
