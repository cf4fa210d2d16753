"""Linear discriminant analysis (Fisher, 1936) with a shrunk covariance, in the span of the rows.

The covariance within classes S of D features is shrunk to (1 - s)·S + s·(tr S / D)·1, as scikit-learn has it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from heads.kinds.head import Params
from heads.kinds.problem import Fit, Problem


def fit_discriminant(problem: Problem, grid: Sequence[Params]) -> tuple[Fit, ...]:
    """A fit for each ``shrinkage``, above 0 and below 1. Balanced means that all classes are expected equally often."""
    from scipy.linalg import cho_factor, cho_solve

    space = problem.rows
    A, counts = space.coordinates, np.bincount(problem.y)
    priors = np.full(len(counts), 1 / len(counts)) if problem.balanced else counts / len(problem.y)
    means = np.stack([A[problem.y == label].mean(axis=0) for label in range(len(counts))])
    spread = (A - means[problem.y]) * np.sqrt(priors / counts)[problem.y][:, None]
    within = spread.T @ spread
    variance = max(float(np.trace(within)), 1e-12 * float(np.vdot(A, A)), 1e-300)  # with one row a class it is 0
    solutions = []
    for params in grid:
        shrunk = (1 - params["shrinkage"]) * within
        shrunk[np.diag_indices_from(shrunk)] += params["shrinkage"] * variance / space.width
        found = cho_solve(cho_factor(shrunk, overwrite_a=True), means.T).T
        bias = np.log(priors) - 0.5 * np.einsum("kr,kr->k", found, means)
        if len(counts) == 2:
            found, bias = found[1:] - found[:1], bias[1:] - bias[:1]
        solutions.append((found, bias))
    return tuple(map(Fit, space.heads(solutions), grid))
