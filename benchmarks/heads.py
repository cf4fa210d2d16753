"""Grids of linear heads against scikit-learn's searches: both sides in one run, interleaved, on the same five folds.

    python benchmarks/heads.py DATA [--repeats 3] [--json]

Ours: `heads.training.choice`, everything from the table on. Baseline: GridSearchCV over Pipeline(StandardScaler, …) on
two processes, and LogisticRegressionCV on rows standardised once; like our search, neither fits again at the end.

There are three support vector machines to compare with. SVC(kernel="linear") is what tutorials use; its loss is the
hinge, ours the squared hinge. LinearSVC has our objective: with dual=False also the same kind of solver, as it comes
(dual="auto") one in the dual, which is quick on a wide table.

Same result: the best scores are within 0.003, and the C chosen is the same or a neighbour. DATA is extracted first if
the store lacks it: VGG16, flattened, and Xception, averaged, both at 150 pixels.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from harness import add_options, report, row
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

import featstore
from featstore.table import Table, stack_tables

_FOLDS = StratifiedKFold(5, shuffle=True, random_state=0)  # what `prepare` deals out as well
_SIZE = 150
_GRIDS = {"logreg": np.logspace(-6, 1, 15), "linear-svm": np.logspace(-7, 0, 15)}
_LONG = {"logreg": np.logspace(-6, 1, 45)}
_CLOSE = 0.003


@dataclass(frozen=True, slots=True)
class Found:
    """The best C of each head's search: its place in the grid and its mean accuracy; and the seconds of them all."""

    places: tuple[int, ...]
    scores: tuple[float, ...]
    seconds: float


Search = Callable[[Table, np.ndarray], tuple[int, float]]


def ours(table: Table, grids: dict[str, np.ndarray]) -> Found:
    """Our search for every head: the folds' rows are prepared once for them all."""
    from heads.kinds.catalog import find
    from heads.training.choice import choose, prepare

    started = time.perf_counter()
    judging = prepare(table)
    kinds = [replace(find(name), grid=tuple({"C": float(C)} for C in grid)) for name, grid in grids.items()]
    choices = [choose(kind, judging) for kind in kinds]
    seconds = time.perf_counter() - started
    return Found(tuple(c.best for c in choices), tuple(c.chosen.score.accuracy for c in choices), seconds)


def grid_search(estimator: Any) -> Search:
    """scikit-learn's plain search."""
    pipeline = make_pipeline(StandardScaler(), estimator)
    name = f"{pipeline.steps[-1][0]}__C"

    def run(table: Table, grid: np.ndarray) -> tuple[int, float]:
        search = GridSearchCV(pipeline, {name: grid}, cv=_FOLDS, n_jobs=2, refit=False).fit(table.X, table.y)
        return int(search.best_index_), float(search.best_score_)

    return run


def path_search(table: Table, grid: np.ndarray) -> tuple[int, float]:
    """LogisticRegressionCV, which starts each C where the one before it stopped."""
    search = LogisticRegressionCV(
        Cs=grid, cv=_FOLDS, n_jobs=2, refit=False, max_iter=1000, use_legacy_attributes=False
    ).fit(StandardScaler().fit_transform(table.X), table.y)
    scores = np.asarray(search.scores_).reshape(5, -1).mean(axis=0)
    return int(scores.argmax()), float(scores.max())


_LOGREG = grid_search(LogisticRegression(max_iter=1000))
_MACHINES = {
    'SVC(kernel="linear")': grid_search(SVC(kernel="linear")),
    "LinearSVC(dual=False)": grid_search(LinearSVC(dual=False)),
    "LinearSVC()": grid_search(LinearSVC()),
}
_PATHS = {"LogisticRegressionCV": path_search, "GridSearchCV(LogisticRegression)": _LOGREG}


def timed(search: Search, table: Table, grid: np.ndarray) -> Found:
    """Run a search; warnings that a baseline did not converge are its own affair."""
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        place, score = search(table, grid)
    return Found((place,), (score,), time.perf_counter() - started)


def compared(case: str, grids: dict[str, np.ndarray], mine: Sequence[Found], theirs: Sequence[Found]) -> dict[str, Any]:
    """One row of the report."""
    first, other = mine[0], theirs[0]
    near = [abs(a - b) <= 1 for a, b in zip(first.places, other.places, strict=True)]
    close = [abs(a - b) <= _CLOSE for a, b in zip(first.scores, other.scores, strict=True)]
    best = {
        side: {
            name: {"C": float(grid[place]), "score": score}
            for (name, grid), place, score in zip(grids.items(), found.places, found.scores, strict=True)
        }
        for side, found in (("ours", first), ("baseline", other))
    }
    seconds = [found.seconds for found in mine], [found.seconds for found in theirs]
    return row(case, *seconds, "s", all(near) and all(close), best=best)


def together(table: Table, repeats: int) -> list[dict[str, Any]]:
    """Logistic regression and a support vector machine in all, a row for each machine that there is to compare with."""
    mine, logreg, machines = [], [], {name: [] for name in _MACHINES}
    for _ in range(repeats):
        mine.append(ours(table, _GRIDS))
        logreg.append(timed(_LOGREG, table, _GRIDS["logreg"]))
        for name, search in _MACHINES.items():
            machines[name].append(timed(search, table, _GRIDS["linear-svm"]))
    size = f"{len(table)} x {table.X.shape[1]}, 15 values of C x 5 folds each"
    return [
        compared(
            f"{size}, against two GridSearchCVs: LogisticRegression and {name}", _GRIDS, mine, _both(logreg, found)
        )
        for name, found in machines.items()
    ]


def path(table: Table, repeats: int) -> list[dict[str, Any]]:
    """A long grid of logistic regression alone."""
    mine, theirs = [], {name: [] for name in _PATHS}
    for _ in range(repeats):
        mine.append(ours(table, _LONG))
        for name, search in _PATHS.items():
            theirs[name].append(timed(search, table, _LONG["logreg"]))
    size = f"{len(table)} x {table.X.shape[1]}, 45 values of C x 5 folds"
    return [compared(f"{size}, against {name}", _LONG, mine, found) for name, found in theirs.items()]


def _both(one: Sequence[Found], two: Sequence[Found]) -> list[Found]:
    pairs = zip(one, two, strict=True)
    return [Found(a.places + b.places, a.scores + b.scores, a.seconds + b.seconds) for a, b in pairs]


def everything(data: Path, backbone: str, pooling: str) -> Table:
    """All labelled images of every split as one table."""
    settings: dict[str, Any] = {"image_size": _SIZE, "pooling": pooling}
    featstore.extract(data, backbone, **settings)
    tables = [table for table in featstore.load_tables(data, backbone, **settings).values() if (table.y >= 0).any()]
    return reduce(stack_tables, tables)


def main() -> None:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    add_options(parser)
    given = parser.parse_args()
    wide, narrow = everything(given.data, "vgg16", "flatten"), everything(given.data, "xception", "avg")
    ours(replace(narrow, X=narrow.X[:, :64], widths=(64,)), _LONG)  # what has to be imported is, on both sides
    rows = [*together(wide, given.repeats), *path(narrow, given.repeats)]
    report("heads", rows, ("numpy", "scipy", "scikit-learn"), as_json=given.json, save=given.save)


if __name__ == "__main__":
    import sys

    sys.path.remove(str(Path(__file__).resolve().parent))  # there `heads` is this file, not the package
    main()
