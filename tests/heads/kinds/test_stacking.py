from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featstore.errors import InputError
from heads.kinds.newton import solve_logistic
from heads.kinds.problem import Problem
from heads.kinds.stacking import fit_stacking


def exact(params: Any, seed: int) -> LogisticRegression:
    return LogisticRegression(**params, max_iter=5000, tol=1e-8, random_state=seed)


FIT = partial(fit_stacking, solve_logistic)


@pytest.mark.parametrize("classes", [2, 3])
def test_it_is_what_scikit_learns_parts_make(table, classes: int) -> None:
    train, new = table(90, 10, classes, noise=3.0), table(40, 10, classes, noise=3.0, seed=1)
    X, new_X = train.X.astype(np.float64), new.X.astype(np.float64)
    [fit] = FIT(Problem(train.X, train.y, (4, 6), seed=3), ({"C": 0.1},))
    folds, unseen, said = StratifiedKFold(5, shuffle=True, random_state=3), [], []
    for block in (slice(0, 4), slice(4, 10)):
        part = make_pipeline(StandardScaler(), exact({"C": 0.1}, 0))
        out = cross_val_predict(part, X[:, block], train.y, cv=folds, method="decision_function")
        unseen.append(out.reshape(90, -1))
        said.append(part.fit(X[:, block], train.y).decision_function(new_X[:, block]).reshape(40, -1))
    top = make_pipeline(StandardScaler(), exact({"C": 1.0}, 0)).fit(np.hstack(unseen), train.y)
    expected = top.decision_function(np.hstack(said))
    found = fit.head.logits(new.X)
    np.testing.assert_allclose(found[:, 1] if classes == 2 else found, expected, atol=1e-4)


def test_one_backbone_cannot_be_stacked(table) -> None:
    train = table()
    with pytest.raises(InputError, match="combines backbones"):
        FIT(Problem(train.X, train.y, (8,)), ({"C": 0.1},))


def test_a_class_with_a_single_image_is_said(table) -> None:
    train = table(60)
    lonely = train.select(np.concatenate([np.flatnonzero(train.y != 2), np.flatnonzero(train.y == 2)[:1]]))
    with pytest.raises(InputError, match="two images of every class"):
        FIT(Problem(lonely.X, lonely.y, (4, 4)), ({"C": 0.1},))


def test_no_fold_is_judged_by_copies_of_its_images(table) -> None:
    """With every image twice and labels of chance, heads that saw the copies would know the answers."""
    train = table(60, 200)
    y = np.random.default_rng(0).integers(0, 2, 60)
    X, twice = np.concatenate([train.X, train.X]), np.tile(y, 2)
    last: list[Problem] = []

    def spy(problem: Problem, grid: Any) -> Any:
        last.append(problem)
        return solve_logistic(problem, grid)

    fit_stacking(spy, Problem(X, twice, (100, 100), image=np.tile(np.arange(60), 2)), ({"C": 1.0},))
    said = last[-1].X[:, 1] > last[-1].X[:, 0]
    assert (said == twice).mean() < 0.7
