"""Digests of a dataset's images: from the stat cache where a file is unchanged, else by reading the file.

The cache is derived: losing it costs time and nothing else. It trusts no file that was changed less than two seconds
before it was looked at, for such a file can change again without a new time (the "racy git" problem).
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import time
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featstore import records
from featstore.cloud import is_url
from featstore.dataset import Dataset
from featstore.errors import FeatstoreError
from featstore.formats import MAX_FILE_BYTES
from featstore.progress import Progress, silent
from featstore.records import DIGEST_BYTES, RACY_NS, Reason, Rejected, Stamp
from featstore.whole import open_regular, write_whole
from featstore.zips import check_directory

_ENTRY = np.dtype(
    [("size", "<i8"), ("mtime", "<i8"), ("ctime", "<i8"), ("inode", "<u8"), ("digest", f"V{DIGEST_BYTES}")]
)
ENTRY_BYTES = _ENTRY.itemsize
"""What the stat cache keeps of a file, beside its path and the byte after it."""

_STAMP = struct.Struct("<qqqQ")  # the first four
_VERSION = 1
_NAME = re.compile(r"[0-9a-f]{64}\.npz")
MAX_CACHE_BYTES = 2**29
"""Of the cache of one place: some four million files."""

_MEMBERS, _MAX_LIST_BYTES = 3, 2**10

_THREADS = min(8, 2 * (os.cpu_count() or 1))
_CHUNK = 256  # files handed to the threads at a time


class StatCache:
    """What is known of files: path → stamp and digest, as the bytes of one entry. For one location; used from one
    thread.
    """

    def __init__(
        self, file: Path | None = None, location: str = "", entries: Mapping[str, bytes] | None = None
    ) -> None:
        self._file = file
        self._location = location
        self._entries = dict(entries or {})
        self._opened = time.time_ns()
        self._changed = False

    @classmethod
    def load(cls, folder: Path | None, location: str) -> StatCache:
        """The cache of ``location`` in ``folder`` (STORE/scan), empty if lost or damaged. None: in memory only."""
        if folder is None:
            return cls()
        file = folder / f"{hashlib.sha256(os.fsencode(location)).hexdigest()}.npz"
        try:
            return cls(file, location, _read(file)[1])
        except Exception:  # any damage at all: it is only a cache, and numpy raises many kinds
            return cls(file, location)

    def get(self, path: str, stamp: Stamp) -> bytes | None:
        """The digest (32 bytes) if the file is known and unchanged."""
        known, packed = self._entries.get(path), _packed(stamp)
        return known[_STAMP.size :] if known is not None and packed and known.startswith(packed) else None

    def put(self, path: str, stamp: Stamp, digest: bytes) -> None:
        """Remember a digest. ``stamp`` must be from before the file was read; a file changed just now is forgotten."""
        packed = _packed(stamp)
        if not packed or max(stamp.mtime_ns, stamp.ctime_ns) > self._opened - RACY_NS:
            self._changed |= self._entries.pop(path, None) is not None
        elif self._entries.get(path) != (entry := packed + digest):
            self._entries[path] = entry
            self._changed = True

    def save(self) -> None:
        """Write the cache if it changed, whole or not at all; a disk that refuses is no error."""
        if self._file is None or not self._changed:
            return
        try:
            _write(self._file, self._location, self._entries)
        except FeatstoreError:
            return
        self._changed = False


def known_files(folder: Path) -> dict[bytes, Path]:
    """Digest → a file that had it when it was last read, for every file still there; what zips hold is left out.

    ``folder`` is STORE/scan. The content may have changed since: whoever reads a file takes its digest again.
    """
    found: dict[bytes, Path] = {}
    for cache in _caches(folder):
        try:
            location, entries = _read(cache)
        except Exception:  # noqa: S112 - as in StatCache.load
            continue
        found.update((entry[_STAMP.size :], Path(location, path)) for path, entry in entries.items())
    return {digest: path for digest, path in found.items() if path.is_file()}


def lost_caches(folder: Path) -> list[Path]:
    """The caches in ``folder`` (STORE/scan) of places that are not there any more, or that cannot be read."""
    return [cache for cache in _caches(folder) if not _place_exists(cache)]


def _caches(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.npz") if _NAME.fullmatch(file.name))


def _place_exists(cache: Path) -> bool:
    try:
        location = _read(cache)[0]
        return is_url(location) or Path(location).exists()
    except Exception:  # as in StatCache.load
        return False


def _packed(stamp: Stamp) -> bytes:
    """Nothing for times that no entry can hold, before 1677 or after 2262: such a file is read each time."""
    if not all(-(2**63) <= time_ns < 2**63 for time_ns in (stamp.mtime_ns, stamp.ctime_ns)):
        return b""
    return _STAMP.pack(stamp.size, stamp.mtime_ns, stamp.ctime_ns, stamp.inode)


def _read(file: Path) -> tuple[str, dict[str, bytes]]:
    """The place and the entries that a cache holds. The memory that this takes follows from the file's size alone."""
    with open_regular(file) as opened:
        if opened.seek(0, os.SEEK_END) > MAX_CACHE_BYTES:
            raise ValueError("larger than any stat cache")
        check_directory(opened, _MEMBERS, _MAX_LIST_BYTES)
        with zipfile.ZipFile(opened) as archive:
            entries, paths, version = (_array(archive, name) for name in ("entries", "paths", "version"))
    blob = paths.tobytes()
    if int(version) != _VERSION or entries.dtype != _ENTRY or blob.count(b"\0") != len(entries) + 1:
        raise ValueError("not a stat cache of this version")
    location, *names = [os.fsdecode(path) for path in blob.split(b"\0")[:-1]]
    rows, step = entries.tobytes(), _ENTRY.itemsize
    return location, {name: rows[at * step : (at + 1) * step] for at, name in enumerate(names)}


