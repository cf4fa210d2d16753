"""What every trained head is: plain arrays, and numpy alone from features to logits.

No head needs its training library to predict, none is pickled, and the same code computes its scores when it is trained
and its predictions later: so a saved head gives exactly the numbers that it was chosen by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError
from featstore.shuffling import pieces

Features = npt.NDArray[np.floating]
"""Features, float (N, D)."""

Labels = npt.NDArray[np.int64]
"""Codes of classes or columns, int64 (N,); -1 where there is none."""

Logits = npt.NDArray[np.float64]
"""Logits, float64 (N, K), a column a class."""

Arrays = Mapping[str, npt.NDArray[Any]]
"""A head's arrays by name, as an ``.npz`` holds them."""

Params = Mapping[str, Any]
"""Hyperparameters by name: numbers, strings, booleans, and tuples of numbers."""

BLOCK = 64
"""Rows of every product of matrices that leads to a logit."""

_COLUMNS = 16
"""What their number of columns is a multiple of."""

READ_NUMBERS = 2**24
"""Features read at a time from a table that stays in the store: 64 MiB."""


class Head(Protocol):
    """A classifier: features (N, D) → logits (N, K) → probabilities softmax(logits)."""

    format: ClassVar[str]
    """How a bundle names this kind of arrays: "linear", "dense", "kernel", "neighbours"."""

    @property
    def width(self) -> int:
        """D, the number of features it expects."""
        ...

    @property
    def outputs(self) -> int:
        """K, the number of classes it tells apart."""
        ...

    def logits(self, X: Features) -> Logits:
        """float64 (N, K) for features (N, D); raises InputError if D is not the head's."""
        ...

    def to_arrays(self) -> tuple[Arrays, Mapping[str, Any]]:
        """Its arrays, and the rest of it as plain JSON values."""
        ...

    @classmethod
    def from_arrays(cls, arrays: Arrays, config: Mapping[str, Any]) -> Self:
        """The head written by :meth:`to_arrays`; raises InputError if these cannot be one (both may be anyone's)."""
        ...


def in_blocks(
    logits: Callable[[npt.NDArray[np.floating]], npt.NDArray[np.floating]], X: Features, head: Head
) -> Logits:
    """``logits`` (64, D) → (64, K) of all rows of ``X`` (N, D), float64 (N, K): the last block is filled up with zeros.

    Raises InputError if D is not the width of the ``head``.

    A product of matrices may round a row otherwise if there are more or fewer rows beside it. In blocks of one size a
    row's logits do not depend on its company, so that one image alone is given the probabilities that it had in
    training, to the last bit. ``X`` may stay in the store.
    """
    if X.ndim != 2 or X.shape[1] != head.width:
        raise InputError("features do not fit this head", expected=f"(N, {head.width})", received=X.shape)
    out = np.empty((len(X), head.outputs))
    for rows, read in pieces(X, max(1, READ_NUMBERS // (BLOCK * head.width)) * BLOCK):
        found = np.empty((len(read), head.outputs))
        for start in range(0, len(read), BLOCK):
            part = read[start : start + BLOCK]
            count = len(part)
            if count < BLOCK:
                part = np.concatenate([part, np.zeros((BLOCK - count, head.width), part.dtype)])
            found[start : start + count] = logits(part)[:count]
        out[rows] = found
    return out


def product(matrix: npt.NDArray[np.floating]) -> Callable[[npt.NDArray[np.floating]], npt.NDArray[np.float64]]:
    """A function from rows (n, D) to rows · ``matrix`` (D, K), float64 (n, K), that rounds every row of a block alike.

    So that a row's place in a block does not matter either, products are of float64 and have columns of zeros up to a
    multiple of 16: OpenBLAS (0.3.31) rounds in float32, and in columns that are left over, some rows otherwise than
    others, by the kind of CPU.
    """
    depth, count = matrix.shape
    wide = np.zeros((depth, -(-count // _COLUMNS) * _COLUMNS))
    wide[:, :count] = matrix
    return lambda rows: (rows.astype(np.float64) @ wide)[:, :count]


def softmax(logits: Logits) -> npt.NDArray[np.float64]:
    """Probabilities (N, K) from logits (N, K); every row sums to 1, and large logits do not overflow."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), np.float64)


def params_from_json(data: Mapping[str, Any]) -> Params:
    """Hyperparameters as they were before JSON, which knows no tuples: hidden sizes come back as a list."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
