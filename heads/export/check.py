"""What an exported model must say: the bundle's own probabilities of the same pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from featstore.backbone import GraphSpec
from featstore.cached import pool
from featstore.dataset import Dataset
from featstore.errors import InputError
from featstore.extraction.reader import Picture, prepare
from featstore.job import Job
from featstore.runtime import BATCH_SIZE, open_runtime
from heads.bundles.bundle import Bundle
from heads.export.formats import Images, Predict
from heads.export.model import ImageInput, float32_graph

MOST_IMAGES = 64
"""Images of a dataset that a model is checked on, evenly spaced."""

_CELLS = (1, 2, 3, 4, 8, 16, 64, 512)
"""Coloured cells along each side of the pictures that are drawn: from one colour to noise."""

_CHUNK = 5
"""Images a call: another number than featstore's own batch, so that it is seen to be free."""


def drawn_pictures(inputs: Sequence[ImageInput], seed: int = 0) -> Images:
    """Eight pictures of coloured cells, the same ones at the size of each input."""
    random = np.random.default_rng(seed)
    cells = [random.integers(0, 256, (count, count, 3), dtype=np.uint8) for count in _CELLS]
    return {
        one.name: np.stack([c[_places(one, 0, len(c))[:, None], _places(one, 1, len(c))] for c in cells])
        for one in inputs
    }


def real_pictures(inputs: Sequence[ImageInput], dataset: Dataset) -> Images:
    """Up to MOST_IMAGES images of ``dataset`` as each input takes them; raises InputError if none can be read."""
    wanted = frozenset(Picture(one.pixels) for one in inputs)
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), MOST_IMAGES)).astype(int)).tolist()
    read = [prepare(dataset, index, lambda *_: wanted).pixels for index in chosen]
    good = [pixels for pixels in read if pixels]
    if not good:
        raise InputError("none of these images can be read", where="--check", received=dataset.name)
    return {one.name: np.stack([pixels[Picture(one.pixels)] for pixels in good]) for one in inputs}


def exported_probabilities(predict: Predict, images: Images) -> npt.NDArray[np.float64]:
    """Probabilities (N, K) by the exported model."""
    starts = range(0, count(images), _CHUNK)
    parts = [predict({name: pixels[i : i + _CHUNK] for name, pixels in images.items()}) for i in starts]
    return np.concatenate(parts).astype(np.float64)


def own_probabilities(
    bundle: Bundle, jobs: Sequence[Job], inputs: Sequence[ImageInput], images: Images, *, as_stored: bool
) -> npt.NDArray[np.float64]:
    """Probabilities (N, K) by featstore's own code: at float32, or at the precision and dtype that are stored.

    Raises InputError if this machine cannot compute in that precision.
    """
    blocks = []
    for place, job in enumerate(jobs):
        [pixels] = [images[one.name] for one in inputs if place in one.feeds]
        spec = job.spec
        graph = GraphSpec.of(job.base, spec) if as_stored else float32_graph(spec, job.base)
        runtime = open_runtime(graph, job.runtime, job.device)
        features = np.concatenate([runtime(pixels[i : i + BATCH_SIZE]) for i in range(0, len(pixels), BATCH_SIZE)])
        rows = pool(features, "flatten") if graph.pooling == "map" else features
        blocks.append(rows.astype(spec.dtype).astype(np.float32) if as_stored else rows)
    return bundle.probabilities(np.concatenate(blocks, axis=1))


def count(images: Images) -> int:
    """N, the number of pictures."""
    return len(next(iter(images.values())))


def _places(one: ImageInput, axis: int, cells: int) -> npt.NDArray[np.int64]:
    size = one.pixels.image_size[axis]
    return np.arange(size) * min(cells, size) // size
