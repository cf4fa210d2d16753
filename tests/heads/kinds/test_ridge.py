from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from heads.kinds.problem import Problem
from heads.kinds.ridge import fit_ridge

GRID = ({"alpha": 100.0}, {"alpha": 10.0}, {"alpha": 0.3})


@pytest.mark.parametrize("balanced", [False, True], ids=["plain", "balanced"])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("shape", [(80, 6), (40, 90)], ids=["tall", "wide"])
def test_decisions_are_scikit_learns(table, shape, classes: int, balanced: bool) -> None:
    whole, new = table(*shape, classes, noise=2.0), table(30, shape[1], classes, noise=2.0, seed=5)
    train = whole.select(np.flatnonzero((whole.y > 0) | (np.arange(len(whole)) % 3 > 0)))  # uneven classes
    fits = fit_ridge(Problem(train.X, train.y, train.widths, balanced=balanced), GRID)
    for params, fit in zip(GRID, fits, strict=True):
        estimator = RidgeClassifier(**params, class_weight="balanced" if balanced else None)
        plain = make_pipeline(StandardScaler(), estimator).fit(train.X.astype(np.float64), train.y)
        mine = fit.head.logits(new.X)
        expected = plain.decision_function(new.X.astype(np.float64))
        np.testing.assert_allclose(mine[:, 1] if classes == 2 else mine, expected, atol=1e-6)


def test_the_table_is_not_written_over(table) -> None:
    train = table(20, 40)
    before = train.X.copy()
    fit_ridge(Problem(train.X, train.y, train.widths), GRID)
    assert (before == train.X).all()
