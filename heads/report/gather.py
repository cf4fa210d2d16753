"""From results to what a report shows: plain numbers, still without words, colours and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featstore.table import Table
from heads.bundles.images import JudgedImages
from heads.evaluation.plane import MAP_POINTS, in_the_plane, points_of
from heads.evaluation.reliability import Reliability
from heads.kinds.head import Labels, softmax
from heads.training.results import Result

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class RocLine:
    """One class against the rest: false and true positive rates, float64 (T,), and the area under them."""

    name: str
    auc: float
    false_positives: _Floats
    true_positives: _Floats


@dataclass(frozen=True, slots=True)
class Mistake:
    """A held-out image that was called wrongly: its file, its class, and the likeliest classes with probabilities."""

    path: str
    truth: str
    of_truth: float
    said: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, eq=False)
class FeatureMap:
    """N images in the plane, so that neighbours have like features.

    places : float64 (N, 2); y : int64 (N,), their classes; wrong : bool (N,), held out and called wrongly.
    total : the images that these were drawn from.
    """

    places: _Floats
    y: Labels
    wrong: npt.NDArray[np.bool_]
    total: int


def reliability(result: Result) -> tuple[Reliability, Reliability | None]:
    """After calibration, and before; None for the latter if calibration changed nothing."""
    answers = result.answers
    plain = softmax(result.choice.logits)
    columns = result.probabilities[:, result.choice.labels]
    after = Reliability.of(result.probabilities.max(axis=1), result.probabilities.argmax(axis=1) == answers)
    if np.allclose(plain, columns, atol=1e-9):
        return after, None
    return after, Reliability.of(plain.max(axis=1), result.choice.labels[plain.argmax(axis=1)] == answers)


def roc_lines(result: Result, classes: Sequence[str], most: int = 5) -> tuple[RocLine, ...]:
    """The ROC curve of the second of two classes; of more, their mean and then up to ``most`` classes, weakest first.

    A class without a held-out image, or with nothing else, has no curve. No curve at all: an empty tuple.
    """
    from sklearn.metrics import auc, roc_curve

    lines = []
    for column in [1] if len(classes) == 2 else range(len(classes)):
        positive = result.answers == column
        if positive.any() and not positive.all():
            false, true, _ = roc_curve(positive, result.probabilities[:, column])
            lines.append(RocLine(classes[column], float(auc(false, true)), false, true))
    if len(classes) == 2 or not lines:
        return tuple(lines)
    grid = np.linspace(0, 1, 201)
    mean = np.mean([np.interp(grid, line.false_positives, line.true_positives) for line in lines], axis=0)
    mean[0] = 0.0
    mean_auc = float(np.mean([line.auc for line in lines]))
    average = RocLine(f"mean of {len(lines)} classes", mean_auc, grid, np.asarray(mean, np.float64))
    return (average, *sorted(lines, key=lambda line: line.auc)[:most])


def most_confused(confusion: Sequence[Sequence[int]], most: int) -> list[int]:
    """Up to ``most`` classes in their own order: those of the commonest mistakes, and then the first ones."""
    pairs = confusions(confusion, most * most)
    names = dict.fromkeys([*(name for truth, said, _ in pairs for name in (truth, said)), *range(len(confusion))])
    return sorted(list(names)[:most])


def confusions(matrix: Sequence[Sequence[int]], most: int) -> list[tuple[int, int, int]]:
    """The up to ``most`` commonest mistakes: (class, what it was called, images), the commonest first."""
    counts = np.array(matrix, np.int64)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:most]
    cells = [(int(cell) // len(counts), int(cell) % len(counts)) for cell in order]
    return [(truth, said, int(counts[truth, said])) for truth, said in cells if counts[truth, said]]


def worst_mistakes(result: Result, classes: Sequence[str], most: int) -> tuple[Mistake, ...]:
    """The up to ``most`` wrongly called held-out images whose right class was thought the least likely, worst first."""
    probabilities, answers = result.probabilities, result.answers
    judged = JudgedImages.of(result.digests, answers, probabilities)
    return tuple(
        Mistake(
            path=result.paths[row],
            truth=classes[answers[row]],
            of_truth=float(probabilities[row, answers[row]]),
            said=tuple((classes[i], float(probabilities[row, i])) for i in np.argsort(-probabilities[row])[:2]),
        )
        for row in judged.worst(most)
    )


def feature_map(
    tables: Mapping[str, Table], result: Result, *, seed: int = 0, most: int = MAP_POINTS
) -> FeatureMap | None:
    """The labelled train and validation images on a map: t-SNE on principal components; None if there is too little.

    The test images are not looked at. More images than ``most`` are drawn at random by ``seed``.
    """
    chosen = [tables[split] for split in ("train", "validation") if split in tables]
    owners = np.concatenate([np.full(len(table), place) for place, table in enumerate(chosen)])
    rows = np.concatenate([np.arange(len(table)) for table in chosen])
    known = np.flatnonzero(np.concatenate([table.y for table in chosen]) >= 0)
    count = points_of(len(known), chosen[0].X.shape[1], most)
    if not count:
        return None
    drawn = np.sort(np.random.default_rng(seed).permutation(known)[:count])
    parts = [rows[drawn[owners[drawn] == place]] for place in range(len(chosen))]
    X = np.concatenate([table.X[part] for table, part in zip(chosen, parts, strict=True)])
    places = in_the_plane(X, seed)
    if places is None:
        return None
    missed = result.probabilities.argmax(axis=1) != result.answers
    wrong = {path for path, is_missed in zip(result.paths, missed, strict=True) if is_missed}
    judged = "validation" if result.choice.on == "validation" else "train"
    return FeatureMap(
        places=places,
        y=np.concatenate([table.y[part] for table, part in zip(chosen, parts, strict=True)]),
        wrong=np.array(
            [
                table.split == judged and table.paths[row] in wrong
                for table, part in zip(chosen, parts, strict=True)
                for row in part
            ]
        ),
        total=len(known),
    )
