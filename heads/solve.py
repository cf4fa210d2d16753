"""Fit linear heads with scikit-learn: a whole grid on the same rows, what can be shared computed once.

Features are standardised by the rows' own mean and deviation, so a fold never sees numbers of the rows it is judged on.

Where a table is wider than long (N < D), the rows span only N of the D directions. A solution under an L2 penalty lies
in that span, and a rotation changes neither its loss nor its penalty. So the solver gets N × N coordinates and its
weights are rotated back: the same head, several times sooner (proof: the representer theorem, Kimeldorf & Wahba 1970).

Small problems run on one BLAS thread: their products are so small that threads only wait for one another. (Measured on
two busy cores, 510 × 256 features, 17 classes: 0.6 s instead of 15 s.)
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

_SMALL = 20_000_000
"""Numbers in a table below which one BLAS thread is the fastest."""

MakeEstimator = Callable[[Params, int], Any]
"""(params, seed) → an unfitted scikit-learn classifier with L2 penalty, ``coef_`` and ``intercept_``."""


def solve_linear(
    make: MakeEstimator, X: Features, y: npt.NDArray[np.int64], grid: Sequence[Params], seed: int
) -> tuple[LinearHead, ...]:
    """Heads fitted on X (N, D) and y int64 (N,) of codes 0 to K - 1, each present; one for each value of the ``grid``.

    The grid goes from strong to weak regularisation, which is ever harder to solve: at the first value for which the
    solver does not converge it stops, and the heads are fewer. Raises InputError if that is the very first.
    """
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    scaler = StandardScaler().fit(X)
    coordinates = (X.astype(np.float64) - scaler.mean_) / scaler.scale_
    basis = None
    if X.shape[1] > len(X):
        basis, triangle = np.linalg.qr(coordinates.T)
        coordinates = np.ascontiguousarray(triangle.T)
    heads: list[LinearHead] = []
    with threadpool_limits(1 if coordinates.size < _SMALL else None):
        for params in grid:
            estimator = make(params, seed)
            if problem := _fit(estimator, coordinates, y):
                if heads:
                    break
                raise InputError(
                    f"{type(estimator).__name__} does not converge on these features",
                    where=", ".join(f"{name} = {value:g}" for name, value in params.items()),
                    received=problem,
                    todo="try another head or pooling, and look at the images of the smallest class",
                )
            weights = estimator.coef_ if basis is None else estimator.coef_ @ basis.T
            weights = weights / scaler.scale_
            heads.append(LinearHead.from_decision(weights, estimator.intercept_ - weights @ scaler.mean_))
    return tuple(heads)


def _fit(estimator: Any, X: npt.NDArray[np.float64], y: npt.NDArray[np.int64]) -> str | None:
    """Fit; the solver's complaint if it gave up, for a head that is half solved would be chosen or lost by accident."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            estimator.fit(X, y)
        except ConvergenceWarning as warning:
            return str(warning).partition("\n")[0]
    return None
