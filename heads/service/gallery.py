"""The images behind the numbers: where they are, which look alike, and where they lie on a map of the features."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featstore.cached import CachedRows, joined
from featstore.dataset.sources import FolderSource
from featstore.formats import MAX_FILE_BYTES
from featstore.neighbours import MAX_BYTES, Neighbour, Neighbours, segments_of
from featstore.online import Busy
from featstore.processes import EndedError, in_a_process
from featstore.records import Digests, as_text
from featstore.scan import known_files
from featstore.spec import Spec
from featstore.store import Store
from heads.bundles.bundle import Bundle
from heads.evaluation.plane import in_the_plane, points_of
from heads.service.renewed import Renewed

_SEARCH_SECONDS = 60.0
"""How long what is searched for neighbours, and where images are, is taken as it was while no head changes."""

_WAITING = 4
"""How many wait at most while a map is drawn, and then have theirs drawn, one after the other."""

_MASKS = 16
"""For so many sets of images (those that a head was fitted on) it is remembered which of those searched they are."""

_Specs = tuple[Spec, ...]
_Segments = tuple[str, ...]


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


@dataclass(frozen=True, slots=True, eq=False)
class _Searched:
    """What is searched for neighbours, and the segments that it was read from."""

    neighbours: Neighbours
    segments: _Segments
    _masks: dict[int, tuple[Digests, npt.NDArray[np.bool_]]] = field(default_factory=dict)

    def which(self, among: Digests) -> npt.NDArray[np.bool_]:
        """As :meth:`Neighbours.which`, looked for once for each array that is asked about again."""
        known = self._masks.get(id(among))
        if known is None or known[0] is not among:
            for oldest in [*self._masks][: 1 - _MASKS]:
                self._masks.pop(oldest, None)
            known = self._masks[id(among)] = among, self.neighbours.which(among)
        return known[1]


@dataclass(frozen=True, slots=True, eq=False)
class _Map:
    """Where the images of ``bundle`` lie; ``segments`` held too few of them if there are no ``places``."""

    bundle: Bundle
    segments: _Segments
    places: Places | None


class Gallery:
    """The stored images of ``store``, and the files that they were last seen in. Safe in threads.

    most_bytes : of all that is held for searches; what was searched last stays.
    """

    def __init__(self, store: Store, most_bytes: int = MAX_BYTES) -> None:
        self._store = store
        self._most_bytes = most_bytes
        self._files = Renewed(lambda _: known_files(store.scan_folder), _SEARCH_SECONDS)
        self._choosing = threading.Lock()
        self._searched: OrderedDict[_Specs, Renewed[_Searched]] = OrderedDict()
        self._drawing, self._waiting = threading.Lock(), threading.BoundedSemaphore(1 + _WAITING)
        self._maps: dict[Path, _Map] = {}

    def file_of(self, digest: bytes) -> Path:
        """The file that had this digest when it was last read. KeyError if none is known."""
        return self._files.get()[digest]

    def folder_of(self, digest: bytes) -> str | None:
        """The name of the folder that an image was last seen in."""
        path = self._files.get().get(digest)
        return path.parent.name if path else None

    def nearest(
        self,
        specs: _Specs,
        features: npt.NDArray[np.float32],
        digest: bytes,
        count: int,
        among: Digests | None = None,
    ) -> list[Neighbour]:
        """The stored images nearest to those features (D,), which are of ``specs`` beside one another; the image of
        ``digest`` is left out. ``among`` : only these.
        """
        searched = self._search(specs)
        mask = None if among is None else searched.which(among)
        found = searched.neighbours.nearest(features, count + 1, mask)
        return [one for one in found if one.digest != digest][:count]

    def places(self, bundle: Bundle, until: float) -> Places | None:
        """Where the images of a head lie, those of its test split left out; None if too few are stored, or all alike.

        Drawn in a process of its own: the libraries for it would stay in memory for ever, 150 MiB with what they load
        in their turn. One is drawn at a time: raises Busy if it cannot begin by ``until`` (of ``time.monotonic``), if
        several wait already, or if that process is ended from outside.
        """
        known = self._map(bundle)
        if known is not None:
            return known.places
        if not self._waiting.acquire(blocking=False):
            raise Busy
        try:
            if not self._drawing.acquire(timeout=max(0.0, until - time.monotonic())):
                raise Busy
            try:
                known = self._map(bundle)  # somebody may have had it drawn meanwhile
                if known is None:
                    segments = segments_of(self._store, bundle.card.specs)
                    known = self._maps[bundle.path] = _Map(bundle, segments, in_a_process(_draw, bundle, self._store))
            except EndedError:
                raise Busy from None
            finally:
                self._drawing.release()
        finally:
            self._waiting.release()
        return known.places

    def _map(self, bundle: Bundle) -> _Map | None:
        """The map that was drawn of a head, unless there is more to draw it from now."""
        known = self._maps.get(bundle.path)
        if known is None or known.bundle is not bundle:
            return None
        is_newest = known.places is not None or known.segments == segments_of(self._store, bundle.card.specs)
        return known if is_newest else None

    def keep(self, bundles: Collection[Bundle]) -> None:
        """Forget what was held for any but these heads, and look again for what there is of these."""
        specs = {bundle.card.specs for bundle in bundles}
        paths = {bundle.path for bundle in bundles}
        with self._choosing:
            for key in self._searched.keys() - specs:
                del self._searched[key]
            for renewed in self._searched.values():
                renewed.outdate()
        self._files.outdate()
        self._maps = {path: one for path, one in self._maps.copy().items() if path in paths}

    def _search(self, specs: _Specs) -> _Searched:
        """What is searched for images near in these features; others make room for it, those used last stay."""
        with self._choosing:
            renewed = self._searched.setdefault(
                specs, Renewed(lambda before: self._read(specs, before), _SEARCH_SECONDS)
            )
            self._searched.move_to_end(specs)
        found = renewed.get()
        with self._choosing:
            held = {key: one.made.neighbours.nbytes for key, one in self._searched.items() if one.made}
            for key in [*held][:-1]:
                if sum(held.values()) > self._most_bytes:
                    del held[key], self._searched[key]
        return found

    def _read(self, specs: _Specs, before: _Searched | None) -> _Searched:
        segments = segments_of(self._store, specs)
        if before is not None and before.segments == segments:
            return before
        return _Searched(Neighbours([CachedRows(self._store, spec) for spec in specs]), segments)


def read_picture(file: Path, digest: bytes) -> bytes:
    """The file, if it still has this digest; else KeyError. Rejected if it cannot be read, or is no file any more."""
    data = FolderSource(str(file.parent)).read(file.name, MAX_FILE_BYTES)
    if hashlib.sha256(data).digest() != digest:
        raise KeyError(digest)
    return data


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
