"""How sure a head may be: one number that turns scores into probabilities, fitted on rows it was not trained on.

Temperature scaling (Guo et al., 2017, "On calibration of modern neural networks") multiplies all logits by one factor,
so it changes no choice; with two classes it is Platt's sigmoid without its offset. Platt's smoothed targets (1999) keep
the factor finite where the held-out rows are separated without an error.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_RANGE = (-12.0, 12.0)
"""Bounds of the factor's natural logarithm: e⁻¹² to e¹²."""


def fit_temperature(logits: npt.NDArray[np.float64], y: npt.NDArray[np.int64]) -> float:
    """The factor for ``logits`` (N, K) that minimises the cross-entropy to the smoothed labels ``y`` (N,).

    The true class gets 1 - 1/(N + 2), the others share the rest. A row whose label is -1 (a class the head does not
    know) is left out; with no row at all the factor is 1.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    logits, y = logits[y >= 0], y[y >= 0]
    count, classes = logits.shape
    if not count:
        return 1.0
    spared = 1.0 / (count + 2)
    target = np.full((count, classes), spared / (classes - 1))
    target[np.arange(count), y] = 1.0 - spared

    def cross_entropy(log_factor: float) -> float:
        return -float(np.sum(target * log_softmax(np.exp(log_factor) * logits, axis=1)))

    return float(np.exp(minimize_scalar(cross_entropy, bounds=_RANGE, method="bounded").x))
