"""Use bundles on files: from what was named on the command line to predictions."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from featstore.dataset import Dataset, open_dataset
from featstore.dataset.listing import natural_key
from featstore.errors import InputError
from featstore.features import Features, features_of
from featstore.job import Job, job_for
from featstore.progress import Progress, silent
from featstore.store import Store
from featstore.wording import printable
from heads.bundles.bundle import Bundle, read_bundle
from heads.predict import Prediction, predict

_WHOLE = (".zip", ".csv", ".tsv")
"""Endings of files that hold or list images."""

_MOST_SAID = 50


def predict_files(
    bundle_folder: Path, images: Sequence[Path], *, store: Store, progress: Progress = silent
) -> tuple[Prediction, ...]:
    """Predict image files, and the images in folders, zips and manifests, with the head in ``bundle_folder``.

    A name that is no file but a pattern (``photos/**/*.jpg``) stands for what it matches. Files named one by one come
    first, then those of each folder, zip or manifest.
    Raises InputError for a bundle or an image that cannot be found, or if the weights here are not the bundle's.
    """
    return predict_with(read_bundle(bundle_folder), images, store=store, progress=progress)


def predict_with(
    bundle: Bundle, images: Sequence[Path], *, store: Store, progress: Progress = silent
) -> tuple[Prediction, ...]:
    """:func:`predict_files` with a bundle that was read already."""
    jobs = jobs_of(bundle, progress)
    specs = tuple(job.spec for job in jobs)
    predictions: list[Prediction] = []
    for prefix, dataset in datasets_of(images):
        features = joined_features(dataset, jobs, store, progress)
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


def datasets_of(images: Sequence[Path]) -> Iterator[tuple[Path, Dataset]]:
    """The files among ``images`` as one dataset, then one for each folder, zip and manifest, with where it is.

    Raises InputError with everything that is not there.
    """
    named = _expanded(images)
    holds_images = [path.suffix.lower() in _WHOLE or path.is_dir() for path in named]
    if files := [path for path, is_whole in zip(named, holds_images, strict=True) if not is_whole]:
        yield Path(), open_dataset(files)
    for path in (path for path, is_whole in zip(named, holds_images, strict=True) if is_whole):
        yield path, open_dataset(path)


def _expanded(images: Sequence[Path]) -> list[Path]:
    """What is there, patterns replaced by what they match; raises InputError with everything that is not there."""
    found: list[Path] = []
    missing: list[str] = []
    for image in images:
        matches = [image] if os.path.exists(image) else _matches(image)
        found += matches
        if not matches:
            missing.append(printable(str(image)))
    if missing or not found:
        more = f" and {len(missing) - _MOST_SAID} more" if len(missing) > _MOST_SAID else ""
        raise InputError(
            f"{'this' if len(missing) == 1 else 'these'} cannot be found" if missing else "no image was named",
            where="IMAGES",
            expected="image files, folders, zips, manifests, or patterns such as 'photos/**/*.jpg'",
            received=", ".join(missing[:_MOST_SAID]) + more if missing else "nothing",
        )
    return found


def _matches(pattern: Path) -> list[Path]:
    """What a pattern matches, in natural order. With ``**`` only files: their folders would bring them once more."""
    text = os.path.expanduser(pattern)
    is_wanted = os.path.isfile if "**" in text else os.path.exists  # a link may lead nowhere
    return [Path(path) for path in sorted(filter(is_wanted, glob.glob(text, recursive=True)), key=natural_key)]
