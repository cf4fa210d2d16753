"""Support vector machines with a Gaussian kernel, one class against the rest: fitted on one matrix of distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError
from heads.kinds.distances import squared_distances
from heads.kinds.head import Arrays, Features, Logits, Params, in_blocks, product
from heads.kinds.problem import Fit, Problem

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class KernelHead:
    """logits = exp(-gamma · |z - rows|²) · coefficientsᵀ + bias, of standardised features z.

    rows : float32 (S, D), the support vectors, standardised. mean, scale : float64 (D,), what standardises features.
    coefficients, bias : float64 (K, S) and (K,); of two classes the first has zeros. gamma : above 0.
    Raises InputError if the arrays do not fit.
    """

    format: ClassVar[str] = "kernel"

    rows: npt.NDArray[np.float32]
    mean: _Floats
    scale: _Floats
    coefficients: _Floats
    bias: _Floats
    gamma: float

    def __post_init__(self) -> None:
        """Check the arrays once, here, so that no prediction has to."""
        arrays = (self.rows, self.mean, self.scale, self.coefficients, self.bias)
        fits = (
            self.rows.ndim == 2
            and self.mean.shape == self.scale.shape == self.rows.shape[1:]
            and self.coefficients.shape == (len(self.bias), len(self.rows))
            and self.bias.ndim == 1
            and len(self.bias) > 1
        )
        if not fits or not (self.scale > 0).all() or not 0 < self.gamma < np.inf:
            raise InputError(
                "a kernel head's arrays do not fit",
                expected="rows (S, D), mean and scale (D,), coefficients (K, S), bias (K,), K > 1, gamma > 0",
                received=", ".join(str(array.shape) for array in arrays) + f", gamma = {self.gamma}",
            )
        if not all(np.isfinite(array).all() for array in arrays):
            raise InputError("a kernel head holds numbers that are not finite")

    @property
    def width(self) -> int:
        """D, the number of features it expects."""
        return int(self.rows.shape[1])

    @property
    def outputs(self) -> int:
        """K, the number of classes it tells apart."""
        return len(self.bias)

    def logits(self, X: Features) -> Logits:
        """float64 (N, K) for features (N, D); raises InputError if D is not the head's."""
        distances = squared_distances(self.rows, self.mean, self.scale)
        products = product(self.coefficients.T)

        def of_rows(rows: Features) -> Logits:
            return products(np.exp(-self.gamma * distances(rows))) + self.bias

        return in_blocks(of_rows, X, self)

    def to_arrays(self) -> tuple[Arrays, Mapping[str, Any]]:
        """Its five arrays, and ``gamma``."""
        names = ("rows", "mean", "scale", "coefficients", "bias")
        return {name: getattr(self, name) for name in names}, {"gamma": self.gamma}

    @classmethod
    def from_arrays(cls, arrays: Arrays, config: Mapping[str, Any]) -> KernelHead:
        """The head written by :meth:`to_arrays`; raises InputError if these cannot be one."""
        names = ("mean", "scale", "coefficients", "bias")
        types = {"rows": "float32", **dict.fromkeys(names, "float64")}
        found = {name: str(array.dtype) for name, array in arrays.items()}
        if found != types or set(config) != {"gamma"} or not isinstance(config["gamma"], float):
            raise InputError("a kernel head's arrays do not fit", expected=f"{types} and gamma", received=found)
        return cls(**arrays, gamma=config["gamma"])


def fit_kernel(problem: Problem, grid: Sequence[Params]) -> tuple[Fit, ...]:
    """A fit for each value of ``C`` and ``gamma``, the latter in units of 1/D (so that 1 is scikit-learn's "scale")."""
    space = problem.rows
    own = np.diagonal(space.gram)
    squares = np.maximum(own[:, None] - 2 * space.gram + own, 0.0)
    rows = ((problem.X - space.mean) / space.scale).astype(np.float32)
    fits = []
    for params in grid:
        gamma = params["gamma"] / space.width
        found = _one_against_the_rest(np.exp(-gamma * squares), problem, params["C"])
        coefficients, bias = np.stack([one[0] for one in found]), np.array([one[1] for one in found])
        used = np.flatnonzero((coefficients != 0).any(axis=0))
        head = KernelHead(rows[used], space.mean, space.scale, coefficients[:, used], bias, float(gamma))
        fits.append(Fit(head, params))
    return tuple(fits)


def _one_against_the_rest(kernel: _Floats, problem: Problem, C: float) -> list[tuple[_Floats, float]]:
    """For each class the coefficients (N,) of all rows and the bias; of two classes the first has zeros."""
    from sklearn.svm import SVC

    found: list[tuple[_Floats, float]] = []
    if problem.classes == 2:
        found.append((np.zeros(len(kernel)), 0.0))
    for label in range(len(found), problem.classes):
        machine = SVC(kernel="precomputed", C=C).fit(kernel, problem.y == label, sample_weight=problem.row_weights)
        coefficients = np.zeros(len(kernel))
        coefficients[machine.support_] = machine.dual_coef_[0]
        found.append((coefficients, float(machine.intercept_[0])))
    return found
