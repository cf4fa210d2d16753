"""A store on object storage, and the folder of this machine that is kept in step with it.

What is there counts. A segment is fetched once and then read here, as any other; it is written there first, and is
reported once that was acknowledged. Names are those of the format, so a copy that is here and not there any more was
compacted away, or set aside, by somebody else.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from featstore.cloud import Bucket
from featstore.errors import FeatstoreError, NoSpaceError
from featstore.folders import mirror_folder
from featstore.progress import Progress, silent
from featstore.records import Stamp
from featstore.store import commit
from featstore.store.names import name_of, name_of_file
from featstore.store.place import Place
from featstore.store.rows import MAX_SEGMENT_BYTES, FileStamp
from featstore.whole import open_regular, read_small

_AT_ONCE = 8
"""Segments that are fetched side by side."""

_SMALL_BYTES = 2**16
"""More than any file of a store has that is no segment."""

_OUR_FOLDERS = re.compile(r"[0-9a-f]{64}|seg|quarantine")
_SEGMENT = re.compile(r"[0-9a-f]{64}\.h5")


class Mirror(Place):
    """The store at the URL of ``bucket``; ``root`` is the folder of copies, of which nothing is lost if it goes.

    Beside the copies, ``root`` holds what is this machine's own: the stat caches, the ledgers, private files.
    """

    look_seconds: ClassVar[float] = 15.0
    """It takes a listing: a thousand segments each request."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(mirror_folder(bucket.url))
        self.bucket = bucket
        self._listed: dict[Path, Stamp] = {}
        self._damaged: dict[Path, Stamp] = {}

    @property
    def location(self) -> str:
        """Its URL."""
        return self.bucket.url

    def refresh(self) -> None:
        """See :meth:`Place.refresh`."""
        here = self.root / "FORMAT"
        try:
            there = self.bucket.read("FORMAT", _SMALL_BYTES)
        except FileNotFoundError:
            with suppress(OSError):
                here.unlink()
            return
        if not _holds(here, there):
            self.make_folder(self.private)
            with self._room_for_copies():
                commit.write_file(there, here, self.private)

    def names(self) -> set[str]:
        """See :meth:`Place.names`."""
        return {*self.bucket.folder()}

    def list(self, folder: Path) -> list[Path]:
        """See :meth:`Place.list`. Copies of what is gone go, too."""
        here = super().list(folder)  # first: whatever is here by now is there, unless somebody removed it
        there = self.bucket.folder(self._name(folder))
        for path in here:
            if path.name not in there and path.is_file():
                with suppress(OSError):
                    path.unlink()
        for name, stamp in there.items():
            if stamp is not None:
                self._listed[folder / name] = stamp
            elif _OUR_FOLDERS.fullmatch(name):
                self.make_folder(folder / name)
        return sorted(folder / name for name in there)

    def state(self, folder: Path) -> object:
        """See :meth:`Place.state`."""
        try:
            return frozenset(self.bucket.folder(self._name(folder)))
        except FeatstoreError:
            return None

    def fetch(self, paths: Iterable[Path], progress: Progress = silent, *, anew: bool = False) -> None:
        """See :meth:`Place.fetch`."""
        wanted = [path for path in paths if anew or not os.path.lexists(path)]
        if not wanted:
            return
        secrets.SystemRandom().shuffle(wanted)  # of several processes that begin at once each fetches others first
        for folder in {self.private, *(path.parent for path in wanted)}:
            self.make_folder(folder)
        with (
            progress("fetch", len(wanted), "segments") as advance,
            ThreadPoolExecutor(min(len(wanted), _AT_ONCE), "featstore-fetch") as threads,
        ):
            for _ in threads.map(lambda path: self._fetch(path, anew), wanted):
                advance(1)

    def renew(self, paths: Iterable[Path]) -> None:
        """See :meth:`Place.renew`. What was damaged there is fetched again once it is something else."""
        self.fetch((path for path in paths if self._damaged.get(path) != self._listed.get(path)), anew=True)

    def bytes_of(self, path: Path) -> int:
        """See :meth:`Place.bytes_of`; of what is there, as it was listed."""
        if not self._is_shared(path):
            return super().bytes_of(path)
        if path in self._listed:
            return self._listed[path].size
        return sum(stamp.size for _, stamp in self._inside(path).files())

    def size(self) -> int:
        """Bytes of all objects there."""
        return sum(stamp.size for _, stamp in self.bucket.files())

    def make_folder(self, folder: Path) -> None:
        """See :meth:`Place.make_folder`; here, for copies."""
        with self._room_for_copies():
            super().make_folder(folder)

    def make_durable(self, folder: Path) -> None:
        """What is listed there is durable."""

    def probe(self) -> None:
        """See :meth:`Place.probe`; and clear away the tokens that killed runs left there."""
        self.bucket.replace("tmp/probe", bytes(1))
        for name, stamp in self.bucket.folder("tmp").items():
            if name == "probe" or (stamp and time.time() - stamp.mtime_ns / 1e9 > commit.LEFTOVER_SECONDS):
                self.bucket.remove(f"tmp/{name}")
        with self._room_for_copies():
            super().probe()

    def holds(self, target: Path, text: str) -> bool:
        """See :meth:`Place.holds`."""
        try:
            return self.bucket.read(self._name(target), _SMALL_BYTES) == text.encode("ascii")
        except FileNotFoundError:
            return False

    def write_text(self, text: str, target: Path) -> None:
        """See :meth:`Place.write_text`."""
        self.bucket.replace(self._name(target), text.encode("ascii"))
        with self._room_for_copies():
            super().write_text(text, target)

    def commit(self, data: bytes, folder: Path) -> str:
        """See :meth:`Place.commit`. It is there when this returns; a copy here is kept if there is room."""
        name = name_of(data)
        target = folder / (name + commit.SEGMENT_ENDING)
        while not self.bucket.create(self._name(target), data):
            with suppress(FileNotFoundError):  # it has been compacted away since: create it
                if not self._is_sound(target):
                    self.bucket.replace(self._name(target), data)
                break
        with suppress(FeatstoreError):
            super().commit(data, folder)
        return name

    def remove(self, paths: Sequence[Path], folder: Path) -> None:
        """See :meth:`Place.remove`."""
        for path in paths:
            if self._is_shared(path):
                self.bucket.remove(self._name(path))
                if path not in self._listed:  # a folder, perhaps
                    inside = self._inside(path)
                    for name, _ in inside.files():
                        inside.remove(name)
        if folder.is_dir():
            super().remove(paths, folder)

    def set_aside(self, source: Path, folder: Path, stamp: FileStamp | None) -> None:
        """See :meth:`Place.set_aside`. If only the copy here was damaged, only that goes.

        Object storage cannot rename: it is copied, and removed if nobody has mended it meanwhile.
        """
        name = self._name(source)
        with suppress(FileNotFoundError):
            before = self.bucket.stamp(name)
            if not self._is_sound(source):
                aside = f"{self._name(folder)}/{source.stem}.{secrets.token_hex(4)}{source.suffix}"
                self.bucket.copy(name, aside)
                self.bucket.remove(name if self.bucket.stamp(name) == before else aside)
        with suppress(OSError):
            source.unlink()

    def has_token(self, name: str) -> bool:
        """See :meth:`Place.has_token`."""
        try:
            self.bucket.stamp(f"tmp/{name}")
        except FileNotFoundError:
            return False
        return True

    def leave_token(self, name: str) -> None:
        """See :meth:`Place.leave_token`."""
        self.bucket.replace(f"tmp/{name}", b"")

    def remove_token(self, name: str) -> None:
        """See :meth:`Place.remove_token`."""
        with suppress(FeatstoreError):
            self.bucket.remove(f"tmp/{name}")

    def _fetch(self, path: Path, anew: bool) -> None:
        """A copy of one object, under its name once it is whole; none if it is gone, or another process has made it."""
        if not anew and os.path.lexists(path):
            return
        with (
            self._room_for_copies(),
            commit.explained("keep a copy of a segment", path),
            suppress(FileNotFoundError),
        ):
            stamp = self._listed.get(path) or self.bucket.stamp(self._name(path))
            temporary = self._downloaded(path, stamp)
            if _SEGMENT.fullmatch(path.name) and not _is_sound(temporary, path.stem):
                self._damaged[path] = stamp
            try:
                os.utime(temporary, ns=(stamp.mtime_ns, stamp.mtime_ns))
                os.replace(temporary, path)
            finally:
                with suppress(FileNotFoundError):
                    temporary.unlink()

    def _downloaded(self, path: Path, stamp: Stamp) -> Path:
        """The private copy of an object; one that does not hold what its name says is got twice: the way may have been
        at fault. Of one that is too large nothing is got, and so whoever reads it finds that it is damaged.
        """
        temporary = self.private / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            temporary.touch(exist_ok=False)
            for _ in range(2 if stamp.size <= MAX_SEGMENT_BYTES else 0):
                self.bucket.download(self._name(path), temporary)
                if not _SEGMENT.fullmatch(path.name) or _is_sound(temporary, path.stem):
                    break
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        return temporary

    def _is_sound(self, path: Path) -> bool:
        """Whether what is there now holds what its name promises. Raises FileNotFoundError if nothing is."""
        self.make_folder(self.private)
        stamp = self.bucket.stamp(self._name(path))
        with self._room_for_copies(), commit.explained("check a segment", path, leave=(FileNotFoundError,)):
            temporary = self._downloaded(path, stamp)
            try:
                return _is_sound(temporary, path.stem)
            finally:
                temporary.unlink()

    @contextmanager
    def _room_for_copies(self) -> Iterator[None]:
        """Have it told of a full disk that it is the one of the copies, which may lie elsewhere."""
        try:
            yield
        except NoSpaceError as error:
            error.todo = (
                f"free some space, or have the copies of what is on object storage in another place than {self.root}: "
                "$FEATSTORE_MIRRORS names one; then run the same command again: everything committed so far is kept"
            )
            raise

    def _inside(self, folder: Path) -> Bucket:
        return Bucket(f"{self.bucket.url}/{self._name(folder)}")

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _is_shared(self, path: Path) -> bool:
        return self._name(path).startswith("ns/")


def _is_sound(file: Path, name: str) -> bool:
    with open_regular(file) as opened:
        return name_of_file(opened.fileno()) == name


def _holds(path: Path, data: bytes) -> bool:
    try:
        return read_small(path, len(data)) == data
    except (OSError, ValueError):
        return False
