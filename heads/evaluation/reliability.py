"""How often a head is right when it is so sure: a reliability diagram's numbers (Niculescu-Mizil & Caruana, 2005)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from heads.evaluation.metrics import BINS
from heads.kinds.head import Labels

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """In the bins of the expected calibration error that have an image.

    confidence, accuracy : float64 (B,), means of a bin; counts : int64 (B,), its images.
    """

    confidence: _Floats
    accuracy: _Floats
    counts: Labels

    @classmethod
    def of(cls, confidence: npt.NDArray[np.floating], right: npt.NDArray[np.bool_]) -> Reliability:
        """From the likeliest class's probability (N,), 0 to 1, and whether it is the right one (N,)."""
        bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        counts = np.bincount(bins, minlength=BINS)
        used = counts > 0
        sums = [np.bincount(bins, weights=values, minlength=BINS)[used] for values in (confidence, right)]
        return cls(sums[0] / counts[used], sums[1] / counts[used], counts[used])
