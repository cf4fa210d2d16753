"""Use bundles on files: predictions of pictures, and scores on a labelled dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from featstore.dataset import Dataset, open_dataset
from featstore.features import Features, features_of
from featstore.job import Job, job_for
from featstore.progress import Progress, silent
from featstore.store import Store
from heads.bundles.bundle import Bundle, read_bundle
from heads.predict import Prediction, predict


def predict_files(
    bundle_folder: Path, images: Sequence[Path], *, store: Store, progress: Progress = silent
) -> tuple[Prediction, ...]:
    """Predict image files, and the images in folders, zips and manifests, with the head in ``bundle_folder``.

    Raises InputError for a bundle or an image that cannot be found, or if the weights here are not the bundle's.
    """
    bundle = read_bundle(bundle_folder)
    jobs = jobs_of(bundle, progress)
    whole = [path for path in images if path.is_dir() or path.suffix.lower() in (".zip", ".csv", ".tsv")]
    files = [path for path in images if path not in whole]
    predictions: list[Prediction] = []
    named = [(Path(), open_dataset(files))] if files else []
    for prefix, dataset in [*named, *((path, open_dataset(path)) for path in whole)]:
        features = joined_features(dataset, jobs, store, progress)
        specs = tuple(job.spec for job in jobs)
        predictions += predict(bundle, [str(prefix / path) for path in dataset.paths], features, specs)
    return tuple(predictions)


def jobs_of(bundle: Bundle, progress: Progress = silent) -> tuple[Job, ...]:
    """The jobs that make the features of a bundle's head; raises InputError if the weights here are other ones."""
    pairs = zip(bundle.card.specs, bundle.card.origins, strict=True)
    return tuple(job_for(spec, origin.backbone, origin.weights, progress=progress) for spec, origin in pairs)


def joined_features(dataset: Dataset, jobs: Sequence[Job], store: Store, progress: Progress) -> Features:
    """The features of every job beside one another; an image that one of them rejects has none."""
    found = [features_of(dataset, job, store, progress) for job in jobs]
    if len(found) == 1:
        return found[0]
    reasons = tuple(
        next((reason for reason in several if reason), several[0])
        for several in zip(*(f.reasons for f in found), strict=True)
    )
    cached = np.logical_and.reduce([f.cached for f in found])
    return Features(np.concatenate([f.values for f in found], axis=1), reasons, cached)
