"""Rows for training in small batches: all at once, or block by block where a table is larger than that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.shuffling import pieces, shuffled_blocks
from featstore.table import StoredRows
from heads.kinds.head import READ_NUMBERS, Labels

_BLOCK_NUMBERS = 2**26
"""Features of a block of rows that are in memory already: 256 MiB, and as much again while it is standardised."""

_Floats = npt.NDArray[np.float32]


class Rows:
    """Rows as a training loop takes them, in blocks that fit into memory; where one block holds all, it is made once.

    X : float32 (N, D), an array or StoredRows; standardised if ``mean`` and ``scale`` (D,) are given. y : int64 (N,).
    tensor : what makes a library's tensor of a block's features.
    """

    def __init__(self, X: Any, y: Labels, mean: Any, scale: Any, tensor: Callable[[_Floats], Any]) -> None:
        self._X, self._y, self._tensor = X, y, tensor
        self._standard = None if mean is None else (mean.astype(np.float32), scale.astype(np.float32))
        numbers = READ_NUMBERS if isinstance(X, StoredRows) else _BLOCK_NUMBERS
        self._at_once = max(1, numbers // X.shape[1])
        self._whole = self._block(np.arange(len(y))) if len(y) <= self._at_once else None

    def __len__(self) -> int:
        """N."""
        return len(self._y)

    def blocks(self, random: np.random.Generator) -> Iterator[tuple[Labels, Any, Labels]]:
        """Every row once, dealt out anew: indices (n,), features as a tensor (n, D) and y (n,), block by block."""
        if self._whole is not None:
            yield self._whole
        else:
            yield from map(self._block, shuffled_blocks(self._X, self._at_once, random))

    def _block(self, chosen: Labels) -> tuple[Labels, Any, Labels]:
        X = self._X[:] if len(chosen) == len(self) else self._X[chosen]
        if self._standard is not None:
            X = np.subtract(X, self._standard[0])
            X /= self._standard[1]
        return chosen, self._tensor(X), self._y[chosen]


def moments(X: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and deviation float64 (D,) of the columns of ``X`` (N, D); a column that never changes has deviation 1."""
    total, squares = np.zeros(X.shape[1]), np.zeros(X.shape[1])
    for _, part in pieces(X, max(1, READ_NUMBERS // X.shape[1])):
        total += part.sum(axis=0, dtype=np.float64)
        squares += np.einsum("ij,ij->j", part, part, dtype=np.float64)
    mean = total / len(X)
    variance = np.maximum(squares / len(X) - mean**2, 0.0)
    return mean, np.where(variance > 1e-10 * mean**2, np.sqrt(variance), 1.0)
