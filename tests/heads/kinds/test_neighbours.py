from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from featstore.errors import InputError
from heads.kinds.head import softmax
from heads.kinds.neighbours import NeighboursHead, fit_neighbours
from heads.kinds.problem import Problem


def fitted(train, k: int = 7, weights: str = "uniform", balanced: bool = False) -> NeighboursHead:
    problem = Problem(train.X, train.y, train.widths, balanced=balanced)
    [fit] = fit_neighbours(problem, ({"k": k, "weights": weights},))
    return fit.head


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("k", [1, 7])
def test_the_choices_are_scikit_learns(table, k: int, weights: str, classes: int) -> None:
    train, new = table(90, 8, classes, noise=2.0), table(200, 8, classes, noise=2.0, seed=1)
    scaler = StandardScaler().fit(train.X.astype(np.float64))
    plain = KNeighborsClassifier(k, weights=weights).fit(scaler.transform(train.X.astype(np.float64)), train.y)
    expected = plain.predict(scaler.transform(new.X.astype(np.float64)))
    assert (fitted(train, k, weights).logits(new.X).argmax(axis=1) == expected).all()


def test_the_probabilities_are_smoothed_shares(table) -> None:
    train = table(90, noise=0.0)
    shares = softmax(fitted(train, k=5).logits(train.X[:1]))[0]
    np.testing.assert_allclose(shares, np.array([5.5, 0.5, 0.5]) / 6.5)


def test_rare_classes_weigh_more_where_that_is_asked(table) -> None:
    train = table(90, noise=3.0)
    rare = train.select(np.flatnonzero((train.y != 2) | (np.arange(90) < 12)))
    new = table(300, noise=3.0, seed=1)
    plain, balanced = ((fitted(rare, 15, balanced=b).logits(new.X).argmax(axis=1) == 2).sum() for b in (False, True))
    assert balanced > plain


def test_more_neighbours_than_rows_are_all(table) -> None:
    assert fitted(table(30), k=31).k == 30


def test_arrays_that_do_not_fit_are_refused(table) -> None:
    head = fitted(table(30))
    arrays, config = head.to_arrays()
    again = NeighboursHead.from_arrays(arrays, config)
    assert (again.width, again.outputs, again.k) == (8, 3, 7)
    for changes in (
        {"rows": arrays["rows"][:5]},
        {"rows": arrays["rows"] * np.float32(np.nan)},
        {"labels": arrays["labels"] - 1},
        {"scale": arrays["scale"] * 0},
        {"row_weights": -arrays["row_weights"]},
        {"mean": arrays["mean"].astype(np.float32)},
    ):
        with pytest.raises(InputError):
            NeighboursHead.from_arrays({**arrays, **changes}, config)
    for settings in ({}, {**config, "k": 0}, {**config, "k": "7"}, {**config, "more": 1}):
        with pytest.raises(InputError):
            NeighboursHead.from_arrays(arrays, settings)
    with pytest.raises(InputError, match="do not fit this head"):
        head.logits(np.zeros((2, 5), np.float32))
