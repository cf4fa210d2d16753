"""What a whole ImageNet classifier sees in pictures: the quickest look at them, and a check of the preprocessing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore import catalog
from featstore.backbone import preprocess
from featstore.catalog import IMAGENET_CLASSES
from featstore.dataset import Dataset
from featstore.errors import InputError
from featstore.extraction.reader import Picture, in_order, prepare
from featstore.progress import Progress, silent
from featstore.records import Reason
from featstore.spec import PixelSpec
from featstore.weights.class_names import INDEX, class_names
from featstore.weights.full import full_model
from featstore.weights.published import Unavailable, keras_file
from featstore.wording import printable

_BATCH = 16


@dataclass(frozen=True, slots=True)
class Guess:
    """A class: which output it is, its name (some of ImageNet's classes share one), and its probability."""

    index: int
    name: str
    probability: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What the classifier says of one image.

    classes : likeliest first; empty if the image was rejected, ``reason`` then says why.
    """

    path: str
    classes: tuple[Guess, ...]
    reason: Reason = Reason.OK

    def to_json(self) -> dict[str, Any]:
        """``{"path", "classes": [{"index", "name", "probability"}], "rejected": null or the reason's code}``."""
        rejected = self.reason.code if self.reason else None
        return {"path": printable(self.path), "classes": list(map(asdict, self.classes)), "rejected": rejected}


@dataclass(frozen=True, slots=True)
class Look:
    """What the classifier says of all images, in their order, and what a person should know of it."""

    backbone: str
    weights: str
    images: tuple[Seen, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """What ``top5 --json`` prints."""
        images = [seen.to_json() for seen in self.images]
        return {"backbone": self.backbone, "weights": self.weights, "images": images, "notes": list(self.notes)}


def top5(
    dataset: Dataset,
    backbone: str = "vgg16",
    weights: str = "imagenet",
    *,
    count: int = 5,
    progress: Progress = silent,
) -> Look:
    """The ``count`` likeliest of ImageNet's classes for every image of ``dataset``.

    Images are decoded, resized and preprocessed as extraction does it at the network's own size.
    weights : as in :func:`featstore.weights.full.full_model`. Classes whose names cannot be had are called "class 17".
    Raises InputError for an unknown backbone, or weights that cannot be had or do not fit.
    """
    if catalog.is_own_model(backbone):
        raise InputError(
            "a whole network is told by its name",
            where="--backbone",
            expected="the name of its architecture, such as mobilenetv2",
            received=printable(backbone),
            todo="give that to --backbone, and this file to --weights",
        )
    known = catalog.find(backbone)
    model = full_model(known, weights, progress)
    names, notes = _names(model.output_shape[-1], progress)
    if weights.startswith("random"):
        notes += ("these weights were drawn at random: what they see means nothing",)
    found: dict[int, Seen] = {}
    with progress(f"look with {known.name}", len(dataset)) as advance:
        for indices, images in _batches(dataset, PixelSpec((known.default_size, known.default_size)), found):
            probabilities = np.asarray(model(preprocess(known, images), training=False))[: len(indices)]
            for index, row in zip(indices, probabilities, strict=True):
                best = np.argsort(-row, kind="stable")[:count]
                guesses = tuple(Guess(int(i), names[i], float(row[i])) for i in best)
                is_finite = bool(np.isfinite(row).all())
                reason = Reason.OK if is_finite else Reason.NOT_FINITE
                found[index] = Seen(dataset.paths[index], guesses if is_finite else (), reason)
            advance(len(indices))
    return Look(known.name, weights, tuple(found[index] for index in range(len(dataset))), notes)


def _names(classes: int, progress: Progress) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the classes, and notes: why they are numbers where they are."""
    numbers = tuple(f"class {i}" for i in range(classes))
    if classes != IMAGENET_CLASSES:
        return numbers, (f"this model has {classes} classes, not ImageNet's {IMAGENET_CLASSES}: they have no names",)
    try:
        return class_names(progress), ()
    except Unavailable as tried:
        path = keras_file(INDEX)
        return numbers, (f"the classes have no names here: put {INDEX.weights_url} at {path} (tried: {tried})",)


def _batches(
    dataset: Dataset, pixels: PixelSpec, rejected: dict[int, Seen]
) -> Iterator[tuple[Sequence[int], npt.NDArray[np.float32]]]:
    """Indices and images float32 (16, H, W, 3) of 0 to 255, the last ones filled up; rejects go to ``rejected``."""
    waiting: list[tuple[int, npt.NDArray[np.uint8]]] = []
    picture = Picture(pixels)
    images = in_order(
        lambda index: prepare(dataset, index, lambda *_: frozenset({picture})),
        range(len(dataset)), workers=2, ahead=32,
    )  # fmt: skip
    for image in images:
        if image.rejected is not None:
            rejected[image.index] = Seen(dataset.paths[image.index], (), image.rejected.reason)
            continue
        waiting.append((image.index, image.pixels[picture]))
        if len(waiting) == _BATCH:
            yield _stacked(waiting)
            waiting = []
    if waiting:
        yield _stacked(waiting)


def _stacked(waiting: Sequence[tuple[int, npt.NDArray[np.uint8]]]) -> tuple[Sequence[int], npt.NDArray[np.float32]]:
    images = np.zeros((_BATCH, *waiting[0][1].shape), np.float32)
    for place, (_, pixels) in enumerate(waiting):
        images[place] = pixels
    return [index for index, _ in waiting], images
