"""What a whole ImageNet classifier sees in pictures: the quickest look at them, and a check of the preprocessing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore import catalog
from featstore.backbone import preprocess
from featstore.dataset import Dataset
from featstore.extraction.reader import in_order, prepare
from featstore.progress import Progress, silent
from featstore.records import Reason
from featstore.spec import PixelSpec
from featstore.weights.full import class_names, full_model
from featstore.wording import printable

_BATCH = 16


@dataclass(frozen=True, slots=True)
class Seen:
    """What the classifier says of one image.

    classes : names and probabilities, likeliest first; empty if the image was rejected, ``reason`` then says why.
    """

    path: str
    classes: tuple[tuple[str, float], ...]
    reason: Reason = Reason.OK

    def to_json(self) -> dict[str, Any]:
        """``{"path", "classes": [{"name", "probability"}], "rejected": null or the reason's code}``."""
        classes = [{"name": name, "probability": probability} for name, probability in self.classes]
        rejected = self.reason.code if self.reason else None
        return {"path": printable(self.path), "classes": classes, "rejected": rejected}


def top5(
    dataset: Dataset,
    backbone: str = "vgg16",
    weights: str = "imagenet",
    *,
    count: int = 5,
    progress: Progress = silent,
) -> tuple[Seen, ...]:
    """The ``count`` likeliest of ImageNet's classes for every image of ``dataset``, in its order.

    Images are decoded, resized and preprocessed as extraction does it at the network's own size.
    weights : as in :func:`featstore.weights.full.full_model`. Classes whose names cannot be had are called "class 17".
    Raises InputError for an unknown backbone, or weights that cannot be had or do not fit.
    """
    known = catalog.find(backbone)
    model = full_model(known, weights)
    names = class_names(progress) or tuple(f"class {i}" for i in range(model.output_shape[-1]))
    found: dict[int, Seen] = {}
    with progress(f"look with {known.name}", len(dataset)) as advance:
        for indices, images in _batches(dataset, PixelSpec((known.default_size, known.default_size)), found):
            probabilities = np.asarray(model(preprocess(known, images), training=False))[: len(indices)]
            for index, row in zip(indices, probabilities, strict=True):
                best = np.argsort(-row, kind="stable")[:count]
                found[index] = Seen(dataset.paths[index], tuple((names[i], float(row[i])) for i in best))
            advance(len(indices))
    return tuple(found[index] for index in range(len(dataset)))


def _batches(
    dataset: Dataset, pixels: PixelSpec, rejected: dict[int, Seen]
) -> Iterator[tuple[Sequence[int], npt.NDArray[np.float32]]]:
    """Indices and images float32 (16, H, W, 3) of 0 to 255, the last ones filled up; rejects go to ``rejected``."""
    waiting: list[tuple[int, npt.NDArray[np.uint8]]] = []
    images = in_order(
        lambda index: prepare(dataset, index, lambda _: frozenset({pixels})), range(len(dataset)), workers=2, ahead=32
    )
    for image in images:
        if image.rejected is not None:
            rejected[image.index] = Seen(dataset.paths[image.index], (), image.rejected.reason)
            continue
        waiting.append((image.index, image.pixels[pixels]))
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
