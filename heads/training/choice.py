"""Choose the best value of a kind's grid on one table, by held-out rows alone. No test split comes here.

What all kinds share, the problems on the same rows, is prepared once a table (:func:`prepare`); each kind is then
judged on it (:func:`choose`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from featstore import machine
from featstore.errors import InputError
from featstore.shuffling import pieces
from featstore.table import StoredRows, Table
from heads.evaluation.scores import Trial, accuracy
from heads.kinds.folds import first_rows, folds_of
from heads.kinds.head import READ_NUMBERS, Features, Labels, Logits, Params
from heads.kinds.problem import Curve, Fit, HeadKind, HeldOut, Problem

FOLDS = 5
"""Stratified folds where there is no validation split; fewer if a class has fewer images."""

_KEPT_BYTES = 2 * 2**30
"""Problems of folds are kept for the next kind of head if their rows take no more than this."""


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The best value of a kind's grid on one table.

    kind : the name of the kind of head.
    trials, best : the whole grid with scores on the held-out rows, and the index of the one chosen.
    on : what was held out: "validation", or "5 folds of train".
    logits : float64 (M, K), what the chosen value says of the held-out rows, never having been fitted on them.
    columns : int64 (M,), the right column for each, -1 for a class without training images.
    rows : int64 (M,), the row of the held-out table (validation, or train for folds) that each belongs to.
    labels : int64 (K,), each column's class as an index into the table's ``classes``.
    curve : the learning curve of a head that is trained in epochs, else None.
    seconds : what choosing took.
    """

    kind: str
    trials: tuple[Trial, ...]
    best: int
    on: str
    logits: Logits
    columns: Labels
    rows: Labels
    labels: Labels
    curve: Curve | None
    seconds: float

    @property
    def chosen(self) -> Trial:
        """The hyperparameters that were chosen and their score."""
        return self.trials[self.best]


@dataclass(frozen=True, eq=False)
class Judging:
    """The labelled rows of one table, and what heads fitted on them are judged on: one validation round, or folds.

    rows, columns : of the held-out table, as in :class:`Choice`.
    rounds : for each round what makes its problem, and the places in ``rows`` that it judges.
    """

    on: str
    labels: Labels
    rows: Labels
    columns: Labels
    rounds: tuple[tuple[Callable[[], Problem], Labels], ...]
    kept: bool

    @cached_property
    def _problems(self) -> tuple[Problem, ...]:
        return tuple(make() for make, _ in self.rounds)

    def problem(self, number: int) -> Problem:
        """The problem of a round, kept for the next kind of head if there is room."""
        return self._problems[number] if self.kept else self.rounds[number][0]()


def prepare(train: Table, validation: Table | None = None, *, balanced: bool = False, seed: int = 0) -> Judging:
    """What heads are fitted and judged on: held out is ``validation``, or without a label there, folds of ``train``.

    Unlabelled rows are left out, and no augmented view is judged on. Raises InputError if the tables do not belong
    together, hold numbers that are not finite, or have too few classes or images.
    """
    known = labelled(train)
    labels, codes = np.unique(train.y[known], return_inverse=True)
    names = [train.classes[label] for label in labels]
    if len(labels) < 2:
        raise InputError(
            "a head needs training images of at least two classes",
            where=f"the {train.split} split",
            received=", ".join(map(repr, names)) or "no labelled image",
        )
    X = train.X if len(known) == len(train) else train.select(known).X
    _, image = np.unique(train.digests[known], axis=0, return_inverse=True)
    problem = _problem_maker(X, codes, image, train.widths, balanced, seed)
    if validation is None or not (validation.y >= 0).any():
        judged = train.views[known] == 0
        kept = not isinstance(X, StoredRows) and X.nbytes * FOLDS <= _KEPT_BYTES
        return _by_folds(problem, codes, image, judged, names, known, labels, kept=kept, seed=seed)
    _check_same(train, validation)
    rows = labelled(validation)
    right = validation.y[rows]
    places = np.searchsorted(labels, right).clip(max=len(labels) - 1)
    columns = np.where(labels[places] == right, places, -1)  # no head knows a class without training images
    held = validation.X if len(rows) == len(validation) else validation.select(rows).X
    everything = np.arange(len(codes))
    return Judging(
        "validation",
        labels,
        rows,
        columns,
        ((lambda: problem(everything, HeldOut(held, columns)), np.arange(len(rows))),),
        kept=True,
    )


