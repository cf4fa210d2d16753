"""The heads that are served, each the newest that lies on the disk, and what they say of one picture."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featstore.errors import FeatstoreError, InputError
from featstore.neighbours import Neighbour
from featstore.online import OnlineRows, Row
from featstore.store import Store
from featstore.wording import printable
from heads.apply import jobs_of
from heads.bundles.bundle import FILES, Bundle, read_bundle
from heads.bundles.inventory import bundle_paths
from heads.service.answers import HeadSays
from heads.service.gallery import Gallery
from heads.service.permits import Permits

_LOOK_SECONDS = 0.5
"""How often the disk is asked whether a bundle has changed."""

_END_SECONDS = 5.0
"""So long the end waits for a look at the disk; the base of a new head may be being downloaded."""

_DECODERS = 4
"""Pictures that are decoded at a time: one of 50 megapixels takes 150 MB and more."""

_SEARCHES = 2
"""Questions about all of the store, or all images of a head, that are answered at a time."""

_Files = tuple[tuple[str, *tuple[int, ...]], ...]
"""Of each bundle that lies there its path, and when its files were changed."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What is served at one moment: heads by name, the rows that they need by fingerprint, folder → what is wrong with
    it; ``files`` is what lay on the disk then, ``gone`` the named folders that did not. ``decoding`` : permits, which
    are those of every moment.
    """

    bundles: Mapping[str, Bundle]
    rows: Mapping[str, OnlineRows]
    problems: Mapping[str, str]
    files: _Files
    gone: frozenset[Path]
    decoding: Permits

    def ask(self, data: bytes, asker: str | None, deadline: float) -> dict[str, Future[Row]]:
        """The rows of one picture, by fingerprint, as they are computed; in the name of ``asker``.

        Raises Busy, at the latest at ``deadline`` (of ``time.monotonic``); FeatstoreError if there is no head.
        """
        if not self.rows:
            raise FeatstoreError("no head is served: the folder of the heads was emptied")
        return {
            fingerprint: rows.ask(data, asker, self.decoding.one(asker, deadline))
            for fingerprint, rows in self.rows.items()
        }

    def say(self, pictures: Sequence[Mapping[str, Row]]) -> list[list[HeadSays]]:
        """What all heads say of each picture whose rows, all of :meth:`ask`, have features; each head is asked once."""
        if not pictures:
            return []
        by_head = [_says(name, bundle, pictures) for name, bundle in self.bundles.items()]
        return [list(said) for said in zip(*by_head, strict=True)]


class ServedHeads:
    """Bundles, found in some folders as by `heads ls`, and the rows that they need; their bases are open.

    A thread looks whether bundles have changed. What is new is read and its base opened while the others go on; then it
    is served, all at once, and rows that no head needs any more are closed. A bundle that cannot be used is left out,
    and told in ``problems``; one that could be used before goes on being served while its folder is there. Raises
    InputError if there is none at first. Close it at the end. ``tell`` is called with a line for each later change.

    now : what is served; to be looked at once by whoever answers a request.
    decoding : permits for what decodes pictures. searching : for what looks through all of the store or of a head.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        store: Store,
        *,
        keep: bool = True,
        tell: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.store = store
        self._tell = tell
        self.gallery = Gallery(store)
        self._folders = tuple(folders)
        self._keep = keep
        self._turn = threading.Lock()
        self.decoding = Permits(_DECODERS)
        self.searching = Permits(_SEARCHES)
        self.now = Moment({}, {}, {}, (), frozenset(), self.decoding)
        self._refresh()
        if not self.is_ready:
            told = "; ".join(f"{path}: {problem}" for path, problem in self.problems.items())
            raise InputError(
                "there is no head to serve",
                where=", ".join(map(str, folders)) or "./bundles, ./sweep/bundles",
                expected="a bundle, or a folder of bundles",
                received=told or "none",
                todo="train one: featstore train DATA",
            )
        self._ended = threading.Event()
        self._watching = threading.Thread(target=self._watch, name="featstore-heads", daemon=True)
        self._watching.start()

    @property
    def bundles(self) -> Mapping[str, Bundle]:
        """The heads by name, as they are now."""
        return self.now.bundles

    @property
    def rows(self) -> Mapping[str, OnlineRows]:
        """The rows that the heads need, by fingerprint."""
        return self.now.rows

    @property
    def problems(self) -> Mapping[str, str]:
        """Folder → why the bundle in it cannot be used."""
        return self.now.problems

    @property
    def is_ready(self) -> bool:
        """Whether there is a head."""
        return bool(self.now.bundles)

    def nearest(self, name: str | None, digest: bytes, count: int) -> tuple[Bundle | None, list[str], list[Neighbour]]:
        """The head of that name, the fingerprints of its features, of all its bases, and the images nearest to a known
        one by these among those that it was fitted on; of no head (None): by those of the first, among all stored ones.
        KeyError if unknown.
        """
        now = self.now
        if not now.bundles:
            raise KeyError(name)
        head = None if name is None else now.bundles[name]
        bundle = next(iter(now.bundles.values())) if head is None else head
        specs = bundle.card.specs
        known = {spec.fingerprint: now.rows[spec.fingerprint].known(digest) for spec in specs}
        rows = {fingerprint: row for fingerprint, row in known.items() if row is not None and row.features is not None}
        if len(rows) < len(known):
            raise KeyError(digest)
        among = None if head is None else head.fitted.digests
        return head, list(rows), self.gallery.nearest(specs, _joined(bundle, rows), digest, count, among)

    def close(self) -> None:
        """Commit what is new."""
        self._ended.set()
        self._watching.join(_END_SECONDS)
        for rows in self.rows.values():
            rows.close()

    def _watch(self) -> None:
        gone: frozenset[Path] = frozenset()
        while not self._ended.wait(_LOOK_SECONDS):
            gone = self._look(gone)

    def _look(self, gone: frozenset[Path]) -> frozenset[Path]:
        """Serve what lies on the disk now. ``gone`` : the named folders that were not there at the last look; returns
        those of this one. What is gone at two looks is: at one it may be being replaced.
        """
        before, now_gone = self.now, frozenset(folder for folder in self._folders if not folder.is_dir())
        with suppress(FeatstoreError):  # a folder is gone since the last look
            self._refresh(now_gone & gone)
        for line in _changes(before, self.now):
            self._tell(line)
        return now_gone

    def _refresh(self, gone: frozenset[Path] = frozenset()) -> None:
        """Serve what lies on the disk now; of the folders that were named these are ``gone``."""
        folders = [folder for folder in self._folders if folder not in gone]
        paths = bundle_paths(folders) if folders or not gone else ()
        files: _Files = tuple((str(path), *_times(path)) for path in paths)
        if (files, gone) == (self.now.files, self.now.gone):
            return
        problems = {printable(str(folder)): "it is not there any more" for folder in gone}
        bundles: dict[str, Bundle] = {}
        opened, unchanged = dict(self.now.rows), set(files) & set(self.now.files)
        for one in files:
            path, place = one[0], Path(one[0])
            name = printable(place.name)
            if name in bundles:
                problems[printable(path)] = f"another head has this name: {printable(str(bundles[name].path))}"
                continue
            before = self.bundles.get(name)
            if before is not None and before.path != place:
                before = None
            if before is not None and one in unchanged and printable(path) not in self.problems:
                bundles[name] = before
                continue
            try:
                bundles[name] = self._read(place, opened)
            except Exception as error:  # whatever is wrong with one of them, the others are served
                problems[printable(path)] = _sentence(error)
                if before is not None:
                    bundles[name] = before
        needed = {spec.fingerprint for bundle in bundles.values() for spec in bundle.card.specs}
        rows = {fingerprint: one for fingerprint, one in opened.items() if fingerprint in needed}
        self.now = Moment(bundles, rows, problems, files, gone, self.decoding)
        self.gallery.keep(bundles.values())
        for fingerprint in opened.keys() - needed:
            opened[fingerprint].close()

    def _read(self, place: Path, opened: dict[str, OnlineRows]) -> Bundle:
        """The bundle there; rows that it needs and that are not ``opened`` are, with their base, and added to them."""
        bundle = read_bundle(place)
        for job in jobs_of(bundle):
            if job.spec.fingerprint not in opened:
                rows = OnlineRows(job, self.store, keep=self._keep, turn=self._turn, warm=True)
                opened[job.spec.fingerprint] = rows
        return bundle


