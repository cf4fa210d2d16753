"""The rows of one fit in as few coordinates as they span, computed once for every head that is fitted on them.

Features are standardised by the rows' own mean and deviation, so a fold never sees numbers of the rows it is judged on.

Where a table is wider than long (N < D), the rows span at most N of the D directions. A solution under an L2 penalty
lies in that span, and a rotation changes neither loss nor penalty (the representer theorem, Kimeldorf & Wahba, 1970).
So solvers get N coordinates at most, from the pivoted Cholesky factor of the Gram matrix (Higham, 1990), and their
weights are mapped back. Eigenvectors would do as well, at ten times the price, and spare solvers few steps there.

Where it is not, the coordinates are the rows' principal components: features of one image are alike (neighbouring
pixels, say), and solvers that go along them one by one need a tenth of the steps along components.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property

import numpy as np
import numpy.typing as npt

from heads.kinds.head import Features, Labels
from heads.kinds.linear import LinearHead

_CHUNK_NUMBERS = 2**20
"""Features widened to float64 at a time to measure their deviation: a table is never copied whole."""

_BLOCK = 1024
"""Columns, or rows, widened to float64 and multiplied at a time. (Products in float32 take two thirds of the time, but
then the logits of discriminants are off by more than 1e-4.)"""

_NOTHING = 1e-12
"""A row whose square, of what other rows do not span, is less than this of the longest row's adds no coordinate."""

_SMALL = 20_000_000
"""Numbers in the coordinates below which one BLAS thread is the fastest."""

_Floats = npt.NDArray[np.float64]


class RowSpace:
    """Standardised rows X (N, D). ``mean`` and ``scale`` float64 (D,); a column that never changes has scale 1."""

    def __init__(self, X: Features) -> None:
        self.X = X
        self.count, self.width = X.shape
        self.mean = X.mean(axis=0, dtype=np.float64)
        self.scale = np.ones(self.width)
        squares = np.zeros(self.width)
        step = max(1, _CHUNK_NUMBERS // self.width)
        for start in range(0, self.count, step):
            centred = self._standardised(slice(start, start + step))
            squares += np.einsum("ij,ij->j", centred, centred)
        deviation = np.sqrt(squares / self.count)
        changes = deviation > 10 * np.finfo(np.float64).eps * np.maximum(np.abs(self.mean), 1e-300)
        self.scale[changes] = deviation[changes]

    @property
    def is_wide(self) -> bool:
        """Whether there are more features than rows."""
        return bool(self.width > self.count)

    @cached_property
    def gram(self) -> _Floats:
        """Products of all pairs of standardised rows, float64 (N, N)."""
        gram = np.zeros((self.count, self.count))
        products = np.empty_like(gram)
        for columns in self._columns():
            part = self._standardised(slice(None), columns)
            gram += np.matmul(part, part.T, out=products)
        return gram

    @cached_property
    def coordinates(self) -> _Floats:
        """The rows, float64 (N, R): their principal components, or for wide tables their place in their own span."""
        if not self.is_wide:
            components = self._standardised(slice(None))
            for start in range(0, self.count, _BLOCK):
                rows = slice(start, start + _BLOCK)
                components[rows] = components[rows] @ self._axes
            return components
        factor, order = self._factor
        coordinates = np.empty_like(factor)
        coordinates[order] = factor
        return coordinates

    @cached_property
    def squares(self) -> _Floats:
        """Of the coordinates' columns (R,), where these are orthogonal to each other; zeros where they are not."""
        if self.is_wide:
            return np.zeros(self.coordinates.shape[1])
        return np.asarray(np.einsum("ij,ij->j", self.coordinates, self.coordinates))

    def threads(self) -> AbstractContextManager[object]:
        """A context to solve in, with one BLAS thread where the coordinates are few.

        Their products are so small that threads only wait for one another. (Measured on two busy cores, 510 × 256
        features, 17 classes: 0.6 s instead of 15 s.)
        """
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        limits: AbstractContextManager[object] = threadpool_limits(1 if self.coordinates.size < _SMALL else None)
        return limits

    def lift(self, weights: _Floats, bias: _Floats) -> tuple[_Floats, _Floats]:
        """Weights (K, R) on the coordinates and their bias (K,) as weights (K, D) and bias (K,) on the raw features."""
        if self.is_wide:
            from scipy.linalg import solve_triangular

            factor, order = self._factor
            rank = factor.shape[1]
            shares = np.zeros((len(weights), self.count))  # of every row in every class's weights
            shares[:, order[:rank]] = solve_triangular(factor[:rank], weights.T, trans="T", lower=True).T
            weights = np.concatenate([shares @ self._standardised(slice(None), part) for part in self._columns()], 1)
        else:
            weights = weights @ self._axes.T
        raw = weights / self.scale
        return raw, bias - raw @ self.mean

    def heads(self, solutions: Sequence[tuple[_Floats, _Floats]]) -> list[LinearHead]:
        """A head for each solution, weights (K, R) on the coordinates and bias (K,); reads the table once for all."""
        weights, bias = self.lift(*map(np.concatenate, zip(*solutions, strict=True)))
        pairs = zip(np.split(weights, len(solutions)), np.split(bias, len(solutions)), strict=True)
        return [LinearHead.from_decision(*pair) for pair in pairs]

    @cached_property
    def _axes(self) -> _Floats:
        """The axes of the principal components as columns, float64 (D, D)."""
        from scipy.linalg import eigh

        products = np.zeros((self.width, self.width))
        for start in range(0, self.count, _BLOCK):
            rows = self._standardised(slice(start, start + _BLOCK))
            products += rows.T @ rows
        return np.asarray(eigh(products)[1])

    @cached_property
    def _factor(self) -> tuple[_Floats, Labels]:
        """A lower triangular L (N, R) and an order (N,): L · Lᵀ is the Gram matrix of the rows in that order."""
        from scipy.linalg.lapack import dpstrf

        least = _NOTHING * float(np.diagonal(self.gram).max())
        factor, order, rank, _ = dpstrf(self.gram, lower=1, tol=least)
        return np.tril(factor)[:, :rank], order - 1

    def _standardised(self, rows: slice, columns: slice = slice(None)) -> _Floats:
        part = self.X[rows, columns].astype(np.float64)
        part -= self.mean[columns]
        part /= self.scale[columns]
        return part

    def _columns(self) -> Iterator[slice]:
        return (slice(start, start + _BLOCK) for start in range(0, self.width, _BLOCK))
