"""How far rows are from the training rows that a head remembers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from heads.kinds.head import Features, product

_Floats = npt.NDArray[np.float64]


def squared_distances(rows: npt.NDArray[np.float32], mean: _Floats, scale: _Floats) -> Callable[[Features], _Floats]:
    """A function from features (n, D) to their squared Euclidean distances (n, N), float64, from ``rows``.

    rows : float32 (N, D), standardised by ``mean`` and ``scale`` (D,), as the features will be.
    """
    remembered = rows.astype(np.float64)
    products, norms = product(remembered.T), np.einsum("ij,ij->i", remembered, remembered)

    def of(X: Features) -> _Floats:
        asked = ((X - mean) / scale).astype(np.float32).astype(np.float64)
        own = np.einsum("ij,ij->i", asked, asked)
        return np.asarray(np.maximum(own[:, None] - 2 * products(asked) + norms, 0.0))

    return of
