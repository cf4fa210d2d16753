"""Fit linear heads with scikit-learn: a whole grid on the same rows, what can be shared computed once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError
from heads.kinds.head import Labels, Params
from heads.kinds.linear import LinearHead
from heads.kinds.problem import Fit, Problem

MakeEstimator = Callable[[Params, int], Any]
"""(params, seed) → an unfitted scikit-learn classifier with L2 penalty, ``coef_`` and ``intercept_``."""


def solve_linear(make: MakeEstimator, problem: Problem, grid: Sequence[Params]) -> tuple[Fit, ...]:
    """A fit for each value of the ``grid``, which goes from strong to weak regularisation.

    That is ever harder to solve: at the first value for which the solver does not converge it stops, and the fits are
    fewer. Raises InputError if that is the very first.
    """
    rows = problem.rows
    fits: list[Fit] = []
    previous: Any = None
    with rows.threads():
        for params in grid:
            estimator = make(params, problem.seed)
            _start_from(estimator, previous)
            if problem.balanced:  # not as weights of rows: liblinear does not weigh the rest of one against the rest
                estimator.set_params(class_weight="balanced")
            if complaint := _fit(estimator, rows.coordinates, problem.y):
                if fits:
                    break
                raise InputError(
                    f"{type(estimator).__name__} does not converge on these features",
                    where=", ".join(f"{name} = {value:g}" for name, value in params.items()),
                    received=complaint,
                    todo="try another head or pooling, and look at the images of the smallest class",
                )
            weights, bias = np.atleast_2d(estimator.coef_), np.atleast_1d(estimator.intercept_)
            fits.append(Fit(LinearHead.from_decision(*rows.lift(weights, bias)), params))
            previous = estimator
    return tuple(fits)


def _start_from(estimator: Any, previous: Any) -> None:
    """Let a solver that can start where the one for the value before it stopped."""
    if previous is not None and getattr(estimator, "warm_start", False):
        estimator.coef_, estimator.intercept_ = previous.coef_.copy(), previous.intercept_.copy()
        estimator.classes_ = previous.classes_


def _fit(estimator: Any, X: npt.NDArray[np.float64], y: Labels) -> str | None:
    """Fit; the solver's complaint if it gave up, for a head that is half solved would be chosen or lost by accident."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            estimator.fit(X, y)
        except ConvergenceWarning as warning:
            return str(warning).partition("\n")[0]
    return None
