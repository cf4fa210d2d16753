"""Rows of features in the plane, so that neighbours there are neighbours in fact: t-SNE on principal components."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MAP_POINTS = 1_500
"""The most rows of a map: with :data:`_STEPS`, t-SNE takes about three seconds for these."""

_LEAST_POINTS = 10

_NUMBERS = 2**27
"""Features read for a map at most, half a GB: of very wide rows fewer are drawn."""

_STEPS = 500

_COMPONENTS = 50
"""Principal components that t-SNE starts from, as its authors advise (van der Maaten & Hinton, 2008)."""


def points_of(rows: int, width: int, most: int = MAP_POINTS) -> int:
    """How many of so many rows of ``width`` features are drawn; 0 if there are too few for a map."""
    count = min(most, _NUMBERS // width, rows)
    return count if count >= _LEAST_POINTS else 0


def in_the_plane(X: npt.NDArray[np.floating], seed: int) -> npt.NDArray[np.float64] | None:
    """The places, float64 (N, 2), of features (N, D), at least 10; None if fewer than two columns vary."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    spread = X.std(axis=0)
    if (spread > 0).sum() < 2:
        return None
    standard = (X - X.mean(axis=0)) / np.where(spread > 0, spread, 1)
    components = PCA(min(_COMPONENTS, *standard.shape), random_state=seed).fit_transform(standard)
    perplexity = min(30.0, (len(X) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed, max_iter=_STEPS)
    with threadpool_limits(
        1, user_api="openmp"
    ):  # its threads wait for one another at every step: slow on a busy machine
        return np.asarray(tsne.fit_transform(components), np.float64)
