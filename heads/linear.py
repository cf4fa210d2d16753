"""A linear head: two plain arrays, and numpy alone from features to probabilities.

Scaling and calibration are folded into the arrays when a head is fitted, so that serving is one product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError

Features = npt.NDArray[np.floating]
"""Features, float (N, D)."""

_CHUNK = 8192
"""Rows widened to float64 at a time: bounds the memory of a prediction."""


def softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Probabilities (N, K) from logits (N, K); every row sums to 1, and large logits do not overflow."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class LinearHead:
    """logits = X · weightsᵀ + bias, probabilities = softmax(logits).

    weights : float64 (K, D), a row a class; two classes have two rows as well, the first of them zeros, so that the
        softmax is the logistic function of the second.
    bias : float64 (K,).
    Raises InputError if the shapes do not fit or a number is not finite.
    """

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

    def scaled(self, factor: float) -> LinearHead:
        """The head with its logits times ``factor`` > 0: the same choices, surer or less sure of them."""
        return LinearHead(self.weights * factor, self.bias * factor)

    def logits(self, X: Features) -> npt.NDArray[np.float64]:
        """float64 (N, K) for features (N, D); raises InputError if D is not the head's."""
        if X.ndim != 2 or X.shape[1] != self.width:
            raise InputError("features do not fit this head", expected=f"(N, {self.width})", received=X.shape)
        out = np.empty((len(X), len(self.bias)))
        for start in range(0, len(X), _CHUNK):
            rows = slice(start, start + _CHUNK)
            np.matmul(X[rows].astype(np.float64), self.weights.T, out=out[rows])
        return np.add(out, self.bias, out=out)

    def probabilities(self, X: Features) -> npt.NDArray[np.float64]:
        """float64 (N, K) for features (N, D); every row sums to 1."""
        return softmax(self.logits(X))

    def predict(self, X: Features) -> npt.NDArray[np.int64]:
        """int64 (N,): the column of the likeliest class; the first of equals."""
        return np.asarray(self.logits(X).argmax(axis=1), np.int64)
