"""How far from 0 and 1 a submitted probability should stay: the log loss makes one sure error dear."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from heads.kinds.head import Labels

UNCLIPPED = 1e-15
"""A bound that is none: what the log losses of scikit-learn's and Kaggle's making kept from 0 and 1 of themselves."""

_BOUNDS = np.concatenate([[UNCLIPPED], np.logspace(-7, np.log10(0.3), 200)])
"""The bounds that are tried, from none to speak of to 0.3, smallest first."""


def clipped(probabilities: npt.NDArray[np.float64], bound: float) -> npt.NDArray[np.float64]:
    """Probabilities (N, C) of which none is nearer to 1 than ``bound`` (below 1/2); every row still sums to 1.

    Two classes: clipped to [bound, 1 - bound]. More: none is below bound / (C - 1), and what is above that makes room.
    So a row of one sure class becomes 1 - bound and equal shares for the rest, and rows that are not sure stay.
    """
    classes = probabilities.shape[1]
    if classes == 2:
        return np.clip(probabilities, bound, 1 - bound)
    floor = bound / (classes - 1)
    above = np.maximum(probabilities - floor, 0)
    return np.asarray(floor + above * ((1 - classes * floor) / above.sum(axis=1, keepdims=True)), np.float64)


def fit_clip(probabilities: npt.NDArray[np.float64], y: Labels) -> float:
    """The bound for which :func:`clipped` probabilities (N, C) have the least log loss on labels ``y`` (N,).

    So it never makes these rows worse. Of bounds that are equally good the largest is taken: where no held-out image
    was called too surely, later ones are called as surely as these were, and not more.
    """
    rows = np.arange(len(y))
    losses = [-np.log(np.maximum(clipped(probabilities, b)[rows, y], UNCLIPPED)).sum() for b in _BOUNDS]
    best = np.flatnonzero(np.asarray(losses) <= min(losses))
    return float(_BOUNDS[best[-1]])
