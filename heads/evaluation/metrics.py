"""How good are predictions, and how sure can one be of that: every number with its bootstrap interval.

The interval is the percentile bootstrap (Efron, 1979): the images are drawn again with replacement 1,000 times, and of
the 1,000 values the middle 95 % are given. Drawing is counting: a resample is how often each image occurs, so that all
resamples of most measures are one product of a matrix of counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError
from heads.evaluation.scores import CONFIDENCE, accuracy
from heads.kinds.head import Labels

RESAMPLES = 1_000
"""Bootstrap resamples."""

BINS = 15
"""Bins of equal width of the expected calibration error (Naeini et al., 2015; Guo et al., 2017)."""

LEAST = 1e-7
"""The least probability that the log loss counts: a sure error costs 16.1 nats, not infinitely many."""

_CHUNK_NUMBERS = 2**24
"""Counts held at a time: bounds the memory of the bootstrap."""

_FEW_POSITIVES, _MOST_PAIRS = 2048, 2**26
"""Positives up to which the area under a curve is quicker by pairs, and pairs that may be held at once (256 MiB)."""

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measure:
    """A number and the 95 % interval (low, high) that it is known within."""

    value: float
    interval: tuple[float, float]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measure:
        """The measure in ``{"value", "interval"}``; raises KeyError, TypeError or ValueError on anything else."""
        low, high = data["interval"]
        numbers = float(data["value"]), float(low), float(high)
        if not np.isfinite(numbers).all():
            raise ValueError(f"a measure that is not finite: {numbers}")
        return cls(numbers[0], numbers[1:])


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """One class: its images, precision, recall and F1 (0 to 1; 0 where there is nothing to divide by)."""

    name: str
    n: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a head's probabilities on ``n`` images are worth.

    balanced_accuracy : the mean recall of the classes that have an image here. macro_f1 : the mean F1 of the classes
        that have an image here or were predicted.
    log_loss : nats. brier : the mean over images of Σ (p - y)² over classes, 0 to 2 (Brier, 1950).
    ece : the mean distance of confidence and accuracy in 15 bins of the likeliest class's probability.
    roc_auc : of the second of two classes; of more, one against the rest, averaged; None where a class is missing.
    confusion : images of class i (row) that were called class j (column), in the order of ``per_class``.
    """

    n: int
    accuracy: Measure
    balanced_accuracy: Measure
    macro_f1: Measure
    log_loss: Measure
    roc_auc: Measure | None
    brier: Measure
    ece: Measure
    confusion: tuple[tuple[int, ...], ...]
    per_class: tuple[ClassMetrics, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; every measure is ``{"value", "interval": [low, high]}``."""
        plain = asdict(self)
        for value in plain.values():
            if isinstance(value, dict):
                value["interval"] = list(value["interval"])
        return {**plain, "confusion": [list(row) for row in self.confusion], "per_class": list(plain["per_class"])}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Metrics:
        """The metrics written by :meth:`to_json`; raises KeyError, TypeError or ValueError on anything else."""
        names = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "brier", "ece")
        confusion = tuple(tuple(int(count) for count in row) for row in data["confusion"])
        per_class = tuple(ClassMetrics(**entry) for entry in data["per_class"])
        if {len(confusion), *map(len, confusion)} != {len(per_class)}:
            raise ValueError("a confusion matrix of another size than the classes")
        return cls(
            n=int(data["n"]),
            roc_auc=Measure.from_json(data["roc_auc"]) if data["roc_auc"] else None,
            confusion=confusion,
            per_class=per_class,
            **{name: Measure.from_json(data[name]) for name in names},
        )


def measure(y: Labels, probabilities: _Floats, classes: tuple[str, ...], *, seed: int = 0) -> Metrics:
    """The metrics of ``probabilities`` (N, C) for the right answers ``y`` int64 (N,), each 0 to C - 1.

    Where every resample is equally accurate, as with no error at all, the interval of the accuracy is Wilson's.
    Raises InputError if there is nothing to measure or the shapes do not fit.
    """
    if probabilities.shape != (len(y), len(classes)) or not len(y) or y.min() < 0 or y.max() >= len(classes):
        raise InputError(
            "nothing to measure, or answers and probabilities do not fit",
            expected=f"answers (N,) from 0 to {len(classes) - 1} and probabilities (N, {len(classes)}), N > 0",
            received=f"{y.shape} and {probabilities.shape}",
        )
    said = probabilities.argmax(axis=1).astype(np.int64)
    sample = _Sample(y, said, probabilities)
    once = sample.measures(np.ones((1, len(y))))
    drawn = _resample(sample, seed)
    found = {name: Measure(float(value[0]), _around(float(value[0]), drawn[name])) for name, value in once.items()}
    if (drawn["accuracy"] == once["accuracy"][0]).all():
        found["accuracy"] = Measure(found["accuracy"].value, accuracy(y, said).interval)
    confusion = sample.confusions(np.ones((1, len(y))))[0].astype(np.int64)
    auc = found.pop("roc_auc")
    return Metrics(
        n=len(y),
        roc_auc=auc if np.isfinite(auc.value) else None,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        per_class=tuple(_class_metrics(name, i, confusion) for i, name in enumerate(classes)),
        **found,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """N images; every method takes counts (R, N), how often each image occurs in each of R resamples."""

    y: Labels
    said: Labels
    probabilities: _Floats

    def measures(self, counts: _Floats) -> dict[str, _Floats]:
        """Each measure for each resample, (R,); roc_auc is NaN where a class is missing."""
        of_truth = self.probabilities[np.arange(len(self.y)), self.y]
        squares = (self.probabilities**2).sum(axis=1) - 2 * of_truth + 1
        losses = -np.log(np.maximum(of_truth, LEAST))
        right = (self.said == self.y).astype(np.float64)
        means = counts @ np.stack([right, losses, squares], axis=1) / counts.sum(axis=1, keepdims=True)
        confusions = self.confusions(counts)
        hits = np.diagonal(confusions, axis1=1, axis2=2)
        truths, calls = confusions.sum(axis=2), confusions.sum(axis=1)
        return {
            "accuracy": means[:, 0],
            "balanced_accuracy": _mean_of(_divide(hits, truths), truths > 0),
            "macro_f1": _mean_of(_divide(2 * hits, truths + calls), truths + calls > 0),
            "log_loss": means[:, 1],
            "brier": means[:, 2],
            "ece": self._ece(counts, right),
            "roc_auc": self._auc(counts),
        }

    def confusions(self, counts: _Floats) -> _Floats:
        """The confusion matrices (R, C, C)."""
        from scipy.sparse import csr_array

        size = self.probabilities.shape[1]
        cells = csr_array(
            (np.ones(len(self.y)), (np.arange(len(self.y)), self.y * size + self.said)), shape=(len(self.y), size**2)
        )
        return np.asarray(counts @ cells, np.float64).reshape(len(counts), size, size)

    def _ece(self, counts: _Floats, right: _Floats) -> _Floats:
        confidence = self.probabilities.max(axis=1)
        bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        gaps = np.zeros((len(self.y), BINS))
        gaps[np.arange(len(self.y)), bins] = right - confidence
        return np.asarray(np.abs(counts @ gaps).sum(axis=1) / counts.sum(axis=1))

    def _auc(self, counts: _Floats) -> _Floats:
        columns = range(self.probabilities.shape[1])
        found = [_auc(counts, self.probabilities[:, i], self.y == i) for i in ([1] if len(columns) == 2 else columns)]
        return np.asarray(np.mean(found, axis=0))


def _auc(counts: _Floats, scores: _Floats, positive: npt.NDArray[np.bool_]) -> _Floats:
    """The area under the ROC curve (R,): the share of pairs in which the positive scores higher, ties counting half.

    Of few positives, as with many classes, all pairs are one product of matrices; of many, sorting is quicker.
    """
    few = np.flatnonzero(positive)
    if len(few) <= _FEW_POSITIVES and len(few) * len(scores) <= _MOST_PAIRS:
        return _auc_by_pairs(counts, scores, few)
    return _auc_by_order(counts, scores, positive)


def _auc_by_pairs(counts: _Floats, scores: _Floats, positives: Labels) -> _Floats:
    below = (scores[:, None] < scores[positives]).astype(np.float32)  # sums of halves are exact in float32
    below += 0.5 * (scores[:, None] == scores[positives])
    below[positives] = 0
    weights = counts.astype(np.float32)
    won = (weights[:, positives] * (weights @ below)).sum(axis=1, dtype=np.float64)
    present = counts[:, positives].sum(axis=1)
    return _shares(won, present * (counts.sum(axis=1) - present))


def _shares(won: _Floats, pairs: _Floats) -> _Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(pairs > 0, won / pairs, np.nan))


def _auc_by_order(counts: _Floats, scores: _Floats, positive: npt.NDArray[np.bool_]) -> _Floats:
    order = np.argsort(scores, kind="stable")
    _, starts = np.unique(scores[order], return_index=True)
    weights = counts[:, order]
    positives = np.add.reduceat(weights * positive[order], starts, axis=1)
    negatives = np.add.reduceat(weights * ~positive[order], starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives / 2
    return _shares((positives * below).sum(axis=1), positives.sum(axis=1) * negatives.sum(axis=1))


def _resample(sample: _Sample, seed: int) -> dict[str, _Floats]:
    random, size = np.random.default_rng(seed), len(sample.y)
    step = max(1, _CHUNK_NUMBERS // max(size, sample.probabilities.shape[1] ** 2))
    parts = []
    for start in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - start)
        drawn = random.integers(size, size=(rows, size))
        cells = np.bincount((drawn + np.arange(rows)[:, None] * size).ravel(), minlength=rows * size)
        parts.append(sample.measures(cells.reshape(rows, size).astype(np.float64)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _around(value: float, values: _Floats) -> tuple[float, float]:
    """The middle 95 % of the values that are numbers, and ``value`` in any case.

    Resamples of a measure that cannot be below 0, as the calibration error, are too high on average, and may leave it
    out.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return (float("nan"), float("nan"))
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(finite, [outside, 1 - outside])
    return (float(np.fmin(low, value)), float(np.fmax(high, value)))


def _class_metrics(name: str, i: int, confusion: npt.NDArray[np.int64]) -> ClassMetrics:
    hits, truths, calls = int(confusion[i, i]), int(confusion[i].sum()), int(confusion[:, i].sum())
    return ClassMetrics(
        name, truths, hits / calls if calls else 0.0, hits / truths if truths else 0.0,
        2 * hits / (truths + calls) if hits else 0.0,
    )  # fmt: skip


def _divide(above: _Floats, below: _Floats) -> _Floats:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _mean_of(values: _Floats, counted: npt.NDArray[np.bool_]) -> _Floats:
    return np.asarray((values * counted).sum(axis=1) / counted.sum(axis=1))
