"""How good are predictions, and how sure can one be of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError

CONFIDENCE = 0.95
"""The coverage of every interval."""


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy (0 to 1) on ``n`` images, and the 95 % interval (low, high) that it is known within."""

    accuracy: float
    interval: tuple[float, float]
    n: int

    def to_json(self) -> dict[str, Any]:
        """``{"accuracy", "interval": [low, high], "n"}``."""
        return {"accuracy": self.accuracy, "interval": list(self.interval), "n": self.n}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Score:
        """The score written by :meth:`to_json`; raises KeyError, TypeError or ValueError on anything else."""
        low, high = data["interval"]
        return cls(float(data["accuracy"]), (float(low), float(high)), int(data["n"]))


@dataclass(frozen=True, slots=True)
class Trial:
    """Hyperparameters that were tried, by scikit-learn's names, and their score on held-out rows."""

    params: Mapping[str, float]
    score: Score


def accuracy(y: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]) -> Score:
    """The share of ``predicted`` (N,) that equals ``y`` (N,), with Wilson's 95 % interval (Wilson, 1927).

    Wilson's interval stays within 0 and 1 and is honest for small N and for an accuracy of exactly 1.
    Raises InputError if there is nothing to score or the two differ in length.
    """
    if y.shape != predicted.shape or not len(y):
        raise InputError(
            "nothing to score", expected="two equally long lists", received=f"{y.shape} and {predicted.shape}"
        )
    from scipy.stats import binomtest

    correct, n = int((y == predicted).sum()), len(y)
    low, high = binomtest(correct, n).proportion_ci(CONFIDENCE, method="wilson")
    return Score(correct / n, (float(low), float(high)), n)
