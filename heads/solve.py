"""Fit linear heads with scikit-learn: a whole grid on the same rows, what can be shared computed once.

Features are standardised by the rows' own mean and deviation, so a fold never sees numbers of the rows it is judged on.

Where a table is wider than long (N < D), the rows span only N of the D directions. A solution under an L2 penalty lies
in that span, and a rotation changes neither its loss nor its penalty. So the solver gets N × N coordinates and its
weights are rotated back: the same head, several times sooner (proof: the representer theorem, Kimeldorf & Wahba 1970).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError
from heads.linear import Features, LinearHead

Params = Mapping[str, float]
"""The hyperparameters of one head, by scikit-learn's names."""

MakeEstimator = Callable[[Params, int], Any]
"""(params, seed) → an unfitted scikit-learn classifier with L2 penalty, ``coef_`` and ``intercept_``."""


def solve_linear(
    make: MakeEstimator, X: Features, y: npt.NDArray[np.int64], grid: Sequence[Params], seed: int
) -> tuple[LinearHead, ...]:
    """A head for each of the ``grid``, fitted on X (N, D) and y int64 (N,) of codes 0 to K - 1, each present.

    Raises InputError if the solver does not converge.
    """
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(X)
    coordinates = (X.astype(np.float64) - scaler.mean_) / scaler.scale_
    basis = None
    if X.shape[1] > len(X):
        basis, triangle = np.linalg.qr(coordinates.T)
        coordinates = np.ascontiguousarray(triangle.T)
    heads = []
    for params in grid:
        estimator = _fit(make(params, seed), coordinates, y, params)
        weights = estimator.coef_ if basis is None else estimator.coef_ @ basis.T
        weights = weights / scaler.scale_
        heads.append(LinearHead.from_decision(weights, estimator.intercept_ - weights @ scaler.mean_))
    return tuple(heads)


def _fit(estimator: Any, X: npt.NDArray[np.float64], y: npt.NDArray[np.int64], params: Params) -> Any:
    """The fitted estimator. A solver that gives up is an error: its head would be chosen or lost by accident."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return estimator.fit(X, y)
        except ConvergenceWarning as warning:
            raise InputError(
                f"{type(estimator).__name__} does not converge on these features",
                where=", ".join(f"{name} = {value:g}" for name, value in params.items()),
                received=str(warning).splitlines()[0],
                todo="use stronger regularisation (a smaller C), or another head",
            ) from warning
