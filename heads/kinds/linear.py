"""A linear head: two plain arrays, and numpy alone from features to probabilities.

Scaling and calibration are folded into the arrays when a head is fitted, so that serving is one product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError
from heads.kinds.head import Arrays, Features, Logits, in_blocks, product


@dataclass(frozen=True, slots=True, eq=False)
class LinearHead:
    """logits = X · weightsᵀ + bias, probabilities = softmax(logits).

    weights : float64 (K, D), a row a class; two classes have two rows as well, the first of them zeros, so that the
        softmax is the logistic function of the second.
    bias : float64 (K,).
    Raises InputError if the shapes do not fit or a number is not finite.
    """

    format: ClassVar[str] = "linear"

    weights: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        """Check the arrays once, here, so that no prediction has to."""
        shapes = f"{self.weights.shape} and {self.bias.shape}"
        if self.weights.ndim != 2 or self.bias.shape != self.weights.shape[:1] or len(self.bias) < 2:
            raise InputError("a linear head's arrays do not fit", expected="(K, D) and (K,), K > 1", received=shapes)
        if not (np.isfinite(self.weights).all() and np.isfinite(self.bias).all()):
            raise InputError("a linear head holds numbers that are not finite", received=shapes)

    @classmethod
    def from_decision(cls, weights: npt.NDArray[np.floating], bias: npt.NDArray[np.floating]) -> LinearHead:
        """The head of a decision function: (K, D) and (K,); or (1, D) and (1,), where above 0 is the second class."""
        if len(bias) == 1:
            weights, bias = np.vstack([np.zeros_like(weights), weights]), np.append(0.0, bias)
        return cls(weights.astype(np.float64), bias.astype(np.float64))

    @property
    def width(self) -> int:
        """D, the number of features it expects."""
        return int(self.weights.shape[1])

    @property
    def outputs(self) -> int:
        """K, the number of classes it tells apart."""
        return len(self.bias)

    def to_arrays(self) -> tuple[Arrays, Mapping[str, Any]]:
        """``weights`` and ``bias``, and nothing else."""
        return {"weights": self.weights, "bias": self.bias}, {}

    @classmethod
    def from_arrays(cls, arrays: Arrays, config: Mapping[str, Any]) -> LinearHead:
        """The head written by :meth:`to_arrays`; raises InputError if these cannot be one."""
        if set(arrays) != {"weights", "bias"} or config or any(a.dtype != np.float64 for a in arrays.values()):
            raise InputError("a linear head's arrays do not fit", expected="weights and bias, float64")
        return cls(arrays["weights"], arrays["bias"])

    def logits(self, X: Features) -> Logits:
        """float64 (N, K) for features (N, D); raises InputError if D is not the head's."""
        products = product(self.weights.T)
        return in_blocks(lambda rows: products(rows) + self.bias, X, self)
