"""Where the bytes of images come from: a folder, a zip that is read without unpacking it, or object storage."""

from __future__ import annotations

import os
import stat
import threading
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from io import FileIO
from typing import Protocol, TypeVar

from featstore.cloud import Bucket
from featstore.dataset.listing import list_zip
from featstore.errors import ReadOnlyError
from featstore.records import Reason, Rejected, Stamp
from featstore.zips import refused_method

_Answer = TypeVar("_Answer")


class Source(Protocol):
    """Reads files by the paths that a dataset lists. Safe in threads.

    What is wrong with one file is Rejected. Where nothing can be read any more, a FeatstoreError ends the run: a
    storage that does not answer must not make rejects of all images.
    """

    @property
    def location(self) -> str:
        """The absolute path of the folder or zip, or the URL, as people know it."""
        ...

    def stamp(self, path: str) -> Stamp:
        """What is known of the file without reading it; raises Rejected (UNREADABLE)."""
        ...

    def read(self, path: str, limit: int) -> bytes:
        """All bytes of the file, at most ``limit``; raises Rejected. Never waits for a FIFO or a device."""
        ...

    def first(self, path: str, count: int) -> bytes:
        """The first ``count`` bytes of the file, read anew; raises Rejected."""
        ...

    def only(self, paths: Sequence[str]) -> Source:
        """The same, for some of the files: what another process is sent, with what is known of these and no others."""
        ...


# O_NONBLOCK: opening a FIFO that nobody writes to must not wait. The others are missing or needed only elsewhere.
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)


class FolderSource:
    """Files below ``location``; absolute paths are taken as they are."""

    def __init__(self, location: str) -> None:
        self.location = location

    def stamp(self, path: str) -> Stamp:
        """What the file system says, following links; raises Rejected (UNREADABLE)."""
        try:
            found = os.stat(os.path.join(self.location, path))
        except (OSError, ValueError) as error:  # a NUL in the name
            raise _unreadable(error) from error
        return Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)

    def read(self, path: str, limit: int) -> bytes:
        """The file's bytes; raises Rejected (FILE_TOO_LARGE, UNREADABLE)."""
        return self._first(path, limit + 1, largest=limit)

    def first(self, path: str, count: int) -> bytes:
        """The first bytes; raises Rejected (UNREADABLE)."""
        return self._first(path, count)

    def only(self, paths: Sequence[str]) -> FolderSource:
        """The same: nothing is known of files beforehand."""
        return self

    def _first(self, path: str, count: int, largest: int | None = None) -> bytes:
        """The first ``count`` bytes; Rejected if the file is known, or found, to have more than ``largest``."""
        try:
            descriptor = os.open(os.path.join(self.location, path), _OPEN_FLAGS)
            with FileIO(descriptor) as file:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode):
                    raise Rejected(Reason.UNREADABLE, "not a regular file")
                _check_size(found.st_size, largest)
                data = _read_up_to(file, count)
                _check_size(len(data), largest)  # a file can grow, and some have no size (/proc)
                return data
        except (OSError, ValueError) as error:
            raise _unreadable(error) from error


def _read_up_to(file: FileIO, count: int) -> bytes:
    parts = []
    while count > 0 and (part := file.read(count)):  # one read may return less
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


