"""What only reading the images shows: copies across splits and labels, classes without a usable image."""

from __future__ import annotations

import numpy as np

from featstore.dataset import Dataset, missing_classes
from featstore.extraction import Extraction
from featstore.records import SPLITS


def reading_notes(dataset: Dataset, done: Extraction) -> tuple[str, ...]:
    """What only reading the images shows: copies across splits and labels, classes without a usable image."""
    return _copies(dataset, done) + _unusable(dataset, done)


def _copies(dataset: Dataset, done: Extraction) -> tuple[str, ...]:
    splits = dataset.split_of(done.digests)
    keys = [digest.tobytes() for digest in done.digests]
    train = {key for key, split in zip(keys, splits, strict=True) if split == 0}
    notes = []
    for code in (1, 2):
        copies = sum(split == code and key in train for key, split in zip(keys, splits, strict=True))
        if copies:
            notes.append(f"{copies} of the {SPLITS[code]} images are copies of train images: that score flatters")
    labels: dict[bytes, set[int]] = {}
    for key, label in zip(keys, dataset.labels.tolist(), strict=True):
        if label >= 0:
            labels.setdefault(key, set()).add(label)
    if doubtful := sum(len(found) > 1 for found in labels.values()):
        notes.append(f"images that stand in several classes at once: {doubtful}")
    return tuple(notes)


def _unusable(dataset: Dataset, done: Extraction) -> tuple[str, ...]:
    if not (dataset.splits < 0).any() and not (done.reasons > 0).any():
        return ()  # all was said when the dataset was opened
    usable = (done.reasons == 0).any(axis=0) & (dataset.labels >= 0)
    present, labels = np.unique(dataset.labels[usable], return_inverse=True)
    gone = [name for i, name in enumerate(dataset.classes) if i not in present]
    lost = tuple(f"no image of {name!r} could be used: it is not a class of the heads" for name in gone)
    classes = [dataset.classes[i] for i in present]
    return lost + missing_classes(classes, labels, dataset.split_of(done.digests)[usable])