def choose(kind: HeadKind, judging: Judging) -> Choice:
    """Try the whole grid of ``kind`` and choose by accuracy on the held-out rows.

    Of equally accurate values the first of the grid is chosen: the simplest.
    """
    started = time.perf_counter()
    fits = _fit_rounds(kind, judging)
    usable = min(map(len, fits))  # a value that did not converge is at the end of the grid: it cannot be chosen
    logits, scores, params = [], [], []
    for value in range(usable):
        said = np.empty((len(judging.rows), len(judging.labels)))
        for number, (_, places) in enumerate(judging.rounds):
            said[places] = fits[number][value][1]
        logits.append(said)
        scores.append(accuracy(judging.columns, said.argmax(axis=1)))
        params.append(_agreed([found[value][0].params for found in fits]))
    best = max(range(usable), key=lambda i: scores[i].accuracy)  # the first of equals
    return Choice(
        kind=kind.name,
        trials=tuple(map(Trial, params, scores)),
        best=best,
        on=judging.on,
        logits=logits[best],
        columns=judging.columns,
        rows=judging.rows,
        labels=judging.labels,
        curve=fits[0][best][0].curve,
        seconds=time.perf_counter() - started,
    )


def labelled(table: Table) -> Labels:
    """The labelled rows of a table, int64 (n,); raises InputError if a feature of the table is not finite."""
    finite = np.empty(len(table), np.bool_)
    for rows, features in pieces(table.X, max(1, READ_NUMBERS // max(1, table.X.shape[1]))):
        finite[rows] = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise InputError(
            f"{int((~finite).sum())} images have features that are not finite numbers",
            where=f"the {table.split} split, first {table.paths[int(np.argmin(finite))]!r}",
            todo="extract them again: featstore store verify shows whether the store is damaged",
        )
    return np.flatnonzero(table.y >= 0)


def take(X: Features, rows: Labels) -> Features:
    """The chosen rows; of a table that stays in the store they stay there, too."""
    return X.select(rows) if isinstance(X, StoredRows) else X[rows]


_Round = list[tuple[Fit, Logits]]


def _fit_rounds(kind: HeadKind, judging: Judging) -> list[_Round]:
    """For each round the fits of the grid and what each says of the held-out rows; folds side by side in threads."""
    from joblib import Parallel, delayed
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    def one(number: int) -> _Round:
        problem = judging.problem(number)
        if problem.held_out is None:
            raise TypeError("a problem to choose on has held-out rows")
        return [(fit, fit.head.logits(problem.held_out.X)) for fit in kind.fits(problem, kind.grid)]

    count = len(judging.rounds)
    if count == 1 or kind.every_core or not judging.kept:
        return [one(number) for number in range(count)]
    with threadpool_limits(1):  # around all of them: a limit set and lifted by each thread would never be lifted
        jobs = Parallel(n_jobs=min(count, machine.describe().cores), prefer="threads")
        return list(jobs(delayed(one)(number) for number in range(count)))


def _by_folds(
    problem: Callable[[Labels, HeldOut | None], Problem],
    codes: Labels,
    image: Labels,
    judged: npt.NDArray[np.bool_],
    names: Sequence[str],
    known: Labels,
    labels: Labels,
    *,
    kept: bool,
    seed: int,
) -> Judging:
    counts = np.bincount(codes[first_rows(image)], minlength=len(names))
    if (smallest := int(counts.min())) < 2:
        raise InputError(
            f"class {names[int(counts.argmin())]!r} has too few training images to choose by folds",
            expected="at least 2 different images a class, or a validation split",
            received=smallest,
        )
    folds = min(FOLDS, smallest)
    whole = problem(np.arange(len(codes)), None).X
    place = np.cumsum(judged) - 1

    def maker(fitted_on: Labels, held_out: Labels) -> Callable[[], Problem]:
        return lambda: problem(fitted_on, HeldOut(take(whole, held_out), codes[held_out]))

    rounds = []
    for fitted_on, inside in folds_of(image, codes, folds, seed):
        held_out = inside[judged[inside]]
        rounds.append((maker(fitted_on, held_out), place[held_out]))
    return Judging(f"{folds} folds of train", labels, known[judged], codes[judged], tuple(rounds), kept)


def _problem_maker(
    X: Features, codes: Labels, image: Labels, widths: tuple[int, ...], balanced: bool, seed: int
) -> Callable[[Labels, HeldOut | None], Problem]:
    def make(rows: Labels, held_out: HeldOut | None) -> Problem:
        chosen = X if len(rows) == len(codes) else take(X, rows)
        return Problem(chosen, codes[rows], widths, balanced, seed, held_out, image[rows])

    return make


def _agreed(found: Sequence[Params]) -> Params:
    """What the rounds came to as one: numbers that differ between folds (epochs) become their median."""
    return {
        name: value if all(params[name] == value for params in found) else int(np.median([p[name] for p in found]))
        for name, value in found[0].items()
    }


def _check_same(train: Table, other: Table) -> None:
    if train.specs != other.specs:
        differences = [name for a, b in zip(train.specs, other.specs, strict=False) for name in a.differences(b)]
        raise InputError(
            f"the {other.split} features were made differently from the training ones", where=", ".join(differences)
        )
    if train.classes != other.classes:
        raise InputError(
            f"the {other.split} split has other classes",
            expected=", ".join(train.classes),
            received=", ".join(other.classes),
        )
