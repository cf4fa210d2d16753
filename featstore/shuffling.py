"""Every row once, shuffled or not, in an order that reads the store piece by piece."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError
from featstore.table import StoredRows, Table

BUFFER_BYTES = 2**26
"""Rows that are held at a time to be shuffled."""

_RUN = 256
"""The most rows that are read from the store together: about a segment."""

_RUNS = 16
"""The fewest places in the store that the rows of a block come from."""


def pieces(X: Any, most: int) -> Iterator[tuple[Any, npt.NDArray[np.float32]]]:
    """Every row of ``X`` (N, D) once, ``most`` rows at a time: a slice or indices, and the features of these.

    Rows in the store come as they lie there, whatever the order of the table, so that each piece of it is read once.
    """
    for start in range(0, len(X), most):
        rows: Any = slice(start, start + most)
        if isinstance(X, StoredRows):
            rows = X.order[rows]
        yield rows, X[rows]


def shuffled_blocks(
    X: Any, most: int, random: np.random.Generator, part: tuple[int, int] = (0, 1)
) -> Iterator[npt.NDArray[np.intp]]:
    """Every row of ``X`` (N, D) once: indices intp (n,) of at most ``most`` rows at a time, ascending as they are read.

    Rows in memory are dealt out to the blocks one by one; rows in the store in runs of neighbours there, so that each
    piece of it is read once, but many runs a block: neighbours are of one class, so a block of one long run would be,
    too. Of ``part`` (k, n) they are the k-th of n shares of the rows, which are the same for every k.
    """
    stored = isinstance(X, StoredRows)
    run = min(_RUN, max(1, most // _RUNS)) if stored else 1
    order = X.order if stored else np.arange(len(X))
    runs = random.permutation(-(-len(X) // run))[part[0] :: part[1]]
    for block in np.array_split(runs, max(1, -(-len(runs) // (most // run)))):
        if len(block):
            places = (np.sort(block)[:, None] * run + np.arange(run)).reshape(-1)
            yield order[places[places < len(X)]]


class Batches:
    """Minibatches of one split for whatever learns from them: X float32 (B, D) and y int64 (B,), -1 where unlabelled.

    >>> for X, y in featstore.batches("photos/", "vgg16"):  # doctest: +SKIP
    ...     model.partial_fit(X, y, classes=[0, 1])

    Each iteration is the next epoch, from 0 on; :meth:`epoch` is any one of them. An epoch has every row exactly once,
    in an order that follows from the seed, its number and what lies where in the store. The rows stay there: they are
    read into a buffer, from many places at a time, and shuffled in it. So memory is bounded by the buffer (and one that
    is read beside it), whatever the table; one that fits into the buffer is read once.

    It may be handed to other processes, which open the store again and, as whoever reads features, check it.
    """

    def __init__(self, table: Table, batch_size: int = 256, *, seed: int = 0, buffer_bytes: int = BUFFER_BYTES) -> None:
        for name, value, least in (("batch_size", batch_size, 1), ("seed", seed, 0), ("buffer_bytes", buffer_bytes, 1)):
            if value < least:
                raise InputError("this is too small", where=name, expected=f"{least} or more", received=value)
        self.classes, self.batch_size = table.classes, batch_size
        self.shape: tuple[int, int] = table.X.shape
        self._X = table.X[:] if table.X.nbytes <= buffer_bytes else table.X
        if isinstance(self._X, StoredRows):
            _ = self._X.order  # now: it goes along to other processes, which must all share out the same
        self._y, self._seed = table.y, seed
        self._at_once = max(1, buffer_bytes // max(1, 4 * self.shape[1]))
        self._next = 0

    def __len__(self) -> int:
        """The number of batches of an epoch; the last may be smaller than the others."""
        return math.ceil(self.shape[0] / self.batch_size)

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
        """The next epoch."""
        self._next += 1
        return self.epoch(self._next - 1)

    def epoch(
        self, number: int, *, part: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
        """Epoch ``number``, 0 or more; of ``part`` (k, n) the k-th of n workers' shares, which have every row once.

        Raises InputError for a number or a part that cannot be.
        """
        worker, workers = part
        if number < 0 or not 0 <= worker < workers:
            raise InputError(
                "there is no such epoch, or no such part of it",
                where="epoch",
                expected="a number of 0 or more, and a part (k, n) with 0 <= k < n",
                received=f"{number}, part {part}",
            )
        return self._batches(np.random.default_rng([self._seed, number]), part)

    def _batches(
        self, random: np.random.Generator, part: tuple[int, int]
    ) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
        X, y, filled = self._room()
        for rows in shuffled_blocks(self._X, self._at_once, random, part):
            read, order = self._X[rows], random.permutation(len(rows))
            while len(order):
                taken, order = np.split(order, [self.batch_size - filled])
                X[filled : filled + len(taken)] = read[taken]
                y[filled : filled + len(taken)] = self._y[rows[taken]]
                filled += len(taken)
                if filled == self.batch_size:
                    yield X, y
                    X, y, filled = self._room()
            del read  # before the next is
        if filled:
            yield X[:filled], y[:filled]

    def _room(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], int]:
        """An empty batch: whoever was given the one before may keep it."""
        return np.empty((self.batch_size, self.shape[1]), np.float32), np.empty(self.batch_size, np.int64), 0
