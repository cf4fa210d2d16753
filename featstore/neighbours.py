"""The stored images that look most alike: nearest by the cosine of their features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featstore.cached import CachedRows, joined
from featstore.records import Digests, as_text
from featstore.spec import Spec
from featstore.store import Store

MAX_BYTES = 2**31
"""Features that are held for the search; beyond that only the first images, by their digests, are searched."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A stored image (its digest, 32 bytes) and the cosine of its features to those asked for, from -1 to 1."""

    digest: bytes
    cosine: float


def segments_of(store: Store, specs: Sequence[Spec]) -> tuple[str, ...]:
    """The segments that the rows of ``specs`` are read from now, those of their maps included. They are named by what
    is in them: while the names stay the same, so do the rows.
    """
    sources = [store.namespace(one) for spec in specs for one in (spec, spec.but(pooling="map"))]
    return tuple(name for source in sources for name in source.snapshot().names)


class Neighbours:
    """The images that have features in all of ``rows``, as they were when this was made.

    Of several specs the features stand beside one another, as a head on several bases takes them. The search is a
    product of a matrix and a vector: exact, and fast enough for a million rows of 512.
    """

    def __init__(self, rows: Sequence[CachedRows]) -> None:
        digests = rows[0].with_features()
        for one in rows[1:]:
            digests = digests[one.lookup(digests) == 0]
        self._directions = _directions(rows, digests)
        self._digests = digests[: len(self._directions)]

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return self._directions.nbytes + self._digests.nbytes

    def __len__(self) -> int:
        return len(self._digests)

    def which(self, digests: Digests) -> npt.NDArray[np.bool_]:
        """Bool (n,): which of the images searched are among ``digests`` (N, 32)."""
        return np.isin(as_text(self._digests), as_text(digests))

    def nearest(
        self, features: npt.NDArray[np.floating], count: int, among: npt.NDArray[np.bool_] | None = None
    ) -> list[Neighbour]:
        """The ``count`` nearest of features (D,), the nearest first; of equal ones the one with the smaller digest.

        among : bool (n,), as :meth:`which` gives it; other images are left out.
        """
        places = np.arange(len(self)) if among is None else np.flatnonzero(among)
        if not len(places):
            return []
        length = float(np.linalg.norm(features))
        cosines = (self._directions @ (features.astype(np.float32).reshape(-1) / (length or 1.0)))[places]
        best = _first(-cosines, count)
        return [Neighbour(self._digests[places[at]].tobytes(), float(cosines[at])) for at in best]


def _first(values: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.intp]:
    """Where the ``count`` least values (n,) are, the least first; of equal ones the first. NaN comes last."""
    if not 0 < count < len(values):
        return np.argsort(values, kind="stable")[:count]
    [last] = np.partition(values, count - 1)[count - 1 : count]
    chosen = np.flatnonzero(~(values > last))  # more than asked for if several are equal to the last
    return chosen[np.argsort(values[chosen], kind="stable")[:count]]


def _directions(rows: Sequence[CachedRows], digests: Digests) -> npt.NDArray[np.float32]:
    """Features of length 1, float32 (n, D), of as many of ``digests`` as may be held; zeros stay zeros."""
    if not len(digests):
        return np.zeros((0, 0), np.float32)
    width = joined(rows, digests[:1]).shape[1]
    features = joined(rows, digests[: max(1, MAX_BYTES // (4 * width))])
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(np.divide(features, lengths, out=features, where=lengths > 0))
