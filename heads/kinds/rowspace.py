"""The rows of one fit in as few coordinates as they span, computed once for every head that is fitted on them.

Features are standardised by the rows' own mean and deviation, so a fold never sees numbers of the rows it is judged on.

Where a table is wider than long (N < D), the rows span at most N of the D directions. A solution under an L2 penalty
lies in that span, and a rotation changes neither loss nor penalty (the representer theorem, Kimeldorf & Wahba, 1970).
So solvers get N × N coordinates, from the eigenvectors of the Gram matrix, and their weights are mapped back.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cached_property

import numpy as np
import numpy.typing as npt

from heads.kinds.head import Features

_CHUNK_NUMBERS = 2**24
"""Features widened to float64 at a time: a table is never copied whole."""

_SMALL = 20_000_000
"""Numbers in the coordinates below which one BLAS thread is the fastest."""

_Floats = npt.NDArray[np.float64]


class RowSpace:
    """Standardised rows X (N, D). ``mean`` and ``scale`` float64 (D,); a column that never changes has scale 1."""

    def __init__(self, X: Features) -> None:
        self.X = X
        self.count, self.width = X.shape
        self.mean = X.mean(axis=0, dtype=np.float64)
        squares = np.concatenate([((X[:, part] - self.mean[part]) ** 2).sum(axis=0) for part in self._parts()])
        deviation = np.sqrt(squares / self.count)
        tiny = 10 * np.finfo(np.float64).eps * np.maximum(np.abs(self.mean), 1e-300)
        self.scale = np.where(deviation > tiny, deviation, 1.0)

    @property
    def is_wide(self) -> bool:
        """Whether there are more features than rows."""
        return bool(self.width > self.count)

    @cached_property
    def gram(self) -> _Floats:
        """Products of all pairs of standardised rows, float64 (N, N)."""
        gram = np.zeros((self.count, self.count))
        for part in self._parts():
            columns = self._standardised(part)
            gram += columns @ columns.T
        return gram

    @cached_property
    def coordinates(self) -> _Floats:
        """The rows, float64 (N, R): their standardised features, or for wide tables their place in their own span."""
        if not self.is_wide:
            return self._standardised(slice(None))
        values, vectors = self._eigen
        return np.ascontiguousarray(vectors * np.sqrt(values))

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
        if not self.is_wide:
            raw = weights / self.scale
            return raw, bias - raw @ self.mean
        values, vectors = self._eigen
        shares = (weights / np.sqrt(values)) @ vectors.T  # of every row in every class's weights
        parts = [shares @ self._standardised(part) / self.scale[part] for part in self._parts()]
        raw = np.concatenate(parts, axis=1)
        return raw, bias - raw @ self.mean

    @cached_property
    def _eigen(self) -> tuple[_Floats, _Floats]:
        """Eigenvalues (R,) and vectors (N, R) of the Gram matrix, without the directions that no row has."""
        from scipy.linalg import eigh

        values, vectors = eigh(self.gram)
        real = values > values[-1] * self.count * np.finfo(np.float64).eps
        return values[real], vectors[:, real]

    def _standardised(self, part: slice) -> _Floats:
        return np.asarray((self.X[:, part] - self.mean[part]) / self.scale[part], np.float64)

    def _parts(self) -> list[slice]:
        step = max(1, _CHUNK_NUMBERS // self.count)
        return [slice(start, start + step) for start in range(0, self.width, step)]
