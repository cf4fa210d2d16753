from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from heads.kinds.distances import squared_distances


def test_distances_are_those_of_standardised_features() -> None:
    random = np.random.default_rng(0)
    X, mean, scale = random.normal(size=(9, 5)) * 3 + 7, random.normal(size=5), random.random(5) + 0.5
    rows = random.normal(size=(6, 5)).astype(np.float32)
    expected = cdist((X - mean) / scale, rows, "sqeuclidean")
    np.testing.assert_allclose(squared_distances(rows, mean, scale)(X), expected, rtol=1e-5)


def test_a_row_is_at_no_distance_from_itself_and_never_at_less() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 300)).astype(np.float32)
    found = squared_distances(rows, np.zeros(300), np.ones(300))(rows)
    assert (found >= 0).all()
    assert np.diagonal(found).max() < 1e-3
