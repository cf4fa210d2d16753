"""What networks are trained on, batch by batch: pictures as they are decoded, or maps that the store holds.

Both give the same images in the same order and the same views, as pure functions of seed and epoch: so training goes on
after a kill as if nothing had happened, and training on stored maps can be held to training on the pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from featstore import machine
from featstore.augmentation import Policy, augment
from featstore.dataset import Dataset
from featstore.errors import DamageError
from featstore.extraction.reader import Picture, Prepared, in_order, prepare
from featstore.progress import Progress, silent
from featstore.records import DIGEST_BYTES, Digests
from featstore.spec import PixelSpec
from featstore.table import Table
from heads.kinds.head import Labels

_READ_AHEAD = 64
"""Pictures decoded before they are needed."""

_Batch = tuple[npt.NDArray[Any], Labels]


class Batches(Protocol):
    """N images, and what the network is given of them. ``y`` int64 (N,) are their columns, 0 to K - 1."""

    @property
    def y(self) -> Labels: ...  # noqa: D102
    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input, and with ``dtype`` all that TensorFlow must know of it."""
        ...

    @property
    def dtype(self) -> str: ...  # noqa: D102

    def read(self, rows: Labels, view: int, batch_size: int) -> Iterator[_Batch]:
        """View ``view`` of the images ``rows``, in that order: inputs (n, …) and columns int64 (n,), n a batch."""
        ...


@dataclass(frozen=True, slots=True)
class Views:
    """Which view of the training images an epoch sees: with ``fresh`` a new one every time, else one of ``count``."""

    count: int = 1
    fresh: bool = False

    def of(self, epoch: int) -> int:
        """The view of an epoch, counted from 0."""
        return epoch + 1 if self.fresh else epoch % self.count


def order_of(count: int, seed: int, epoch: int) -> Labels:
    """The order in which an epoch takes its images, int64 (N,)."""
    return np.random.default_rng([seed, epoch]).permutation(count)


class Pictures:
    """The pictures of a dataset, uint8 (H, W, 3), kept decoded where all of them fit into memory, if they may be.

    ``decoded`` counts those read from their files so far.
    """

    def __init__(self, dataset: Dataset, pixels: PixelSpec, *, keep: bool = True) -> None:
        self.shape = (*pixels.image_size, 3)
        self.decoded = 0
        self._dataset, self._picture = dataset, Picture(pixels)
        fits = keep and not machine.is_large(len(dataset) * int(np.prod(self.shape)))
        self._kept: dict[int, tuple[bytes, npt.NDArray[np.uint8]]] | None = {} if fits else None

    def look_at_all(self, progress: Progress = silent) -> tuple[Digests, npt.NDArray[np.bool_]]:
        """The digests of all N images, uint8 (N, 32), and bool (N,), which of them can be decoded."""
        digests, good = np.zeros((len(self._dataset), DIGEST_BYTES), np.uint8), np.zeros(len(self._dataset), bool)
        with progress("reading pictures", len(self._dataset)) as advance:
            for read in in_order(self._read, range(len(self._dataset)), workers=_cores(), ahead=_READ_AHEAD):
                advance(1)
                if read.digest is not None and read.rejected is None:
                    digests[read.index], good[read.index] = np.frombuffer(read.digest, np.uint8), True
        return digests, good

    def get(self, index: int) -> tuple[bytes, npt.NDArray[np.uint8]]:
        """Digest and pixels of one image; raises DamageError if it cannot be read any more."""
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        read = self._read(index)
        if read.rejected is not None or read.digest is None:
            raise DamageError(
                "an image cannot be read any more",
                where=self._dataset.paths[index],
                received=read.rejected,
                todo="mend or remove it, and run the same command again",
            )
        return read.digest, read.pixels[self._picture]

    def _read(self, index: int) -> Prepared:
        read = prepare(self._dataset, index, lambda *_: frozenset({self._picture}))
        self.decoded += 1
        if self._kept is not None and read.digest is not None and read.rejected is None:
            self._kept[index] = read.digest, read.pixels[self._picture]
        return read


class PictureBatches:
    """Some of the ``pictures``, by their ``indices`` in the dataset, and views of them by ``policy``."""

    dtype = "uint8"

    def __init__(self, pictures: Pictures, indices: Labels, y: Labels, policy: Policy | None = None) -> None:
        self.y = y
        self.shape = pictures.shape
        self._pictures, self._indices, self._policy = pictures, indices, policy

    def read(self, rows: Labels, view: int, batch_size: int) -> Iterator[_Batch]:
        """As :class:`Batches` says; decoding and augmentation run in threads."""
        made = in_order(partial(self._view, view=view), rows.tolist(), workers=_cores(), ahead=_READ_AHEAD)
        for start in range(0, len(rows), batch_size):
            chosen = rows[start : start + batch_size]
            yield np.stack([next(made) for _ in chosen]), self.y[chosen]

    def _view(self, row: int, view: int) -> npt.NDArray[np.uint8]:
        digest, plain = self._pictures.get(int(self._indices[row]))
        return plain if self._policy is None else augment(plain, self._policy, digest, view)


def _cores() -> int:
    return machine.describe().cores


class MapBatches:
    """Maps (H, W, C) that the store holds, of the images of a table and their views; the table may stay there.

    ``map_shape`` is what a row of the table was before it was flattened.
    """

    dtype = "float32"

    def __init__(self, table: Table, y: Labels, map_shape: tuple[int, ...]) -> None:
        self.y = y
        self.shape = map_shape
        self._X = table.X
        images = {table.paths[row]: place for place, row in enumerate(np.flatnonzero(table.views == 0))}
        place = np.array([images[path] for path in table.paths])
        self._rows = {int(view): _places(place, table.views == view) for view in np.unique(table.views)}

    def read(self, rows: Labels, view: int, batch_size: int) -> Iterator[_Batch]:
        """As :class:`Batches` says. An image without this view (it was rejected) gives the image itself."""
        here = self._rows[view]
        for start in range(0, len(rows), batch_size):
            chosen = rows[start : start + batch_size]
            wanted = np.array([here.get(int(row), self._rows[0][int(row)]) for row in chosen])
            yield np.asarray(self._X[wanted], np.float32).reshape(len(chosen), *self.shape), self.y[chosen]


def _places(place: Labels, of_view: npt.NDArray[np.bool_]) -> dict[int, int]:
    """The row of the table for each image that has this view."""
    return {int(place[row]): int(row) for row in np.flatnonzero(of_view)}
