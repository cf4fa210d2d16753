"""The stored images that look most alike: nearest by the cosine of their features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featstore.records import Digests, as_text
from featstore.store import Namespace, Snapshot

MAX_BYTES = 2**31
"""Features that are held for the search; beyond that only the first rows of the store are searched."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A stored image (its digest, 32 bytes) and the cosine of its features to those asked for, from -1 to 1."""

    digest: bytes
    cosine: float


class Neighbours:
    """The images of one namespace that have features, as they were when this was made.

    The search is a product of a matrix and a vector: exact, and fast enough for a million rows of 512.
    """

    def __init__(self, namespace: Namespace) -> None:
        held = namespace.snapshot()
        self.names = held.names
        self._digests = _with_features(held)
        self._directions = _directions(held, self._digests)
        self._digests = self._digests[: len(self._directions)]

    def __len__(self) -> int:
        return len(self._digests)

    def which(self, digests: Digests) -> npt.NDArray[np.bool_]:
        """Bool (n,): which of the images searched are among ``digests`` (N, 32)."""
        return np.isin(as_text(self._digests), as_text(digests))

    def nearest(
        self, features: npt.NDArray[np.floating], count: int, among: npt.NDArray[np.bool_] | None = None
    ) -> list[Neighbour]:
        """The ``count`` nearest of features (D,), the nearest first; of equal ones in the store's order.

        among : bool (n,), as :meth:`which` gives it; other images are left out.
        """
        places = np.arange(len(self)) if among is None else np.flatnonzero(among)
        if not len(places):
            return []
        length = float(np.linalg.norm(features))
        cosines = (self._directions @ (features.astype(np.float32).reshape(-1) / (length or 1.0)))[places]
        best = np.argsort(-cosines, kind="stable")[:count]
        return [Neighbour(self._digests[places[at]].tobytes(), float(cosines[at])) for at in best]


def _with_features(held: Snapshot) -> Digests:
    parts = [segment.digests[served & (segment.status == 0) & (segment.views == 0)] for segment, served in held.parts()]
    return np.concatenate([np.zeros((0, 32), np.uint8), *parts])


def _directions(held: Snapshot, digests: Digests) -> npt.NDArray[np.float32]:
    """Features of length 1, (n, D); zeros stay zeros."""
    if not len(digests) or held.feature_shape is None:
        return np.zeros((0, 0), np.float32)
    most = max(1, MAX_BYTES // (4 * int(np.prod(held.feature_shape))))
    rows = held.read(digests[:most]).reshape(min(most, len(digests)), -1).astype(np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, lengths, out=rows, where=lengths > 0))
