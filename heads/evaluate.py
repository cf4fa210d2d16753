"""Evaluate bundles on a labelled dataset: scores with intervals, what leaks into them, and which heads differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featstore.cached import CachedRows
from featstore.dataset import Dataset
from featstore.errors import InputError
from featstore.progress import Progress, silent
from featstore.records import SPLITS, Digests, Reason
from featstore.scan import digest_all
from featstore.spec import Spec
from featstore.store import Store
from featstore.table import StoredPart, StoredRows, Table
from featstore.wording import counted, printable
from heads.apply import jobs_of, joined_features
from heads.bundles.bundle import Bundle, read_bundle
from heads.evaluation.compare import compare
from heads.evaluation.evaluated import Evaluated, Evaluation, Seen
from heads.evaluation.leaks import THRESHOLD, find_leaks, unsearched
from heads.evaluation.metrics import Metrics, measure
from heads.kinds.head import Labels, Logits, softmax

ALL = "all"
"""In place of a split: every labelled image."""

_JUDGED = ("test", "validation")
"""What is evaluated where nothing is asked for: the first of these that is there, else all."""

_IN_MEMORY = 2**29
"""Bytes of fitted images' features up to which they are read once, and not for every look at them."""


@dataclass(frozen=True, slots=True, eq=False)
class _Answers:
    """What a head makes of M images, before it is known which of them every head can use.

    reasons : why it cannot use an image, M of them. logits : float64 (M, K), zeros where it cannot.
    seen : the images that it was fitted on, by row; searched : the fitted images that near ones were looked for among.
    missed : what is to be said of images for which none were looked for.
    """

    bundle: Bundle
    reasons: tuple[Reason, ...]
    logits: Logits
    seen: Mapping[int, Seen]
    searched: int
    missed: tuple[str, ...]


def evaluate_on(
    dataset: Dataset,
    bundles: Sequence[Path],
    *,
    split: str | None = None,
    store: Store,
    threshold: float = THRESHOLD,
    progress: Progress = silent,
) -> Evaluation:
    """Score the heads in the folders ``bundles`` on the same labelled images of ``dataset``, after extracting these.

    split : "train", "validation", "test" or :data:`ALL`; None is test where there is one, else validation, else all.
    Classes are matched by name; an image of a class that a head does not know is called wrongly by it.
    Raises InputError for a bundle that cannot be used here, and if there is no image to score it on.
    """
    heads = _read(bundles, dataset, progress)
    scan = digest_all(dataset, store.scan_folder, progress=progress)
    name, rows = _rows_of(dataset, scan.values, split)
    chosen, digests = dataset.select(rows), scan.values[rows]
    paths = _by_digest(dataset, scan.values, rows)
    found = {
        answers.bundle.path: answers
        for alike in _alike(heads)
        for answers in _answers(alike, chosen, digests, paths, store, threshold, progress)
    }
    answers = [found[head.path] for head in heads]
    usable = np.logical_and.reduce([_usable(given.reasons) for given in answers])
    if not usable.any():
        raise InputError("no image could be used", where=dataset.source.location, received=f"{len(rows)} rejected")
    results = tuple(_evaluated(given, chosen, usable) for given in answers)
    return Evaluation(
        dataset=dataset.name,
        split=name,
        was_asked=split is not None,
        by_content=bool((dataset.splits < 0).any()),
        images=int(usable.sum()),
        unlabelled=int((dataset.labels < 0).sum()),
        reasons=_why([given.reasons for given in answers]),
        threshold=threshold,
        results=results,
        comparisons=compare([result.bundle for result in results], np.stack([result.right for result in results])),
    )


def _read(bundles: Sequence[Path], dataset: Dataset, progress: Progress) -> Sequence[Bundle]:
    """The bundles, each once; raises InputError, before any work, for one that cannot be used on this dataset."""
    heads = [read_bundle(folder) for folder in dict.fromkeys(bundles)]
    if not heads:
        raise InputError("no bundle was named", where="BUNDLE", expected="at least one", received="none")
    for head in heads:
        jobs_of(head, progress)  # the weights are there, and the right ones
        _check_classes(head, dataset)
    return heads


