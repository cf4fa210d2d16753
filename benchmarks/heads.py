"""Grids of linear heads against scikit-learn's searches: both sides in one run, interleaved, on the same folds.

    python benchmarks/heads.py DATA [--repeats 1] [--case NAME ...] [--json]

Ours: `heads.training.choice`, the rows' own space and every solution included. Baseline: what a user writes, a
GridSearchCV over Pipeline(StandardScaler, LogisticRegression or LinearSVC(dual="auto")) on two processes, without its
last refit, as ours has none; or LogisticRegressionCV on rows that are standardised once. LinearSVC has our objective
(squared hinge, penalised intercept); SVC(kernel="linear") has another one. Features are extracted first if need be.
Same result: best scores within 0.003, and the same or a neighbouring C.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.remove(str(Path(__file__).resolve().parent))  # where `heads` would be this file, not the package

import sklearn
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import featstore
from featstore import machine
from featstore.table import Table
from heads.kinds import catalog
from heads.training.choice import choose, prepare

_FOLDS = StratifiedKFold(5, shuffle=True, random_state=0)
_SIZE = 150


@dataclass(frozen=True, slots=True)
class Found:
    """The best C of a search, as its place in the grid, its mean accuracy over the folds, and the seconds it took."""

    place: int
    score: float
    seconds: float


Search = Callable[[Table, np.ndarray], tuple[int, float]]


def ours(kind: str) -> Search:
    """Our search: every fold's fits and scores, without the refit."""

    def run(table: Table, grid: np.ndarray) -> tuple[int, float]:
        wide = replace(catalog.find(kind), grid=tuple({"C": float(C)} for C in grid))
        choice = choose(wide, prepare(table))
        return choice.best, choice.trials[choice.best].score.accuracy

    return run


def grid_search(estimator: Any) -> Search:
    """scikit-learn's plain search."""
    pipeline = make_pipeline(StandardScaler(), estimator)
    name = f"{type(estimator).__name__.lower()}__C"

    def run(table: Table, grid: np.ndarray) -> tuple[int, float]:
        search = GridSearchCV(pipeline, {name: grid}, cv=_FOLDS, n_jobs=2, refit=False).fit(table.X, table.y)
        return int(search.best_index_), float(search.best_score_)

    return run


def path_search(table: Table, grid: np.ndarray) -> tuple[int, float]:
    """LogisticRegressionCV, which starts each C where the one before it stopped."""
    rows = StandardScaler().fit_transform(table.X)
    search = LogisticRegressionCV(Cs=grid, cv=_FOLDS, n_jobs=2, refit=False, max_iter=1000).fit(rows, table.y)
    scores = np.mean(np.reshape(next(iter(search.scores_.values())), (5, -1)), axis=0)
    return int(scores.argmax()), float(scores.max())


@dataclass(frozen=True, slots=True)
class Case:
    """What one row of the report compares; ``least`` is the ratio that it is meant to reach."""

    backbone: str
    pooling: str
    head: str
    grid: np.ndarray
    against: Search
    least: float


_LOGREG, _SVM, _LONG = np.logspace(-6, 1, 15), np.logspace(-7, 0, 15), np.logspace(-6, 1, 45)
CASES = {
    "logreg": Case("vgg16", "flatten", "logreg", _LOGREG, grid_search(LogisticRegression(max_iter=1000)), 1),
    "svm": Case("vgg16", "flatten", "linear-svm", _SVM, grid_search(LinearSVC(dual="auto")), 1),
    "logreg-45-path": Case("xception", "avg", "logreg", _LONG, path_search, 1),
    "logreg-45-grid": Case("xception", "avg", "logreg", _LONG, grid_search(LogisticRegression(max_iter=1000)), 2),
}
_TOGETHER, _TOGETHER_LEAST = ("logreg", "svm"), 20


def everything(data: Path, case: Case) -> Table:
    """All labelled images of every split as one table, extracted first where the store lacks them."""
    settings: dict[str, Any] = {"image_size": _SIZE, "pooling": case.pooling}
    featstore.extract(data, case.backbone, **settings)
    tables = [table for table in featstore.load_tables(data, case.backbone, **settings).values() if len(table)]
    return replace(
        tables[0],
        X=np.concatenate([np.asarray(table.X) for table in tables]),
        y=np.concatenate([table.y for table in tables]),
        ids=sum((tuple(table.ids) for table in tables), ()),
        paths=sum((tuple(table.paths) for table in tables), ()),
        digests=np.concatenate([table.digests for table in tables]),
    )


def timed(search: Search, table: Table, grid: np.ndarray) -> Found:
    """Run a search; the baselines' warnings that they did not converge are theirs."""
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        place, score = search(table, grid)
    return Found(place, score, time.perf_counter() - started)


def compare(name: str, case: Case, table: Table, repeats: int) -> dict[str, Any]:
    """One row of the report: median seconds of both sides, their ratio, and whether they found the same."""
    runs: dict[str, list[Found]] = {"ours": [], "baseline": []}
    for _ in range(repeats):
        runs["ours"].append(timed(ours(case.head), table, case.grid))
        runs["baseline"].append(timed(case.against, table, case.grid))
    mine, theirs = runs["ours"][0], runs["baseline"][0]
    seconds = {side: [found.seconds for found in done] for side, done in runs.items()}
    medians = {side: statistics.median(values) for side, values in seconds.items()}
    return {
        "case": f"{name}: {len(table)} x {table.X.shape[1]}, {len(case.grid)} values of C x 5 folds, {repeats} repeats",
        **medians,
        "spread": {side: [min(values), max(values)] for side, values in seconds.items()},
        "unit": "s",
        "ratio": medians["baseline"] / medians["ours"],
        "least_ratio": case.least,
        "same_result": abs(mine.score - theirs.score) <= 0.003 and abs(mine.place - theirs.place) <= 1,
        "best": {
            s: {"C": float(case.grid[f.place]), "score": f.score} for s, f in (("ours", mine), ("baseline", theirs))
        },
    }


def together(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Logistic regression and the support vector machine in all."""
    sums = {side: sum(row[side] for row in rows) for side in ("ours", "baseline")}
    return {
        "case": " + ".join(_TOGETHER),
        **sums,
        "unit": "s",
        "ratio": sums["baseline"] / sums["ours"],
        "least_ratio": _TOGETHER_LEAST,
        "same_result": all(row["same_result"] for row in rows),
    }


def main() -> None:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--case", choices=CASES, nargs="+", default=list(CASES))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = {n: compare(n, CASES[n], everything(given.data, CASES[n]), given.repeats) for n in given.case}
    report = list(rows.values())
    if all(name in rows for name in _TOGETHER):
        report.append(together([rows[name] for name in _TOGETHER]))
    about = machine.describe()
    versions = {"python": platform.python_version(), "numpy": np.__version__, "scikit-learn": sklearn.__version__}
    where = {"cpu": about.cpu, "cores": about.cores, "flags": about.flags, **versions}
    if given.json:
        print(json.dumps({"benchmark": "heads", "machine": where, "rows": report}, indent=2))
        return
    for row in report:
        same = "the same choice" if row["same_result"] else "ANOTHER CHOICE"
        print(f"{row['case']}: {row['ours']:.1f} against {row['baseline']:.1f} s, x {row['ratio']:.1f}, {same}")


if __name__ == "__main__":
    main()
