"""How sure a head may be: from logits to probabilities, by a map fitted on rows that the head was not fitted on.

Temperature scaling (Guo et al., 2017, "On calibration of modern neural networks") multiplies all logits by one factor,
so it changes no choice; with two classes it is Platt's sigmoid without its offset. Platt's smoothed targets (1999) keep
the factor finite where the held-out rows are separated without an error. Isotonic regression (Zadrozny & Elkan, 2002)
gives each class any rising curve; it needs many held-out rows, and may change choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from heads.kinds.head import Labels, Logits, softmax

Method = Literal["none", "temperature", "isotonic"]

Curve = tuple[tuple[float, ...], tuple[float, ...]]
"""The corners (x, y) of a rising, piecewise linear function from 0..1 to 0..1."""

FOLDS = 5
"""Parts of the held-out rows, each of which is calibrated by the others to be judged."""

_RANGE = (-12.0, 12.0)
"""Bounds of the factor's natural logarithm: e⁻¹² to e¹²."""

_LEAST = 1e-6
"""The least probability that an isotonic curve gives: a curve that says 0 or 1 has only not seen enough rows."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """none: softmax(logits). temperature: softmax(factor · logits). isotonic: each class's softmax probability through
    its own rising, piecewise linear curve, then divided by their sum.

    factor : above 0. curves : for "isotonic" a pair (x, y) of equally long tuples a class, both rising within 0 and 1.
    """

    method: Method = "none"
    factor: float = 1.0
    curves: tuple[Curve, ...] = ()

    def probabilities(self, logits: Logits) -> npt.NDArray[np.float64]:
        """Probabilities (N, K) from logits (N, K); every row sums to 1."""
        plain = softmax(self.factor * logits)
        if self.method != "isotonic":
            return plain
        bent = np.stack([np.interp(plain[:, i], x, y) for i, (x, y) in enumerate(self.curves)], axis=1)
        return np.asarray(bent / bent.sum(axis=1, keepdims=True), np.float64)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; every number survives exactly."""
        curves = [{"x": list(x), "y": list(y)} for x, y in self.curves]
        return {"method": self.method, "factor": self.factor, "curves": curves}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Calibration:
        """The calibration written by :meth:`to_json`; raises KeyError, TypeError or ValueError on anything else."""
        method, factor = data["method"], float(data["factor"])
        if method not in get_args(Method) or not 0 < factor < float("inf"):
            raise ValueError(f"no calibration: {method!r}, factor {factor}")
        return cls(method, factor, tuple(_curve(entry) for entry in data["curves"]))


def fit_calibration(method: Method, logits: Logits, y: Labels) -> Calibration:
    """The calibration for held-out ``logits`` (N, K) with right answers ``y`` (N,), -1 for a class not known.

    Rows of a class not known are left out; with no row at all nothing is changed.
    """
    known = y >= 0
    if method == "none" or not known.any():
        return Calibration()
    if method == "temperature":
        return Calibration(method, _fit_temperature(logits[known], y[known]))
    plain = softmax(logits[known])
    return Calibration(method, curves=tuple(_fit_curve(plain[:, i], y[known] == i) for i in range(plain.shape[1])))


def cross_calibrated(method: Method, logits: Logits, y: Labels, *, seed: int = 0) -> npt.NDArray[np.float64]:
    """Probabilities (N, K) of held-out ``logits``, each row calibrated without its own answer, by :data:`FOLDS` folds.

    So they may be judged by the same answers ``y`` (N,), -1 for a class not known. Fewer rows than folds stay as they
    are.
    """
    from sklearn.model_selection import KFold

    plain = softmax(logits)
    if method == "none" or (y >= 0).sum() < FOLDS:
        return plain
    out = np.empty_like(plain)
    for others, own in KFold(FOLDS, shuffle=True, random_state=seed).split(logits):
        out[own] = fit_calibration(method, logits[others], y[others]).probabilities(logits[own])
    return out


def _fit_temperature(logits: Logits, y: Labels) -> float:
    """The factor that minimises the cross-entropy to smoothed labels: 1 - 1/(N + 2) for the true class, rest shared."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    count, classes = logits.shape
    spared = 1.0 / (count + 2)
    target = np.full((count, classes), spared / (classes - 1))
    target[np.arange(count), y] = 1.0 - spared

    def cross_entropy(log_factor: float) -> float:
        return -float(np.sum(target * log_softmax(np.exp(log_factor) * logits, axis=1)))

    return float(np.exp(minimize_scalar(cross_entropy, bounds=_RANGE, method="bounded").x))


def _fit_curve(plain: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> Curve:
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=_LEAST, y_max=1 - _LEAST).fit(plain, truth)
    return tuple(fitted.X_thresholds_.tolist()), tuple(fitted.y_thresholds_.tolist())


def _curve(entry: Mapping[str, Any]) -> Curve:
    x, y = (tuple(float(number) for number in entry[name]) for name in ("x", "y"))
    rising = all(np.diff(x) >= 0) and all(np.diff(y) >= 0)
    if not x or len(x) != len(y) or not rising or not (0 <= x[0] <= x[-1] <= 1 and 0 < y[0] <= y[-1] <= 1):
        raise ValueError("a calibration curve that does not rise within 0 and 1")
    return x, y
