"""Linear discriminant analysis (Fisher, 1936) with a shrunk covariance, in the span of the rows.

The covariance S of D features is shrunk to (1 - s)·S + s·(tr S / D)·1. In R coordinates scikit-learn would add tr S / R
instead, so it is asked for the s' with s'/(1 - s') = s/(1 - s) · R/D, and its weights are scaled by (1 - s')/(1 - s).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from heads.kinds.head import Params
from heads.kinds.linear import LinearHead
from heads.kinds.problem import Fit, Problem


def fit_discriminant(problem: Problem, grid: Sequence[Params]) -> tuple[Fit, ...]:
    """A fit for each ``shrinkage``, above 0 and below 1. Balanced means that all classes are expected equally often."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    space = problem.rows
    counts = np.bincount(problem.y)
    priors = np.full(len(counts), 1 / len(counts)) if problem.balanced else counts / len(problem.y)
    log_priors = np.log(priors) if len(counts) > 2 else np.log(priors[1:] / priors[:1])
    fits = []
    for params in grid:
        odds = params["shrinkage"] / (1 - params["shrinkage"]) * space.coordinates.shape[1] / space.width
        shrinkage = odds / (1 + odds)
        scale = (1 - shrinkage) / (1 - params["shrinkage"])
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=priors)
        model.fit(space.coordinates, problem.y)
        bias = (model.intercept_ - log_priors) * scale + log_priors
        fits.append(Fit(LinearHead.from_decision(*space.lift(model.coef_ * scale, bias)), params))
    return tuple(fits)
