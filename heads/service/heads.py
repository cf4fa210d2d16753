"""The heads that are served, each the newest that lies on the disk, and their answers to one picture."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featstore.errors import FeatstoreError, InputError
from featstore.neighbours import Neighbour
from featstore.online import Busy, OnlineRows, Row
from featstore.records import Reason
from featstore.store import Store
from featstore.wording import printable
from heads.apply import jobs_of
from heads.bundles.bundle import FILES, Bundle, read_bundle
from heads.bundles.inventory import bundle_paths
from heads.service.gallery import Gallery

_LOOK_SECONDS = 1.0
"""How often the disk is asked whether a bundle has changed."""

_DECODERS = 4
"""Pictures that are decoded at a time: of 50 megapixels each takes 150 MB."""

_Signature = tuple[tuple[str | int, ...], ...]


@dataclass(frozen=True, slots=True)
class Says:
    """What one head says of one image: its likeliest class, and the probabilities of all classes in their order."""

    head: str
    label: str
    probabilities: dict[str, float]


@dataclass(frozen=True, slots=True)
class Answer:
    """What all heads say of one picture. digest : 64 hex digits. Without features ``heads`` is empty.

    from_cache : whether every row was known before.
    """

    name: str
    digest: str
    reason: Reason
    from_cache: bool
    heads: tuple[Says, ...]


class ServedHeads:
    """Bundles, found in some folders as by `heads ls`, read again when they change; and the rows that they need.

    A bundle that cannot be used is left out, and told in ``problems``; one that could be used before goes on being
    served. Raises InputError if there is none at first.
    """

    def __init__(self, folders: Sequence[Path], store: Store, *, keep: bool = True) -> None:
        self.store = store
        self.gallery = Gallery(store)
        self.problems: dict[str, str] = {}
        self._folders = tuple(folders)
        self._keep = keep
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        self._decoding = threading.Semaphore(_DECODERS)
        self._bundles: dict[str, Bundle] = {}
        self._rows: dict[str, OnlineRows] = {}
        self._signature: _Signature = ()
        self._looked = 0.0
        self._refresh()
        if not self._bundles:
            told = "; ".join(f"{path}: {problem}" for path, problem in self.problems.items())
            raise InputError(
                "there is no head to serve",
                where=", ".join(map(str, folders)) or "./bundles, ./sweep/bundles",
                expected="a bundle, or a folder of bundles",
                received=told or "none",
                todo="train one: featstore train DATA",
            )

    @property
    def bundles(self) -> dict[str, Bundle]:
        """The heads by name, as they are now."""
        with self._lock:
            if time.monotonic() - self._looked >= _LOOK_SECONDS:
                self._refresh()
            return dict(self._bundles)

    @property
    def is_ready(self) -> bool:
        """Whether there is a head; the disk is not asked."""
        return bool(self._bundles)

    @property
    def rows(self) -> dict[str, OnlineRows]:
        """The rows that the heads need, by fingerprint."""
        return dict(self._rows)

    def warm(self) -> None:
        """Open every base, so that the first picture need not wait for it."""
        for rows in self.rows.values():
            rows.warm()

    def ask(self, data: bytes) -> dict[str, Future[Row]]:
        """The rows of one picture, by fingerprint, as they are computed. Raises Busy."""
        needed = {spec.fingerprint for bundle in self.bundles.values() for spec in bundle.card.specs}
        if not needed:  # their folder was emptied
            raise Busy
        with self._decoding:
            return {fingerprint: rows.ask(data) for fingerprint, rows in self.rows.items() if fingerprint in needed}

    def answer(self, name: str, asked: dict[str, Future[Row]], timeout: float) -> Answer:
        """What all heads say of the picture that was asked about. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        rows = {key: future.result(max(0.0, deadline - time.monotonic())) for key, future in asked.items()}
        first = next(iter(rows.values()))
        reason = next((row.reason for row in rows.values() if row.reason), Reason.OK)
        says = () if reason else tuple(_says(*one, rows) for one in self.bundles.items() if _has_rows(one[1], rows))
        return Answer(name, first.digest.hex(), reason, all(row.from_cache for row in rows.values()), says)

    def nearest(self, name: str | None, digest: bytes, count: int) -> tuple[str, list[Neighbour]]:
        """The images nearest to a known one by the features of a head, among those that it was fitted on; of no head
        (None): by those of the first, among all stored ones. With the features' fingerprint. KeyError if unknown.
        """
        bundles = self.bundles
        if not bundles:
            raise KeyError(name)
        bundle = bundles[name] if name is not None else next(iter(bundles.values()))
        spec = bundle.card.specs[0]
        row = self._rows[spec.fingerprint].known(digest)
        if row is None or row.features is None:
            raise KeyError(digest)
        among = None if name is None else bundle.fitted.digests
        return spec.fingerprint, self.gallery.nearest(spec, row.features, digest, count, among)

    def close(self) -> None:
        """Commit what is new."""
        for rows in self._rows.values():
            rows.close()

    def _refresh(self) -> None:
        self._looked = time.monotonic()
        signature = self._look()
        if signature == self._signature:
            return
        self._signature = signature
        bundles: dict[str, Bundle] = {}
        self.problems = {}
        for path, *_ in signature:
            place = Path(str(path))
            name = printable(place.name)
            try:
                bundle = read_bundle(place)
                self._open_rows(bundle)
                bundles[name] = bundle
            except FeatstoreError as error:
                self.problems[printable(str(place))] = error.what
                if name in self._bundles:
                    bundles[name] = self._bundles[name]
        self._bundles = bundles

    def _look(self) -> _Signature:
        try:
            found = bundle_paths(self._folders)
        except FeatstoreError:  # a folder that is gone, or being replaced
            if not self._signature:
                raise
            return self._signature
        return tuple((str(path), *_times(path)) for path in found)

    def _open_rows(self, bundle: Bundle) -> None:
        for job in jobs_of(bundle):
            key = job.spec.fingerprint
            if key not in self._rows:
                self._rows[key] = OnlineRows(job, self.store, keep=self._keep, turn=self._turn)


def _times(bundle: Path) -> Iterator[int]:
    """Of each of its files: the card alone may be there while the others are still being copied."""
    for name in FILES:
        try:
            about = (bundle / name).stat()
        except OSError:
            yield from (0, 0)
        else:
            yield from (about.st_mtime_ns, about.st_ino)


def _has_rows(bundle: Bundle, rows: dict[str, Row]) -> bool:
    """False for a head that came after the picture was asked about."""
    return all(spec.fingerprint in rows for spec in bundle.card.specs)


def _says(name: str, bundle: Bundle, rows: dict[str, Row]) -> Says:
    features: Any = [rows[spec.fingerprint].features for spec in bundle.card.specs]
    [probabilities] = bundle.probabilities(np.concatenate(features).reshape(1, -1))
    classes = [printable(one) for one in bundle.card.classes]
    return Says(name, classes[int(np.argmax(probabilities))], dict(zip(classes, probabilities.tolist(), strict=True)))
