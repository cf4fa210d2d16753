"""The nearest training images decide: k nearest neighbours by Euclidean distance of standardised features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError
from heads.kinds.distances import squared_distances
from heads.kinds.head import Arrays, Features, Labels, Logits, Params, in_blocks
from heads.kinds.problem import Fit, Problem

SMOOTHING = 0.5
"""Neighbours that every class has for nothing (Krichevsky & Trofimov, 1981), so that no probability is 0."""


@dataclass(frozen=True, slots=True, eq=False)
class NeighboursHead:
    """logits = log of the smoothed share of each class among the ``k`` nearest rows.

    rows : float32 (N, D), the training features, standardised. labels : int64 (N,), their columns, 0 to K - 1.
    mean, scale : float64 (D,), what standardises features. row_weights : float64 (N,), what each row counts.
    by_distance : a neighbour counts the inverse of its distance, relative to the nearest one; else all alike.
    Raises InputError if the arrays do not fit.
    """

    format: ClassVar[str] = "neighbours"

    rows: npt.NDArray[np.float32]
    labels: Labels
    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    row_weights: npt.NDArray[np.float64]
    k: int
    by_distance: bool

    def __post_init__(self) -> None:
        """Check the arrays once, here, so that no prediction has to."""
        fits = (
            self.rows.ndim == 2
            and self.labels.shape == self.row_weights.shape == self.rows.shape[:1]
            and self.mean.shape == self.scale.shape == self.rows.shape[1:]
            and 1 <= self.k <= len(self.rows)
        )
        if not fits or self.labels.min() < 0 or not (self.scale > 0).all() or not (self.row_weights > 0).all():
            raise InputError(
                "the arrays of a head of nearest neighbours do not fit",
                expected="rows (N, D), labels and row_weights (N,), mean and scale (D,), 1 <= k <= N",
                received=f"{self.rows.shape}, {self.labels.shape}, {self.mean.shape}, k = {self.k}",
            )
        if not all(np.isfinite(a).all() for a in (self.rows, self.mean, self.scale, self.row_weights)):
            raise InputError("a head of nearest neighbours holds numbers that are not finite")

    @property
    def width(self) -> int:
        """D, the number of features it expects."""
        return int(self.rows.shape[1])

    @property
    def outputs(self) -> int:
        """K, the number of classes it tells apart."""
        return int(self.labels.max()) + 1

    def logits(self, X: Features) -> Logits:
        """float64 (N, K) for features (N, D); raises InputError if D is not the head's."""
        distances = squared_distances(self.rows, self.mean, self.scale)
        return in_blocks(lambda rows: self._votes(distances(rows)), X, self)

    def _votes(self, squares: npt.NDArray[np.float64]) -> Logits:
        """Log shares (n, K) from squared distances (n, N)."""
        nearest = np.argsort(squares, axis=1, kind="stable")[:, : self.k]
        votes = self.row_weights[nearest]
        if self.by_distance:
            distances = np.sqrt(np.take_along_axis(squares, nearest, axis=1))
            least = np.maximum(distances[:, :1], 1e-6)
            votes = votes * least / np.maximum(distances, least)
        shares = np.full((len(squares), self.outputs), SMOOTHING)
        np.add.at(shares, (np.arange(len(squares))[:, None], self.labels[nearest]), votes)
        return np.asarray(np.log(shares / shares.sum(axis=1, keepdims=True)), np.float64)

    def to_arrays(self) -> tuple[Arrays, Mapping[str, Any]]:
        """Its five arrays; ``k`` and ``by_distance``."""
        names = ("rows", "labels", "mean", "scale", "row_weights")
        return {name: getattr(self, name) for name in names}, {"k": self.k, "by_distance": self.by_distance}

    @classmethod
    def from_arrays(cls, arrays: Arrays, config: Mapping[str, Any]) -> NeighboursHead:
        """The head written by :meth:`to_arrays`; raises InputError if these cannot be one."""
        types = {"rows": "float32", "labels": "int64", "mean": "float64", "scale": "float64", "row_weights": "float64"}
        k, by_distance = config.get("k"), config.get("by_distance")
        known = type(k) is int and type(by_distance) is bool and len(config) == 2
        if not known or {name: str(array.dtype) for name, array in arrays.items()} != types:
            raise InputError(
                "the arrays of a head of nearest neighbours do not fit", expected=f"{types}, k, by_distance"
            )
        return cls(**arrays, k=k, by_distance=by_distance)  # type: ignore[arg-type] # both were checked above


def fit_neighbours(problem: Problem, grid: Sequence[Params]) -> tuple[Fit, ...]:
    """A fit for each value of ``k`` (at most the number of rows) and ``weights``, "uniform" or "distance"."""
    space = problem.rows
    rows = ((problem.X - space.mean) / space.scale).astype(np.float32)
    return tuple(
        Fit(
            NeighboursHead(
                rows,
                np.asarray(problem.y, np.int64),
                space.mean,
                space.scale,
                problem.row_weights,
                k=min(params["k"], len(rows)),
                by_distance=params["weights"] == "distance",
            ),
            params,
        )
        for params in grid
    )
