"""The images behind the numbers: where they are, which look alike, and where they lie on a map of the features."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featstore.cached import CachedRows, joined
from featstore.formats import MAX_FILE_BYTES
from featstore.neighbours import Neighbour, Neighbours
from featstore.online import Busy
from featstore.records import Digests, as_text
from featstore.scan import known_files
from featstore.spec import Spec
from featstore.store import Store
from heads.bundles.bundle import Bundle
from heads.evaluation.plane import in_the_plane, points_of
from heads.service.renewed import Renewed

_SEARCH_SECONDS = 60.0
"""How long what is searched for neighbours, and where images are, is taken as it was."""


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """N images of a head in the plane.

    digests : uint8 (N, 32). places : float64 (N, 2), 0 to 1. labels : their classes; said : what held-out ones were
    called, None for others. total : the images that these were drawn from.
    """

    digests: Digests
    places: npt.NDArray[np.float64]
    labels: Sequence[str]
    said: Sequence[str | None]
    total: int


class Gallery:
    """The stored images of ``store``, and the files that they were last seen in. Safe in threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._files = Renewed(lambda: known_files(store.scan_folder), _SEARCH_SECONDS)
        self._searched: dict[tuple[Spec, ...], Renewed[Neighbours]] = {}
        self._drawing = threading.Lock()
        self._maps: dict[Path, tuple[Bundle, Places | None]] = {}

    def picture(self, digest: bytes) -> bytes:
        """The file that has this digest, as it is now. KeyError if none is known; OSError if it cannot be read."""
        path = self._files.get()[digest]
        data = path.read_bytes() if path.stat().st_size <= MAX_FILE_BYTES else b""
        if hashlib.sha256(data).digest() != digest:
            raise KeyError(digest)
        return data

    def folder_of(self, digest: bytes) -> str | None:
        """The name of the folder that an image was last seen in."""
        path = self._files.get().get(digest)
        return path.parent.name if path else None

    def nearest(
        self,
        specs: tuple[Spec, ...],
        features: npt.NDArray[np.float32],
        digest: bytes,
        count: int,
        among: Digests | None = None,
    ) -> list[Neighbour]:
        """The stored images nearest to those features (D,), which are of ``specs`` beside one another; the image of
        ``digest`` is left out. ``among`` : only these.
        """
        searched = self._searched.setdefault(specs, Renewed(lambda: self._search(specs), _SEARCH_SECONDS)).get()
        found = searched.nearest(features, count + 1, None if among is None else searched.which(among))
        return [one for one in found if one.digest != digest][:count]

    def places(self, bundle: Bundle) -> Places | None:
        """Where the images of a head lie, those of its test split left out; None if too few are stored, or all alike.

        Raises Busy while another map is being drawn.
        """
        known = self._maps.get(bundle.path)
        if known is None or known[0] is not bundle:
            if not self._drawing.acquire(blocking=False):
                raise Busy
            try:
                known = self._maps[bundle.path] = bundle, _draw(bundle, self._store)
            finally:
                self._drawing.release()
        return known[1]

    def keep(self, bundles: Collection[Bundle]) -> None:
        """Forget what was held for any but these heads."""
        specs = {bundle.card.specs for bundle in bundles}
        paths = {bundle.path for bundle in bundles}
        self._searched = {key: one for key, one in self._searched.copy().items() if key in specs}
        self._maps = {path: one for path, one in self._maps.copy().items() if path in paths}

    def _search(self, specs: tuple[Spec, ...]) -> Neighbours:
        return Neighbours([CachedRows(self._store, spec) for spec in specs])


def _draw(bundle: Bundle, store: Store, seed: int = 0) -> Places | None:
    rows = [CachedRows(store, spec) for spec in bundle.card.specs]
    digests = np.unique(np.concatenate([bundle.fitted.digests, bundle.judged.digests]), axis=0)
    digests = digests[np.logical_and.reduce([cached.lookup(digests) == 0 for cached in rows])]
    count = points_of(len(digests), sum(bundle.card.widths))
    if not count:
        return None
    drawn = digests[np.sort(np.random.default_rng(seed).permutation(len(digests))[:count])]
    plane = in_the_plane(joined(rows, drawn), seed)
    if plane is None:
        return None
    least = plane.min(axis=0)
    return Places(
        digests=drawn,
        places=(plane - least) / (plane - least).max(),
        labels=[label_of(bundle, digest.tobytes()) or "" for digest in drawn],
        said=_said(bundle, drawn),
        total=len(digests),
    )


def label_of(bundle: Bundle, digest: bytes) -> str | None:
    """The class of an image that the head was fitted on or judged on; None for any other."""
    label = bundle.fitted.label_of(digest)
    if label is not None:
        return bundle.card.classes[label]
    [rows] = np.nonzero(as_text(bundle.judged.digests) == digest)
    return bundle.card.held_out.per_class[bundle.judged.truth[rows[0]]].name if len(rows) else None


def _said(bundle: Bundle, digests: Digests) -> list[str | None]:
    names = [one.name for one in bundle.card.held_out.per_class]
    judged = zip(as_text(bundle.judged.digests).tolist(), bundle.judged.said.tolist(), strict=True)
    said = {key: names[label] for key, label in judged}
    return [said.get(key) for key in as_text(digests).tolist()]
