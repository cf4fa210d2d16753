"""The splits of a dataset as a network sees them: images that can be read, and the columns of their classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from featstore.dataset import Dataset, require_decodable, require_trainable
from featstore.dataset.listing import some
from featstore.errors import InputError
from featstore.progress import Progress, silent
from featstore.records import SPLITS, Digests
from featstore.wording import counted
from heads.bundles.card import rows_digest
from heads.kinds.head import Labels
from heads.live.batches import Pictures


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """Indices of labelled images that can be decoded, by split: ``train``, ``held_out`` (validation) and ``test``.

    digests : of all images of the dataset, uint8 (N, 32). labels : each column's class as an index into its classes:
    those that have training images; others are in none of the splits. notes : which images were left out, and why.
    """

    dataset: Dataset
    digests: Digests
    labels: Labels
    train: Labels
    held_out: Labels
    test: Labels
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, dataset: Dataset, pictures: Pictures, progress: Progress = silent) -> Splits:
        """Look at every file; raises InputError if there are too few images to train or to judge on."""
        require_trainable(dataset)
        digests, readable = pictures.look_at_all(progress)
        splits = dataset.split_of(digests)
        require_decodable(dataset, readable)
        labelled = dataset.labels >= 0
        usable = readable & labelled
        train, *others = (np.flatnonzero(usable & (splits == SPLITS.index(name))) for name in SPLITS[:3])
        require_trainable(dataset.select(train), splits[train])
        labels = np.unique(dataset.labels[train])
        held_out, test = (indices[np.isin(dataset.labels[indices], labels)] for indices in others)
        require_held_out(dataset.select(held_out), splits[held_out])
        notes = tuple(_left_out(dataset, labelled & ~readable, [*zip(SPLITS[1:], others, strict=False)], labels))
        return cls(dataset, digests, labels, train, held_out, test, notes)

    def without(self, bad: Labels) -> Splits:
        """Without these images, indices into the dataset."""
        parts = (self.train, self.held_out, self.test)
        train, held_out, test = (indices[~np.isin(indices, bad)] for indices in parts)
        notes = (*self.notes, *([f"left out: {counted(len(bad), 'image')} without features"] if len(bad) else []))
        return replace(self, train=train, held_out=held_out, test=test, notes=notes)

    def columns(self, indices: Labels) -> Labels:
        """The columns of these images' classes, int64 (n,)."""
        return np.searchsorted(self.labels, self.dataset.labels[indices])

    @property
    def rows_digest(self) -> str:
        """Of the training images, as a bundle's card has it."""
        names = [self.dataset.classes[label] for label in self.dataset.labels[self.train]]
        return rows_digest(self.digests[self.train], names)


def _left_out(
    dataset: Dataset, broken: npt.NDArray[np.bool_], others: Sequence[tuple[str, Labels]], labels: Labels
) -> Iterator[str]:
    if broken.any():
        yield f"left out: {counted(int(broken.sum()), 'image')} that cannot be decoded (featstore extract lists them)"
    for split, indices in others:
        found = dataset.labels[indices]
        strange = found[~np.isin(found, labels)]
        if len(strange):
            names = some(dataset.classes[label] for label in np.unique(strange).tolist())
            yield f"left out: {counted(len(strange), f'{split} image')} of {names}: train has none of it"


def require_held_out(dataset: Dataset, splits: npt.NDArray[np.int8]) -> None:
    """Raise InputError if there are no labelled validation images; ``splits`` int8 (N,) are those of all images."""
    if not ((splits == SPLITS.index("validation")) & (dataset.labels >= 0)).any():
        raise InputError(
            "a network needs validation images to be judged on",
            where=dataset.source.location,
            expected="a validation split, or no splits at all: then they are made",
            todo="move some images of each class from train to validation",
        )
