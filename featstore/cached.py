"""What the store holds for one spec, rows derived from a stored map included.

Average, maximum and flattened features follow from the map (H, W, C) of the same spec, so whoever stored the
map never runs the base again for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from featstore.records import DIGEST_BYTES, Digests, as_text
from featstore.spec import Spec
from featstore.store import Snapshot, Store

_CHUNK = 256
"""Maps pooled at a time: bounds the memory of a derivation."""

_FAR = 2**48
"""More than the rows of any snapshot."""

_POOL: dict[str, Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]] = {
    "avg": lambda maps: maps.mean(axis=(1, 2), dtype=np.float32),
    "max": lambda maps: maps.max(axis=(1, 2)),
    "flatten": lambda maps: maps.reshape(len(maps), -1),
}


def pool(maps: npt.NDArray[np.floating], pooling: str) -> npt.NDArray[np.floating]:
    """Feature maps (N, H, W, C) → (N, C) for ``avg`` and ``max``, (N, H·W·C) for ``flatten``; ``map`` as they are."""
    if pooling == "map":
        return maps
    return _POOL[pooling](maps.astype(np.float32, copy=False))


def joined(rows: Sequence[CachedRows], digests: Digests) -> npt.NDArray[np.float32]:
    """The features of ``digests`` (N, 32) in every one of ``rows``, beside one another: float32 (N, D), N > 0.

    A head on several bases takes them like that. Every image must have features in all of them.
    """
    parts = [one.read(digests).reshape(len(digests), -1) for one in rows]
    return np.concatenate(parts, axis=1, dtype=np.float32)


class CachedRows:
    """What a store holds of one spec when this is made; it does not change.

    augmentation : the policy of the views above 0, which are rows of another spec; None if there are none.
    lookups_only : nothing will be read, so segments that were checked lately need not be (see ``Namespace.snapshot``).
    """

    def __init__(
        self, store: Store, spec: Spec, augmentation: str | None = None, *, lookups_only: bool = False
    ) -> None:
        self._store, self.spec = store, spec
        self.augmentation = augmentation
        self._augmented = (
            CachedRows(store, spec.but(augmentation=augmentation), lookups_only=lookups_only) if augmentation else None
        )
        self._lookups_only = lookups_only
        self.own = store.namespace(spec).snapshot(lookups_only=lookups_only)
        self._maps = None if spec.pooling == "map" else store.namespace(spec.but(pooling="map"))

    @cached_property
    def _map(self) -> Snapshot | None:
        """The maps, opened only if rows of our own are missing: checking them reads every byte."""
        return None if self._maps is None else self._maps.snapshot(lookups_only=self._lookups_only)

    def __reduce__(self) -> tuple[type[CachedRows], tuple[Store, Spec, str | None]]:
        """Another process opens the store again."""
        return CachedRows, (self._store, self.spec, self.augmentation)

    @property
    def names(self) -> tuple[str, ...]:
        """The segments that rows were looked up in: those of the spec, and those of its maps if they were opened."""
        maps = self.__dict__.get("_map")  # the cached property, if it was used
        others = self._augmented.names if self._augmented else ()
        return self.own.names + (maps.names if maps is not None else ()) + others

    @property
    def rows(self) -> int:
        """In how many rows a lookup looks; the maps are opened for it."""
        held = self.own.rows + (0 if self._map is None else self._map.rows)
        return held + (self._augmented.rows if self._augmented else 0)

    @property
    def feature_shape(self) -> tuple[int, ...] | None:
        """The shape of one image's features, (D,) or (H, W, C) for maps; None if nothing has features."""
        if self.own.feature_shape is not None or self._map is None or self._map.feature_shape is None:
            return self.own.feature_shape
        *area, channels = self._map.feature_shape
        return (int(np.prod([*area, channels])),) if self.spec.pooling == "flatten" else (channels,)

    def lookup(self, digests: Digests, view: int = 0) -> npt.NDArray[np.int16]:
        """For each digest (N, 32): -1 no row, 0 features, above 0 the number of the reject's Reason."""
        if view and self._augmented:
            return self._augmented.lookup(digests, view)
        status = self.own.lookup(digests, view)
        missing = status == -1
        if missing.any() and self._map is not None:
            status[missing] = self._map.lookup(digests[missing], view)
        return status

    def places(self, digests: Digests, view: int = 0) -> npt.NDArray[np.int64]:
        """Numbers int64 (N,) that rise as the rows of ``digests`` (N, 32) lie in the store.

        Those of the spec come first, then those derived from its maps, then augmented views.
        """
        if view and self._augmented:
            return self._augmented.places(digests, view) + _FAR * 2
        places = self.own.places(digests, view).astype(np.int64)
        derived = places < 0
        if derived.any() and self._map is not None:
            places[derived] = self._map.places(digests[derived], view) + _FAR
        return places

    def with_features(self) -> Digests:
        """The images that have features (:meth:`lookup` gives 0), in ascending order: uint8 (N, 32)."""
        held = (self.own,) if self._map is None else (self.own, self._map)
        parts = [segment.digests[segment.views == 0] for one in held for segment, _ in one.parts()]
        keys = np.unique(as_text(np.concatenate([np.zeros((0, DIGEST_BYTES), np.uint8), *parts])))
        stored: Digests = keys.view(np.uint8).reshape(-1, DIGEST_BYTES)
        found: Digests = stored[self.lookup(stored) == 0]
        return found

    def read(self, digests: Digests, view: int = 0) -> npt.NDArray[np.floating]:
        """The features of ``digests`` (N, 32) in that order, in the spec's dtype: (N, D), or (N, H, W, C) for maps.

        Every one must have features (:meth:`lookup` gives 0).
        """
        if view and self._augmented:
            return self._augmented.read(digests, view)
        derived = self.own.lookup(digests, view) == -1
        if not derived.any() or self._map is None:
            return self.own.read(digests, view)
        parts = np.flatnonzero(derived)
        features = self._derive(digests[parts], view)
        if len(parts) == len(digests):
            return features
        out = np.empty((len(digests), *features.shape[1:]), self.spec.dtype)
        out[parts] = features
        out[~derived] = self.own.read(digests[~derived], view)
        return out

    def _derive(self, digests: Digests, view: int) -> npt.NDArray[np.floating]:
        if self._map is None:
            raise TypeError("there is no map to derive rows from")
        chunks = [digests[start : start + _CHUNK] for start in range(0, len(digests), _CHUNK)]
        pooled = [pool(self._map.read(chunk, view), self.spec.pooling) for chunk in chunks]
        return np.concatenate(pooled).astype(self.spec.dtype, copy=False)