def _array(archive: zipfile.ZipFile, name: str) -> npt.NDArray[np.generic]:
    """An array of an ``.npz``, which must lie there as it is: what is compressed could be of any size."""
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    with archive.open(member) as opened:
        array: npt.NDArray[np.generic] = np.lib.format.read_array(opened, allow_pickle=False)
        return array


def _write(file: Path, location: str, entries: Mapping[str, bytes]) -> None:
    blob = b"".join(os.fsencode(path) + b"\0" for path in (location, *entries))
    rows = np.frombuffer(b"".join(entries.values()), dtype=_ENTRY)
    paths, version = np.frombuffer(blob, dtype=np.uint8), np.int64(_VERSION)
    write_whole(
        file,
        "keep what is known of files",
        lambda opened: np.savez(opened, version=version, entries=rows, paths=paths),
    )


@dataclass(slots=True)
class Pace:
    """How long a scan took, in seconds: to look at all files, whose sizes add up to ``bytes``, and to read ``read`` of
    them and take their digests.
    """

    looking: float = 0.0
    bytes: int = 0
    reading: float = 0.0
    read: int = 0


@dataclass(frozen=True, eq=False)
class Digests:
    """Digests of a dataset's N images: ``values`` uint8 (N, 32), ``known`` bool (N,), ``rejects`` by index.

    A row that is not known is zeros. A rejected image (it cannot be read, or is too large) has no digest. ``pace`` is
    how long it took to find out.
    """

    values: records.Digests
    known: npt.NDArray[np.bool_]
    rejects: dict[int, Rejected]
    pace: Pace = field(default_factory=Pace)


def known_digests(dataset: Dataset, cache: StatCache, rehash: bool = False) -> Digests:
    """What can be said without reading a file: one stat a file. ``rehash`` knows nothing beforehand."""
    started = time.perf_counter()
    found = Digests(np.zeros((len(dataset), DIGEST_BYTES), np.uint8), np.zeros(len(dataset), np.bool_), {})
    for i, path in enumerate(dataset.paths):
        try:
            stamp = _checked_stamp(dataset, path)
        except Rejected as reject:
            found.rejects[i] = reject
            continue
        found.pace.bytes += stamp.size
        digest = None if rehash else cache.get(path, stamp)
        if digest is not None:
            _set(found, i, digest)
    found.pace.looking = time.perf_counter() - started
    return found


def hash_dataset(
    dataset: Dataset,
    cache: StatCache,
    *,
    rehash: bool = False,
    progress: Progress = silent,
    only: npt.NDArray[np.bool_] | None = None,
) -> Digests:
    """The digests of all images (or, with ``only`` bool (N,), of some): files not in the cache are read, in threads.

    Memory is bounded by the number of threads (at most 8) times ``MAX_FILE_BYTES``. The cache learns what was read;
    save it afterwards.
    """
    found = known_digests(dataset, cache, rehash)
    wanted = ~found.known if only is None else ~found.known & only
    unread = [i for i in np.flatnonzero(wanted).tolist() if i not in found.rejects]
    if not unread:
        return found

    def read(i: int) -> tuple[Stamp, bytes] | Rejected:
        return _hash(dataset, dataset.paths[i])

    started = time.perf_counter()
    with progress("reading", len(unread)) as advance, ThreadPoolExecutor(_THREADS) as threads:
        for start in range(0, len(unread), _CHUNK):
            chunk = unread[start : start + _CHUNK]
            for i, result in zip(chunk, threads.map(read, chunk), strict=True):
                if isinstance(result, Rejected):
                    found.rejects[i] = result
                else:
                    _set(found, i, result[1])
                    cache.put(dataset.paths[i], *result)
                advance(1)
    found.pace.read, found.pace.reading = len(unread), time.perf_counter() - started
    return found


def digest_all(dataset: Dataset, folder: Path | None, *, rehash: bool = False, progress: Progress = silent) -> Digests:
    """:func:`hash_dataset` with the stat cache in ``folder`` (STORE/scan), loaded before and saved after."""
    cache = StatCache.load(folder, dataset.source.location)
    try:
        return hash_dataset(dataset, cache, rehash=rehash, progress=progress)
    finally:
        cache.save()  # what was read counts, even if the rest was interrupted


def _hash(dataset: Dataset, path: str) -> tuple[Stamp, bytes] | Rejected:
    try:
        stamp = _checked_stamp(dataset, path)  # before the read: a later change then shows
        return stamp, hashlib.sha256(dataset.source.read(path, MAX_FILE_BYTES)).digest()
    except Rejected as reject:
        return reject


def _checked_stamp(dataset: Dataset, path: str) -> Stamp:
    stamp = dataset.source.stamp(path)
    if stamp.size > MAX_FILE_BYTES:
        raise Rejected(Reason.FILE_TOO_LARGE, f"{stamp.size} bytes, the limit is {MAX_FILE_BYTES}")
    return stamp


def _set(found: Digests, i: int, digest: bytes) -> None:
    found.values[i] = np.frombuffer(digest, np.uint8)
    found.known[i] = True