def _why(reasons: Sequence[tuple[Reason, ...]]) -> Mapping[str, int]:
    """Images that one head or more cannot use, by the first reason."""
    first = [next((reason for reason in several if reason), Reason.OK) for several in zip(*reasons, strict=True)]
    return dict(Counter(reason.code for reason in first if reason))


def _rows_of(dataset: Dataset, digests: Digests, asked: str | None) -> tuple[str, npt.NDArray[np.intp]]:
    """The split to evaluate and its labelled images; raises InputError if there are none."""
    splits, labelled = dataset.split_of(digests), dataset.labels >= 0
    sizes = {name: int((labelled & (splits == code)).sum()) for code, name in enumerate(SPLITS[:3])}
    name = asked or next((name for name in _JUDGED if sizes[name]), ALL)
    chosen = labelled if name == ALL else labelled & (splits == SPLITS.index(name) if name in SPLITS else False)
    if not chosen.any():
        there = [f"{name} ({counted(size, 'image')})" for name, size in sizes.items() if size]
        raise InputError(
            f"there is no labelled image in the {name} split" if labelled.any() else "no image has a label",
            where=dataset.source.location,
            expected=f"--split {', '.join(there)} or {ALL}" if there else "class folders, or a manifest with labels",
            received=f"{len(dataset)} images ({dataset.layout})",
        )
    return name, np.flatnonzero(chosen)


def _by_digest(dataset: Dataset, digests: Digests, judged: npt.NDArray[np.intp]) -> Mapping[bytes, str]:
    """For every digest a file that a head may have been fitted on: one of train, else one that is not ``judged``."""
    train = np.flatnonzero(dataset.split_of(digests) == SPLITS.index("train"))
    others = np.setdiff1d(np.arange(len(dataset)), judged)
    return {digests[i].tobytes(): dataset.paths[i] for i in (*others, *train)}  # of equals the last stays


def _check_classes(bundle: Bundle, dataset: Dataset) -> None:
    known = bundle.card.classes
    if dataset.classes and not set(known) & set(dataset.classes):
        raise InputError(
            "the head knows none of the classes of this dataset",
            where=bundle.path,
            expected=", ".join(map(printable, known[:12])),
            received=", ".join(map(printable, dataset.classes[:12])),
            todo="name the folders, or the labels in the manifest, as they were named in training",
        )


def _alike(heads: Sequence[Bundle]) -> Iterable[Sequence[Bundle]]:
    """The heads that take the same features and were fitted on the same images: these are read once."""
    groups: dict[tuple[tuple[Spec, ...], bytes], list[Bundle]] = {}
    for head in heads:
        groups.setdefault((head.card.specs, head.fitted.digests.tobytes()), []).append(head)
    return groups.values()


def _answers(
    heads: Sequence[Bundle], chosen: Dataset, digests: Digests, paths: Mapping[bytes, str], store: Store,
    threshold: float, progress: Progress,
) -> Iterator[_Answers]:  # fmt: skip
    first = heads[0]
    features = joined_features(chosen, jobs_of(first, progress), store, progress)
    usable = _usable(features.reasons)
    fitted = {digest.tobytes() for digest in first.fitted.digests}
    seen = {
        row: Seen(chosen.paths[row], paths.get(key), 1.0, exact=True)
        for row, key in enumerate(digest.tobytes() for digest in digests)
        if usable[row] and key in fitted
    }
    rest = np.array([row for row in np.flatnonzero(usable) if row not in seen], np.intp)
    train = _fitted_table(first, store)
    judged = _table(first, features.values[rest], digests[rest], list(map(str, rest.tolist())))
    for row, (key, cosine) in _near(train, judged, threshold, progress).items():
        seen[row] = Seen(chosen.paths[row], paths.get(key), cosine, exact=False)
    missed = tuple(unsearched({"train": train, "test": judged}))
    for head in heads:
        logits = np.zeros((len(chosen), len(head.card.classes)))
        if usable.any():
            logits[usable] = head.head.logits(features.values[usable])
        yield _Answers(head, features.reasons, logits, seen, len(train), missed)


