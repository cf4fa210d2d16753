"""Rows that are in the store, as far as a fit can tell."""

from __future__ import annotations

import numpy as np
import pytest

from featstore.table import StoredRows


class Rows(StoredRows):
    """``most`` is the greatest number of rows that was read at once."""

    def __init__(self, X: np.ndarray) -> None:
        self.X, self.shape, self.most = X, X.shape, 0

    def __getitem__(self, chosen):
        part = self.X[chosen]
        self.most = max(self.most, len(part))
        return part

    def select(self, chosen):
        return Rows(self.X[chosen])


@pytest.fixture
def stored() -> type[Rows]:
    return Rows
