"""How far from 0 and 1 a submitted probability should stay: the log loss makes one sure error dear."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from heads.kinds.head import Labels

_BOUNDS = np.concatenate([[1e-7], np.logspace(-6, np.log10(0.3), 200)])
"""The bounds that are tried, from none to speak of to 0.3."""


def fit_clip(probabilities: npt.NDArray[np.float64], y: Labels) -> float:
    """The bound b for which probabilities (N, C) clipped to [b, 1 - b] have the least log loss on labels ``y`` (N,).

    One image more, called wrongly as surely as any, is added to the count (a rule of succession): without an error
    among N images the best bound would be none at all, and about 1/N is what they bear out.
    """
    of_truth = probabilities[np.arange(len(y)), y]
    clipped = np.clip(of_truth[None, :], _BOUNDS[:, None], 1 - _BOUNDS[:, None])
    losses = -np.log(clipped).sum(axis=1) - np.log(np.clip(1 - of_truth.max(), _BOUNDS, 1 - _BOUNDS))
    return float(_BOUNDS[int(np.argmin(losses))])