def _usable(reasons: tuple[Reason, ...]) -> npt.NDArray[np.bool_]:
    return np.array([reason is Reason.OK for reason in reasons], bool)


def _fitted_table(bundle: Bundle, store: Store) -> Table:
    """The images that the head was fitted on and whose features the store holds, named by digest."""
    rows = [CachedRows(store, spec) for spec in bundle.card.specs]
    digests = bundle.fitted.digests
    digests = digests[np.logical_and.reduce([cached.lookup(digests) == 0 for cached in rows])]
    X: StoredRows | npt.NDArray[np.floating] = np.zeros((0, bundle.head.width))
    if len(digests):
        X = StoredRows([StoredPart.images(cached, digests) for cached in rows])
        X = X[:] if X.nbytes <= _IN_MEMORY else X
    return _table(bundle, X, digests, [digest.tobytes().hex() for digest in digests])


def _table(bundle: Bundle, X: StoredRows | npt.NDArray[np.floating], digests: Digests, names: Sequence[str]) -> Table:
    named, y = tuple(names), np.full(len(names), -1, np.int64)
    views = np.zeros(len(names), np.uint16)
    return Table(X, y, named, named, (), digests, "", bundle.card.specs, bundle.card.widths, views)


def _near(train: Table, judged: Table, threshold: float, progress: Progress) -> Mapping[int, tuple[bytes, float]]:
    """For rows of ``judged``, named by number, that are nearly an image of ``train``: its digest, and the cosine."""
    if not len(train) or not len(judged):
        return {}
    found = find_leaks({"train": train, "test": judged}, threshold, progress)
    return {int(leak.path): (bytes.fromhex(leak.original), leak.cosine) for leak in found}


def _evaluated(given: _Answers, chosen: Dataset, usable: npt.NDArray[np.bool_]) -> Evaluated:
    card = given.bundle.card
    rows = np.flatnonzero(usable)
    classes, y = _matched(card.classes, chosen, rows)
    logits = given.logits[rows]
    probabilities = _widened(card.calibration.probabilities(logits), len(classes))
    seen = {row: given.seen[row] for row in rows.tolist() if row in given.seen}
    fresh = np.array([row not in seen for row in rows.tolist()])

    def scored(values: npt.NDArray[np.float64], which: npt.NDArray[np.bool_] | slice = slice(None)) -> Metrics:
        return measure(y[which], values[which], classes, seed=card.seed)

    known = len(card.classes)
    return Evaluated(
        bundle=str(given.bundle.path),
        chosen_on=card.chosen_on,
        strangers=tuple((classes[code], int((y == code).sum())) for code in range(known, len(classes))),
        metrics=scored(probabilities),
        uncalibrated=None if card.calibration.method == "none" else scored(_widened(softmax(logits), len(classes))),
        seen=tuple(seen.values()),
        without_seen=scored(probabilities, fresh) if seen and fresh.any() else None,
        fitted=len(given.bundle.fitted.digests),
        searched=given.searched,
        missed=given.missed,
        right=probabilities.argmax(axis=1) == y,
    )


def _matched(known: tuple[str, ...], chosen: Dataset, rows: npt.NDArray[np.intp]) -> tuple[tuple[str, ...], Labels]:
    """The head's classes and then those of these images that it does not know; the images' codes in that list."""
    labels = chosen.labels[rows]
    present = [chosen.classes[label] for label in np.unique(labels)]
    classes = (*known, *(name for name in present if name not in known))
    code = {name: i for i, name in enumerate(classes)}
    return classes, np.array([code[chosen.classes[label]] for label in labels], np.int64)


def _widened(probabilities: npt.NDArray[np.float64], classes: int) -> npt.NDArray[np.float64]:
    """Probabilities (N, K) with columns of zeros up to ``classes``."""
    return np.pad(probabilities, ((0, 0), (0, classes - probabilities.shape[1])))
