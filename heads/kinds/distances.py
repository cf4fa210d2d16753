"""How far rows are from the training rows that a head remembers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from heads.kinds.head import Features

_Floats = npt.NDArray[np.float64]


def squared_distances(rows: npt.NDArray[np.float32], mean: _Floats, scale: _Floats) -> Callable[[Features], _Floats]:
    """A function from features (n, D) to their squared Euclidean distances (n, N), float64, from ``rows``.

    rows : float32 (N, D), standardised by ``mean`` and ``scale`` (D,), as the features will be.
    """
    norms = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)

    def of(X: Features) -> _Floats:
        asked = ((X - mean) / scale).astype(np.float32)
        own = np.einsum("ij,ij->i", asked, asked, dtype=np.float64)
        return np.asarray(np.maximum(own[:, None] - 2 * np.asarray(asked @ rows.T, np.float64) + norms, 0.0))

    return of
