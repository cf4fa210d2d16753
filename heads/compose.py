"""The composers: from a dataset to trained heads, from image files to predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

import featstore
from featstore.cached import CachedRows
from featstore.dataset import Dataset, missing_classes, open_dataset, require_trainable
from featstore.extraction import Extraction
from featstore.features import features_of
from featstore.job import Request, job_for
from featstore.progress import Progress, silent
from featstore.records import SPLITS
from featstore.store import Store
from featstore.table import read_tables
from featstore.weights import Base
from heads.bundle import read_bundle
from heads.card import Origin
from heads.catalog import find
from heads.predict import Prediction, predict
from heads.train import TrainingSet, TrainReport, train


def train_on(
    dataset: Dataset,
    requests: Sequence[Request],
    heads: Sequence[str],
    *,
    store: Store,
    bundles: Path | None,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[Extraction, TrainReport]:
    """Extract what the store lacks of ``dataset``, then train each of the ``heads`` on each backbone's table.

    Raises InputError before any work for an unknown head or a dataset that nothing can be trained on, and what
    extraction and training raise.
    """
    for name in heads:
        find(name)
    require_trainable(dataset)
    done = featstore.extract(dataset, requests, store=store, progress=progress)
    usable = np.flatnonzero((done.reasons == 0).any(axis=0))
    require_trainable(dataset.select(usable), dataset.split_of(done.digests)[usable])
    sets = [
        TrainingSet(
            read_tables(dataset, done.digests, done.known, CachedRows(store, job.spec)),
            _origin(job.base),
        )
        for job in done.jobs
    ]
    return done, train(sets, heads, bundles=bundles, seed=seed, progress=progress)


def _origin(base: Base) -> Origin:
    """How to ask for the base again; an own base brings its weights with it."""
    return Origin(base.origin) if base.backbone.is_own else Origin(base.backbone.name, base.origin)


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
    if not (dataset.splits < 0).any() and not done.reasons.any():
        return ()  # all was said when the dataset was opened
    usable = (done.reasons == 0).any(axis=0) & (dataset.labels >= 0)
    present, labels = np.unique(dataset.labels[usable], return_inverse=True)
    gone = [name for i, name in enumerate(dataset.classes) if i not in present]
    lost = tuple(f"no image of {name!r} could be used: it is not a class of the heads" for name in gone)
    classes = [dataset.classes[i] for i in present]
    return lost + missing_classes(classes, labels, dataset.split_of(done.digests)[usable])


def predict_files(
    bundle_folder: Path, images: Sequence[Path], *, store: Store, progress: Progress = silent
) -> tuple[Prediction, ...]:
    """Predict image files, and the images in folders, zips and manifests, with the head in ``bundle_folder``.

    Raises InputError for a bundle or an image that cannot be found, or if the weights here are not the bundle's.
    """
    bundle = read_bundle(bundle_folder)
    origin = bundle.card.origin
    job = job_for(bundle.card.spec, origin.backbone, origin.weights, progress=progress)
    whole = [path for path in images if path.is_dir() or path.suffix.lower() in (".zip", ".csv", ".tsv")]
    files = [path for path in images if path not in whole]
    predictions: list[Prediction] = []
    named = [(Path(), open_dataset(files))] if files else []
    for prefix, dataset in [*named, *((path, open_dataset(path)) for path in whole)]:
        features = features_of(dataset, job, store, progress)
        predictions += predict(bundle, [str(prefix / path) for path in dataset.paths], features, job.spec)
    return tuple(predictions)
