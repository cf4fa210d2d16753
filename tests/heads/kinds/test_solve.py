from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from featstore.errors import InputError
from heads.kinds.head import Params
from heads.kinds.problem import Problem
from heads.kinds.solve import solve_linear

GRID: tuple[Params, ...] = ({"C": 0.01}, {"C": 0.1}, {"C": 1.0})


def logreg(params: Params, seed: int) -> LogisticRegression:
    return LogisticRegression(**params, max_iter=5000, tol=1e-8, random_state=seed)


def svm(params: Params, seed: int) -> LinearSVC:
    return LinearSVC(**params, dual=False, max_iter=5000, tol=1e-8, random_state=seed)


def ridge(params: Params, seed: int) -> RidgeClassifier:
    return RidgeClassifier(alpha=1 / params["C"])


def heads_of(make, X, y, grid, balanced: bool = False):
    problem = Problem(X, y, (X.shape[1],), balanced=balanced)
    return [fit.head for fit in solve_linear(make, problem, grid)]


@pytest.mark.parametrize("balanced", [False, True], ids=["plain", "balanced"])
@pytest.mark.parametrize("make", [logreg, svm, ridge])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("shape", [(80, 6), (40, 90)], ids=["tall", "wide"])
def test_heads_agree_with_scikit_learns_pipeline(table, make, classes, shape, balanced) -> None:
    train = table(*shape, classes, noise=2.0)
    uneven = train.select(np.flatnonzero((train.y > 0) | (np.arange(len(train)) % 3 > 0)))
    train = uneven if balanced else train
    new = table(30, shape[1], classes, noise=2.0, seed=5)
    weight = "balanced" if balanced else None
    for params, head in zip(GRID, heads_of(make, train.X, train.y, GRID, balanced), strict=True):
        estimator = make(params, 0).set_params(class_weight=weight)
        plain = make_pipeline(StandardScaler(), estimator).fit(train.X.astype(np.float64), train.y)
        decision = plain.decision_function(new.X.astype(np.float64))
        mine = head.logits(new.X)
        mine = mine[:, 1] if classes == 2 else mine
        np.testing.assert_allclose(mine, decision, atol=1e-4)
        assert (head.logits(new.X).argmax(axis=1) == plain.predict(new.X.astype(np.float64))).all()


def test_a_feature_that_never_changes_does_no_harm(table) -> None:
    train = table()
    X = train.X.copy()
    X[:, 3] = 7
    (head,) = heads_of(logreg, X, train.y, GRID[:1])
    assert np.isfinite(head.weights).all()
    assert (head.logits(X).argmax(axis=1) == train.y).mean() > 0.8


class GivesUp(LogisticRegression):
    """A solver that converges for strong regularisation only."""

    def fit(self, X, y):
        super().fit(X, y)
        if self.C > 0.05:
            warnings.warn("no convergence\nread more at …", ConvergenceWarning, stacklevel=1)
        return self


def test_the_grid_ends_where_the_solver_gives_up(table) -> None:
    train = table()
    heads = heads_of(lambda params, _: GivesUp(**params), train.X, train.y, GRID)
    assert len(heads) == 1


def test_a_solver_that_never_converges_is_one_clear_message(table) -> None:
    train = table()
    with pytest.raises(InputError) as caught:
        heads_of(lambda params, _: GivesUp(**params), train.X, train.y, GRID[1:])
    assert "GivesUp does not converge" in caught.value.what
    assert caught.value.where == "C = 0.1"
    assert caught.value.received == "no convergence"


def test_the_table_is_not_written_over(table) -> None:
    train = table(20, 40)
    before = train.X.copy()
    heads_of(logreg, train.X, train.y, GRID[:1])
    assert (before == train.X).all()
