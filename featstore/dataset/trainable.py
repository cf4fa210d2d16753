"""What a dataset must have to train a head on it, and what a person should know before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from featstore.dataset.dataset import BY_DIGEST, Dataset
from featstore.dataset.listing import some
from featstore.errors import InputError
from featstore.records import SPLITS
from featstore.wording import counted

_LABELLED_SPLITS = SPLITS[:3]


def missing_classes(
    classes: Sequence[str], labels: npt.NDArray[np.int64], splits: npt.NDArray[np.int8]
) -> tuple[str, ...]:
    """One sentence for the classes that train never sees, one for each split in use that lacks others.

    ``labels`` and ``splits`` are (N,) as in Dataset.

    Splits that are still open (:data:`BY_DIGEST`) may turn out any way, and silence the check: ask again when all are
    known.
    """
    if (splits == BY_DIGEST).any():
        return ()
    used = {name: set(labels[splits == index].tolist()) - {-1} for index, name in enumerate(_LABELLED_SPLITS)}
    strangers = _strangers(classes, used)
    sentences = []
    for where, names in strangers.items():
        verb, pronoun = ("is", "it") if len(names) == 1 else ("are", "them")
        sentences.append(f"{some(names)} {verb} seen only in {where}: no head can learn {pronoun}")
    said = {name for names in strangers.values() for name in names}
    for name, present in used.items():
        lacking = [label for index, label in enumerate(classes) if index not in present and label not in said]
        if present and lacking:
            sentences.append(f"{name} has no image of {some(lacking)}")
    return tuple(sentences)


def _strangers(classes: Sequence[str], used: Mapping[str, set[int]]) -> dict[str, list[str]]:
    """Classes that train never sees, by the splits that do ("test", "validation and test"); none if train is unused."""
    strangers: dict[str, list[str]] = {}
    for index, name in enumerate(classes if used["train"] else ()):
        where = " and ".join(split for split, present in used.items() if index in present)
        if where and index not in used["train"]:
            strangers.setdefault(where, []).append(name)
    return strangers


def require_decodable(dataset: Dataset, readable: npt.NDArray[np.bool_]) -> None:
    """Raise InputError if there are labelled images and none is ``readable``, bool (N,)."""
    labelled = dataset.labels >= 0
    if labelled.any() and not (labelled & readable).any():
        raise InputError(
            "none of the images can be decoded",
            where=dataset.source.location,
            received=counted(int(labelled.sum()), "broken image"),
            todo="featstore extract lists them, each with its reason",
        )


def require_trainable(dataset: Dataset, splits: npt.NDArray[np.int8] | None = None) -> None:
    """Raise one InputError with everything that makes training impossible.

    ``splits`` int8 (N,) are the splits once the digests are known (default: ``dataset.splits``, where an open one
    counts as train).
    """
    splits = dataset.splits if splits is None else splits
    labelled = dataset.labels >= 0
    in_train = labelled & np.isin(splits, (SPLITS.index("train"), BY_DIGEST))
    trained = set(dataset.labels[in_train].tolist())
    if len(trained) >= 2:
        return
    problems = []
    if not labelled.any():
        problems.append("no image has a label")
    elif len(dataset.classes) == 1:
        problems.append(f"there is one class only, {some(dataset.classes)}")
    elif not trained:
        problems.append("no labelled image is in the train split")
    else:
        problems.append(f"train has one class only, {some(dataset.classes[label] for label in trained)}")
    elsewhere = [name for index, name in enumerate(dataset.classes) if index not in trained]
    if trained and elsewhere:
        problems.append(f"seen only outside of train: {some(elsewhere)}")
    raise InputError(
        "nothing can be trained on this dataset",
        where=dataset.source.location,
        expected="images of at least two classes in train",
        received=f"{'; '.join(problems)} (read as {dataset.layout}, {len(dataset)} images)",
        todo="put each class into a folder of its own (train/cats, train/dogs), name files like cat.1.jpg, "
        "or list path and label in a CSV file",
    )
