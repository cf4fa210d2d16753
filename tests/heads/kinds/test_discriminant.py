from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from heads.kinds.discriminant import fit_discriminant
from heads.kinds.problem import Problem


@pytest.mark.parametrize("balanced", [False, True], ids=["plain", "balanced"])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("shape", [(80, 6), (40, 90)], ids=["tall", "wide"])
def test_it_is_scikit_learns_on_all_features(table, shape, classes: int, balanced: bool) -> None:
    whole, new = table(*shape, classes, noise=2.0), table(30, shape[1], classes, noise=2.0, seed=5)
    train = whole.select(np.flatnonzero((whole.y > 0) | (np.arange(len(whole)) % 3 > 0)))
    grid = tuple({"shrinkage": s} for s in (0.9, 0.5, 0.1))
    for fit in fit_discriminant(Problem(train.X, train.y, train.widths, balanced=balanced), grid):
        priors = np.full(classes, 1 / classes) if balanced else None
        lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=fit.params["shrinkage"], priors=priors)
        plain = make_pipeline(StandardScaler(), lda).fit(train.X.astype(np.float64), train.y)
        expected = plain.decision_function(new.X.astype(np.float64))
        found = fit.head.logits(new.X)
        np.testing.assert_allclose(found[:, 1] if classes == 2 else found, expected, atol=1e-4)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("width", [2, 20])
def test_one_row_a_class_makes_the_nearest_one_win(classes: int, width: int) -> None:
    X = np.random.default_rng(0).normal(size=(classes, width)).astype(np.float32)
    [fit] = fit_discriminant(Problem(X, np.arange(classes), (width,)), ({"shrinkage": 0.5},))
    assert fit.head.logits(X).argmax(axis=1).tolist() == list(range(classes))
