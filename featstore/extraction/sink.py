"""Where finished rows go: a writer of the store, or memory."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from featstore.records import Reason


class Sink(Protocol):
    """Where finished rows go: a store's writer, or memory. ``committed`` counts the rows that are safe there."""

    committed: int

    def add(self, digest: bytes, view: int, features: npt.NDArray[np.floating]) -> None:
        """Take one row of features."""

    def reject(self, digest: bytes, view: int, reason: Reason) -> None:
        """Take one reject."""

    def flush(self) -> object:
        """Make everything taken so far durable."""

    def close(self) -> None:
        """The same, for the last time."""


class MemorySink:
    """Rows kept in memory, for predictions where the store is not to be written.

    ``rows`` maps (digest, view) → features.
    """

    def __init__(self) -> None:
        self.committed = 0
        self.rows: dict[tuple[bytes, int], npt.NDArray[np.floating]] = {}

    def add(self, digest: bytes, view: int, features: npt.NDArray[np.floating]) -> None:
        """Keep one row."""
        self.rows[digest, view] = features

    def reject(self, digest: bytes, view: int, reason: Reason) -> None:
        """Nothing to keep: the lane remembers its rejects."""

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""