def _changes(before: Moment, now: Moment) -> Iterator[str]:
    """What is served otherwise than before, a line each."""
    for name in sorted(before.bundles.keys() | now.bundles.keys()):
        if name not in before.bundles:
            yield f"serving {name}, too"
        elif name not in now.bundles:
            yield f"serving {name} no more"
        elif now.bundles[name].card != before.bundles[name].card:
            yield f"serving the new {name}"
    for where, why in now.problems.items():
        if before.problems.get(where) != why:
            yield f"{where}: {why}"


def _times(bundle: Path) -> Iterator[int]:
    """Of each of its files: the card alone may be there while the others are still being copied."""
    for name in FILES:
        try:
            about = (bundle / name).stat()
        except OSError:
            yield from (0, 0)
        else:
            yield from (about.st_mtime_ns, about.st_ino)


def _sentence(error: Exception) -> str:
    return printable(error.what if isinstance(error, FeatstoreError) else f"{type(error).__name__}: {error}")


def _joined(bundle: Bundle, rows: Mapping[str, Row]) -> npt.NDArray[np.float32]:
    """The features that a head takes, (D,): those of all its bases beside one another."""
    parts = (rows[spec.fingerprint].features for spec in bundle.card.specs)
    return np.concatenate([part for part in parts if part is not None])


def _says(name: str, bundle: Bundle, pictures: Sequence[Mapping[str, Row]]) -> Iterator[HeadSays]:
    classes = [printable(one) for one in bundle.card.classes]
    for probabilities in bundle.probabilities(np.stack([_joined(bundle, rows) for rows in pictures])):
        yield HeadSays(
            head=name,
            label=classes[int(np.argmax(probabilities))],
            probabilities=dict(zip(classes, probabilities.tolist(), strict=True)),
        )
