"""Rows for training in small batches: all at once, or block by block where a table is larger than that.

Every epoch deals the rows out into blocks anew, and shuffles those of a block. Rows in memory are dealt out one by one;
rows in the store in runs of neighbours, so that reading stays cheap, but many runs a block: neighbours in a table are
of one class, so a block of one long run would be, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.table import StoredRows
from heads.kinds.head import Labels

_BLOCK_NUMBERS = 2**26
"""Features of a block: 256 MiB, and three times as much while it is standardised."""

_RUN = 256
"""Rows that are read from the store together: about a segment."""

_Floats = npt.NDArray[np.float32]


class Rows:
    """Rows as a training loop takes them, in blocks that fit into memory; where one block holds all, it is made once.

    X : float32 (N, D), an array or StoredRows; standardised if ``mean`` and ``scale`` (D,) are given. y : int64 (N,).
    tensor : what makes a library's tensor of a block's features.
    """

    def __init__(self, X: Any, y: Labels, mean: Any, scale: Any, tensor: Callable[[_Floats], Any]) -> None:
        self._X, self._y, self._mean, self._scale, self._tensor = X, y, mean, scale, tensor
        self._at_once = max(1, _BLOCK_NUMBERS // X.shape[1])
        self._whole = self._block(np.arange(len(y))) if len(y) <= self._at_once else None

    def __len__(self) -> int:
        """N."""
        return len(self._y)

    def blocks(self, random: np.random.Generator) -> Iterator[tuple[Labels, Any, Labels]]:
        """Every row once: indices (n,), features as a tensor (n, D) and y (n,), block by block."""
        if self._whole is not None:
            yield self._whole
            return
        run = min(_RUN, self._at_once) if isinstance(self._X, StoredRows) else 1
        runs = random.permutation(-(-len(self) // run))
        for block in np.array_split(runs, -(-len(runs) // (self._at_once // run))):
            starts = np.sort(block) * run
            yield self._block(np.concatenate([np.arange(start, min(start + run, len(self))) for start in starts]))

    def _block(self, chosen: Labels) -> tuple[Labels, Any, Labels]:
        X = self._X[:] if len(chosen) == len(self) else self._X[chosen]
        if self._mean is not None:
            X = ((X - self._mean) / self._scale).astype(np.float32)
        return chosen, self._tensor(X), self._y[chosen]


def moments(X: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and deviation float64 (D,) of the columns of ``X`` (N, D); a column that never changes has deviation 1."""
    step = max(1, _BLOCK_NUMBERS // X.shape[1])
    total, squares = np.zeros(X.shape[1]), np.zeros(X.shape[1])
    for start in range(0, len(X), step):
        part = np.asarray(X[start : start + step], np.float32)
        total += part.sum(axis=0, dtype=np.float64)
        squares += np.einsum("ij,ij->j", part, part, dtype=np.float64)
    mean = total / len(X)
    variance = np.maximum(squares / len(X) - mean**2, 0.0)
    return mean, np.where(variance > 1e-10 * mean**2, np.sqrt(variance), 1.0)
