from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import heads.kinds.newton
from featstore.errors import InputError
from heads.kinds.catalog import find
from heads.kinds.head import Params
from heads.kinds.newton import Logistic, Softmax, SquaredHinge, solve_logistic, solve_svm
from heads.kinds.problem import Problem
from heads.training.choice import choose, prepare

GRID: tuple[Params, ...] = ({"C": 0.001}, {"C": 0.1}, {"C": 3.0})


def logreg(**params):
    return LogisticRegression(**params, max_iter=20_000, tol=1e-9)


def svm(**params):
    return LinearSVC(**params, dual=False, max_iter=20_000, tol=1e-9)


PAIRS = pytest.mark.parametrize(("solve", "make"), [(solve_logistic, logreg), (solve_svm, svm)], ids=["logreg", "svm"])


@PAIRS
@pytest.mark.parametrize("balanced", [False, True], ids=["plain", "balanced"])
@pytest.mark.parametrize("intercept", [False, True], ids=["centred", "intercept"])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("shape", [(80, 6), (40, 90)], ids=["tall", "wide"])
def test_decisions_are_scikit_learns(table, solve, make, shape, classes, intercept, balanced) -> None:
    train = table(*shape, classes, noise=2.0)
    train = train.select(np.flatnonzero((train.y > 0) | (np.arange(len(train)) % 3 > 0)))  # uneven classes
    new = table(30, shape[1], classes, noise=2.0, seed=5).X
    problem = Problem(train.X, train.y, (shape[1],), balanced=balanced)
    for params, fit in zip(GRID, solve(problem, GRID, intercept=intercept), strict=True):
        estimator = make(**params, fit_intercept=intercept, class_weight="balanced" if balanced else None)
        plain = make_pipeline(StandardScaler(), estimator).fit(train.X.astype(np.float64), train.y)
        mine = fit.head.logits(new)
        mine = mine[:, 1] if classes == 2 else mine
        np.testing.assert_allclose(mine, plain.decision_function(new.astype(np.float64)), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "solve", "make"), [("logreg", solve_logistic, logreg), ("linear-svm", solve_svm, svm)]
)
def test_choice_and_scores_are_those_of_a_plain_grid_search(table, name, solve, make) -> None:
    train = table(90, 120, 3, noise=4.0)
    kind = replace(find(name), fit=solve)
    pipeline = make_pipeline(StandardScaler(), make())
    grid = [params["C"] for params in kind.grid]
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    search = GridSearchCV(pipeline, {f"{pipeline.steps[1][0]}__C": grid}, cv=folds)
    search.fit(train.X.astype(np.float64), train.y)
    choice = choose(kind, prepare(train))
    mine = [trial.score.accuracy for trial in choice.trials]
    np.testing.assert_allclose(mine, search.cv_results_["mean_test_score"], atol=1e-9)
    assert choice.best == search.best_index_


@PAIRS
def test_separable_rows_with_weak_regularisation_and_a_constant_column_are_solved(table, solve, make) -> None:
    train = table(40, 90, 5)
    X = train.X.copy()
    X[:, 3] = 7
    fits = solve(Problem(X, train.y, (90,)), [{"C": 10.0**power} for power in range(-6, 5)])
    assert len(fits) == 11
    assert (fits[-1].head.logits(X).argmax(axis=1) == train.y).all()


@PAIRS
def test_what_does_not_converge_ends_the_grid_or_is_one_message(table, solve, make, monkeypatch) -> None:
    train = table(80, 6, 3, noise=2.0)
    problem = Problem(train.X, train.y, (6,))
    monkeypatch.setattr(heads.kinds.newton, "_STEPS", 0)
    with pytest.raises(InputError) as caught:
        solve(problem, GRID)
    assert "does not converge" in caught.value.what
    assert caught.value.where == "C = 0.001"
    monkeypatch.setattr(heads.kinds.newton, "_STEPS", 3)
    assert len(solve(problem, ({"C": 1e-9}, {"C": 1e3}))) == 1


def hard_rows(count: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of all sizes, some that never change or say the same; rows that stand there again, or nearly."""
    random = np.random.default_rng(3)
    X = random.normal(size=(count, width)) * 10.0 ** random.integers(-6, 6, width)
    X[:, 4], X[:, 5] = 7, 3 * X[:, 6]
    X[1::10], X[3::10] = X[::10], X[2::10] + 1e-2 * X[3::10]
    return X.astype(np.float32), np.arange(count) % 2


@PAIRS
@pytest.mark.parametrize("shape", [(120, 12), (60, 130)], ids=["tall", "wide"])
def test_decisions_are_scikit_learns_on_hard_rows(solve, make, shape) -> None:
    X, y = hard_rows(*shape)
    new = X[::3] + X.std(axis=0) * np.random.default_rng(4).normal(size=(len(X[::3]), shape[1])).astype(np.float32)
    grid = [{"C": 10.0**power} for power in range(-4, 2)]
    for params, fit in zip(grid, solve(Problem(X, y, (shape[1],)), grid), strict=True):
        plain = make_pipeline(StandardScaler(), make(**params)).fit(X.astype(np.float64), y)
        decision = plain.decision_function(new.astype(np.float64))
        np.testing.assert_allclose(fit.head.logits(new)[:, 1], decision, atol=1e-4)


@PAIRS
def test_a_fit_does_not_depend_on_the_rest_of_the_grid(table, solve, make) -> None:
    train = table(60, 90, 17, noise=3.0)
    problem = Problem(train.X, train.y, (90,))
    for grid in ([1e-6, 0.1], [0.01, 0.02, 0.05, 0.1], [0.001, 0.09, 0.0999, 0.0999999, 0.1]):
        [alone], together = solve(problem, [{"C": 0.1}]), solve(problem, [{"C": C} for C in grid])
        assert [fit.params["C"] for fit in together] == grid
        np.testing.assert_allclose(together[-1].head.logits(train.X), alone.head.logits(train.X), atol=1e-4)


@pytest.mark.parametrize("loss", [Logistic, Softmax, SquaredHinge])
def test_slopes_and_second_derivatives_are_those_of_the_loss(table, loss) -> None:
    classes = 2 if loss is Logistic else 3
    train = table(31, 4, classes)
    one = loss(Problem(train.X, train.y, (4,), balanced=True))
    random = np.random.default_rng(0)
    at, along = random.normal(size=(2, 31, one.outputs))
    step = 1e-5
    before, here, after = (one.at(at + sign * step * along) for sign in (-1, 0, 1))
    assert (after.value - before.value) / (2 * step) == pytest.approx((here.slope * along).sum(), rel=1e-6)
    bent = (after.slope - before.slope) / (2 * step)
    np.testing.assert_allclose(here.product(along.astype(np.float32)), bent, atol=1e-4)