class ZipSource:
    """Entries of an open zip file by the names in ``entries``; nothing is written to disk.

    The stamp of an entry is its size and CRC with the times of the archive: unchanged archive, unchanged entries.
    """

    def __init__(self, location: str, archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo]) -> None:
        self.location = location
        self._archive = archive
        self._entries = entries
        self._lock = threading.Lock()  # ZipFile reads safely in threads, but counts its open entries without a lock
        found = os.stat(location if archive.fp is None else archive.fp.fileno())
        self._times = (found.st_mtime_ns, found.st_ctime_ns)

    def __reduce__(self) -> tuple[Callable[..., ZipSource], tuple[str, tuple[int, int]]]:
        """In another process the archive is opened anew."""
        return _opened_again, (self.location, self._times)

    def stamp(self, path: str) -> Stamp:
        """Size, CRC and the archive's times; raises Rejected (UNREADABLE) if there is no such entry."""
        entry = self._entries.get(path)
        if entry is None:
            raise Rejected(Reason.UNREADABLE, "no such entry in the zip")
        return Stamp(entry.file_size, *self._times, entry.CRC)

    def read(self, path: str, limit: int) -> bytes:
        """The entry's bytes, its CRC checked; raises Rejected (FILE_TOO_LARGE, UNREADABLE)."""
        return self._first(path, limit + 1, largest=limit)

    def first(self, path: str, count: int) -> bytes:
        """The first bytes, unchecked if there are more; raises Rejected (UNREADABLE)."""
        return self._first(path, count)

    def only(self, paths: Sequence[str]) -> ZipSource:
        """The same: another process lists the archive itself."""
        return self

    def _first(self, path: str, count: int, largest: int | None = None) -> bytes:
        """Inflate at most ``count`` bytes, whatever sizes the archive claims; no other method is opened."""
        try:
            entry = self._entries[path]
            if refused := refused_method(entry):
                raise Rejected(Reason.UNREADABLE, refused)
            _check_size(entry.file_size, largest)
            with self._lock:
                file = self._archive.open(entry)
            try:
                data = file.read(count)
                _check_size(len(data), largest)
                return data
            finally:
                with self._lock:
                    file.close()
        except Rejected:
            raise
        except KeyError as error:
            raise Rejected(Reason.UNREADABLE, "no such entry in the zip") from error
        except Exception as error:  # each decompressor has errors of its own, encryption is a RuntimeError
            raise Rejected(Reason.UNREADABLE, " ".join(str(error).split()) or type(error).__name__) from error


class BucketSource:
    """Objects below a URL, by their names. What is known of them is ``stamps``, of when they were listed; if one has
    changed since, its old stamp is with its new digest, and so it is read once more.

    The stamps go to other processes, too: a storage may say a time otherwise of one object than in a listing.
    """

    def __init__(self, bucket: Bucket, stamps: Mapping[str, Stamp] | None = None) -> None:
        self.bucket = bucket
        self._stamps = stamps or {}
        self._readable: str | None = None

    @property
    def location(self) -> str:
        """The URL."""
        return self.bucket.url

    def stamp(self, path: str) -> Stamp:
        """What is known of an object; raises Rejected (UNREADABLE), and the rest as :meth:`read`."""
        return self._stamps.get(path) or self._asked(path, self.bucket.stamp)

    def read(self, path: str, limit: int) -> bytes:
        """The object's bytes; raises Rejected (FILE_TOO_LARGE, UNREADABLE), and StorageError if the storage does not
        answer, or ReadOnlyError if it no longer accepts the keys.
        """
        if path in self._stamps:
            _check_size(self._stamps[path].size, limit)
        data = self.first(path, limit + 1)
        _check_size(len(data), limit)
        return data

    def first(self, path: str, count: int) -> bytes:
        """The first bytes; raises Rejected (UNREADABLE), and the rest as :meth:`read`."""
        data = self._asked(path, lambda name: self.bucket.read(name, count))
        self._readable = path
        return data

    def only(self, paths: Sequence[str]) -> BucketSource:
        """With the stamps of these."""
        return BucketSource(self.bucket, {path: self._stamps[path] for path in paths if path in self._stamps})

    def _asked(self, path: str, ask: Callable[[str], _Answer]) -> _Answer:
        """An object that is refused while another one is still read is refused for itself: archived, or not ours."""
        try:
            return ask(path)
        except FileNotFoundError as error:
            raise Rejected(Reason.UNREADABLE, "no such object") from error
        except ReadOnlyError as error:
            if self._readable is None:
                raise
            try:
                self.bucket.read(self._readable, 1)
            except FileNotFoundError:
                raise error from None
            raise Rejected(Reason.UNREADABLE, error.what) from error


@lru_cache(maxsize=1)
def _opened_again(location: str, times: tuple[int, int]) -> ZipSource:
    """The source of a zip that another process has opened; listed once, unless it has changed since."""
    _, archive, entries = list_zip(location)
    return ZipSource(location, archive, entries)


def _unreadable(error: OSError | ValueError) -> Rejected:
    return Rejected(Reason.UNREADABLE, getattr(error, "strerror", None) or str(error))


def _check_size(size: int, largest: int | None) -> None:
    if largest is not None and size > largest:
        raise Rejected(Reason.FILE_TOO_LARGE, f"more than {largest} bytes")
