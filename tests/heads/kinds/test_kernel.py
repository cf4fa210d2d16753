from __future__ import annotations

import numpy as np
import pytest
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from featstore.errors import InputError
from heads.kinds.kernel import KernelHead, fit_kernel
from heads.kinds.problem import Problem

GRID = ({"C": 1.0, "gamma": 0.3}, {"C": 10.0, "gamma": 1.0})


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("shape", [(80, 6), (40, 90)], ids=["tall", "wide"])
def test_decisions_are_scikit_learns(table, shape, classes: int) -> None:
    train, new = table(*shape, classes, noise=2.0), table(30, shape[1], classes, noise=2.0, seed=5)
    for fit in fit_kernel(Problem(train.X, train.y, train.widths), GRID):
        machine = SVC(kernel="rbf", C=fit.params["C"], gamma=fit.params["gamma"] / shape[1], tol=1e-3)
        plain = make_pipeline(StandardScaler(), OneVsRestClassifier(machine)).fit(train.X.astype(np.float64), train.y)
        expected = plain.decision_function(new.X.astype(np.float64))
        found = fit.head.logits(new.X)
        np.testing.assert_allclose(found[:, 1] if classes == 2 else found, expected, atol=1e-4)


def test_only_support_vectors_are_kept(table) -> None:
    train = table(300, noise=0.5)
    [fit] = fit_kernel(Problem(train.X, train.y, train.widths), GRID[:1])
    assert 0 < len(fit.head.rows) < 200


def test_rare_classes_weigh_more_where_that_is_asked(table) -> None:
    train = table(90, noise=3.0)
    rare = train.select(np.flatnonzero((train.y != 2) | (np.arange(90) < 12)))
    new = table(300, noise=3.0, seed=1)
    plain, balanced = (
        (
            fit_kernel(Problem(rare.X, rare.y, (8,), balanced=b), GRID[:1])[0].head.logits(new.X).argmax(axis=1) == 2
        ).sum()
        for b in (False, True)
    )
    assert balanced > plain


def test_a_rows_logits_do_not_depend_on_its_company_to_the_last_bit(table) -> None:
    train = table(200, 512)
    [fit] = fit_kernel(Problem(train.X, train.y, train.widths), GRID[:1])
    whole, order = fit.head.logits(train.X), np.random.default_rng(0).permutation(200)
    np.testing.assert_array_equal(fit.head.logits(train.X[order]), whole[order])
    np.testing.assert_array_equal(np.concatenate([fit.head.logits(train.X[i : i + 1]) for i in range(9)]), whole[:9])


def test_arrays_that_do_not_fit_are_refused(table) -> None:
    train = table(40)
    [fit] = fit_kernel(Problem(train.X, train.y, train.widths), GRID[:1])
    arrays, config = fit.head.to_arrays()
    for changes in (
        {"rows": arrays["rows"][:2]},
        {"bias": arrays["bias"][:1]},
        {"scale": -arrays["scale"]},
        {"mean": arrays["mean"] * np.inf},
        {"rows": arrays["rows"].astype(np.float64)},
    ):
        with pytest.raises(InputError), np.errstate(invalid="ignore"):
            KernelHead.from_arrays({**arrays, **changes}, config)
    for settings in ({}, {"gamma": 0.0}, {"gamma": "1"}, {**config, "more": 1}):
        with pytest.raises(InputError):
            KernelHead.from_arrays(arrays, settings)
    with pytest.raises(InputError, match="do not fit this head"):
        fit.head.logits(np.zeros((2, 5), np.float32))
