"""Fit one kind of head on a table: its hyperparameters are chosen on rows it has not seen. No test split comes here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError
from featstore.table import Table
from heads.catalog import HeadKind
from heads.evaluate import Score, Trial, accuracy
from heads.linear import Features, LinearHead
from heads.temperature import fit_temperature

Labels = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float64]

FOLDS = 5
"""Stratified folds where there is no validation split; fewer if a class has fewer images."""


@dataclass(frozen=True, slots=True, eq=False)
class FittedHead:
    """A head, fitted on the training split, and how it came to be.

    kind : the name of its kind.
    head : from features (N, D) to probabilities (N, K), a column a class.
    labels : int64 (K,), each column's class as an index into ``all_classes``: only classes that have training images.
    trials, chosen : the whole grid, and the one chosen; scores are those of heads that never saw the held-out rows.
    chosen_on : what was held out: "validation", or "5 folds of train".
    factor : what the logits were multiplied by for right probabilities, fitted on the held-out rows; 1 if not needed.
    seconds, fit_seconds : of all this, choosing included; of the last fit alone.
    """

    kind: str
    head: LinearHead
    labels: Labels
    all_classes: tuple[str, ...]
    trials: tuple[Trial, ...]
    chosen: Trial
    chosen_on: str
    factor: float
    seed: int
    seconds: float
    fit_seconds: float

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the K classes that it can tell apart, in the order of its columns."""
        return tuple(self.all_classes[label] for label in self.labels)

    def predict(self, X: Features) -> Labels:
        """int64 (N,) for features (N, D): indices into ``all_classes``."""
        return np.asarray(self.labels[self.head.predict(X)], np.int64)

    def score(self, table: Table) -> Score | None:
        """Its accuracy on the labelled images of ``table``; None if there are none."""
        known = table.y >= 0
        return accuracy(table.y[known], self.predict(table.X[known])) if known.any() else None


def fit_head(kind: HeadKind, train: Table, validation: Table | None = None, *, seed: int = 0) -> FittedHead:
    """Try the whole grid of ``kind``, choose by accuracy on held-out rows, and fit the choice on all of ``train``.

    Held out is ``validation``; without a labelled image there, each of some stratified folds of ``train`` in turn.
    Of equally accurate values the first of the grid is chosen: the most strongly regularised. Unlabelled rows are left
    out. Raises InputError if the tables do not belong together, hold numbers that are not finite, or have too few
    classes or images.
    """
    started = time.perf_counter()
    X, y = _labelled(train)
    labels, codes = np.unique(y, return_inverse=True)
    if len(labels) < 2:
        raise InputError(
            "a head needs training images of at least two classes",
            where=f"the {train.split} split",
            received=", ".join(repr(train.classes[label]) for label in labels) or "no labelled image",
        )
    if validation is not None and (validation.y >= 0).any():
        _check_same(train, validation)
        held_out = _judge_on_validation(kind, X, codes, validation, labels, seed)
    else:
        held_out = _judge_on_folds(kind, X, codes, [train.classes[label] for label in labels], seed)
    # A value that did not converge is at the end of the grid and has no logits: it cannot be chosen.
    scores = [accuracy(held_out.columns, logits.argmax(axis=1)) for logits in held_out.logits]
    trials = tuple(map(Trial, kind.grid, scores))
    best = max(range(len(trials)), key=lambda i: scores[i].accuracy)  # the first of equals
    factor = fit_temperature(held_out.logits[best], held_out.columns) if kind.tempered else 1.0
    chosen = time.perf_counter()
    [head] = kind.fit(X, codes, (kind.grid[best],), seed)
    return FittedHead(
        kind=kind.name,
        head=head.scaled(factor),
        labels=labels,
        all_classes=train.classes,
        trials=trials,
        chosen=trials[best],
        chosen_on=held_out.name,
        factor=factor,
        seed=seed,
        seconds=time.perf_counter() - started,
        fit_seconds=time.perf_counter() - chosen,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _HeldOut:
    """What the values of a grid say about rows that their heads were not fitted on.

    logits : float64 (N, K) for each value; columns : int64 (N,), the right answers, -1 where no column is right.
    """

    name: str
    logits: tuple[Logits, ...]
    columns: Labels


def _judge_on_validation(
    kind: HeadKind, X: Features, codes: Labels, validation: Table, labels: Labels, seed: int
) -> _HeldOut:
    held_X, held_y = _labelled(validation)
    heads = kind.fit(X, codes, kind.grid, seed)
    columns = np.searchsorted(labels, held_y).clip(max=len(labels) - 1)
    known = labels[columns] == held_y  # no head can be right about a class without training images
    logits = tuple(head.logits(held_X) for head in heads)
    return _HeldOut("validation", logits, np.where(known, columns, -1))


def _judge_on_folds(kind: HeadKind, X: Features, codes: Labels, names: Sequence[str], seed: int) -> _HeldOut:
    from sklearn.model_selection import StratifiedKFold

    counts = np.bincount(codes)
    if (smallest := int(counts.min())) < 2:
        raise InputError(
            f"class {names[int(counts.argmin())]!r} has a single training image, too few to choose by folds",
            expected="at least 2 images a class, or a validation split",
            received=smallest,
        )
    folds = min(FOLDS, smallest)
    logits = [np.empty((len(codes), len(names))) for _ in kind.grid]
    for fitted_on, held_out in StratifiedKFold(folds, shuffle=True, random_state=seed).split(codes, codes):
        heads = kind.fit(X[fitted_on], codes[fitted_on], kind.grid, seed)
        del logits[len(heads) :]
        for out, head in zip(logits, heads, strict=False):
            out[held_out] = head.logits(X[held_out])
    return _HeldOut(f"{folds} folds of train", tuple(logits), codes)


def _labelled(table: Table) -> tuple[Features, Labels]:
    """X (N, D) and y (N,) of the labelled rows; raises InputError if a feature is not finite."""
    finite = np.isfinite(table.X).all(axis=1)
    if not finite.all():
        raise InputError(
            f"{int((~finite).sum())} images have features that are not finite numbers",
            where=f"the {table.split} split, first {table.paths[int(np.argmin(finite))]!r}",
            todo="extract them again: featstore store verify shows whether the store is damaged",
        )
    known = table.y >= 0
    return (table.X, table.y) if known.all() else (table.X[known], table.y[known])


def _check_same(train: Table, other: Table) -> None:
    if differences := train.spec.differences(other.spec):
        raise InputError(
            f"the {other.split} features were made differently from the training ones", where=", ".join(differences)
        )
    if train.classes != other.classes:
        raise InputError(
            f"the {other.split} split has other classes",
            expected=", ".join(train.classes),
            received=", ".join(other.classes),
        )
