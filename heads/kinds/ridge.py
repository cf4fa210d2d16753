"""Least squares on the classes (+1 a class, -1 the rest) with an L2 penalty and a free intercept, in closed form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from heads.kinds.head import Params
from heads.kinds.problem import Fit, Problem


def fit_ridge(problem: Problem, grid: Sequence[Params]) -> tuple[Fit, ...]:
    """A fit for each ``alpha``, above 0: what Σ row weight · (target − decision)² + alpha · |w|² is least for."""
    from scipy.linalg import cho_factor, cho_solve

    A, shares = problem.rows.coordinates, problem.row_weights / problem.row_weights.sum()
    codes = np.arange(problem.classes) if problem.classes > 2 else np.array([1])
    targets = np.where(problem.y[:, None] == codes, 1.0, -1.0)
    centre, level = shares @ A, shares @ targets
    roots = np.sqrt(problem.row_weights)[:, None]
    centred = roots * (A - centre)
    squares, right = centred.T @ centred, centred.T @ (roots * (targets - level))
    solutions = []
    for params in grid:
        penalised = squares.copy()
        penalised[np.diag_indices_from(penalised)] += params["alpha"]
        weights = cho_solve(cho_factor(penalised, overwrite_a=True), right).T
        solutions.append((weights, level - weights @ centre))
    return tuple(map(Fit, problem.rows.heads(solutions), grid))
