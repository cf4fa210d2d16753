"""Reading a segment: an immutable HDF5 file of rows, checked against its own name before anything is believed."""

from __future__ import annotations

import errno
import math
import os
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from featstore.errors import DamageError, FeatstoreError, InputError, from_os_error
from featstore.records import RACY_NS, Digests, Reason
from featstore.spec import Spec
from featstore.store.failures import NOT_THE_FILE
from featstore.store.names import name_of_file
from featstore.store.rows import MAX_SEGMENT_BYTES, Features, FileStamp, stamp_of
from featstore.store.structure import (
    Codec,
    Malformed,
    check_structure,
    chunks_of,
    codec_of,
    read_whole,
    spec_text,
    stored_chunks,
)

_CANNOT_READ_HDF5 = (OSError, RuntimeError, ValueError, LookupError, TypeError, OverflowError)
"""What h5py raises on a file that HDF5 cannot make sense of."""

_FRESH_SECONDS = 60.0
"""So long the check of a file's bytes stands for those that are read; after that HDF5's checksums are asked again."""


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """An opened segment: its keys in memory, its N rows of features on disk.

    digests uint8 (N, 32), views uint16 (N,), status uint8 (N,); ``feature_shape`` is (D,), (H, W, C), or None if
    every row is a reject; ``chunk_rows`` rows are checked and read at a time; ``recorded`` is what its maker noted;
    ``stamp`` is that of the file; ``codec`` is that of the features. ``direct`` is how
    the features are read without HDF5; None if they are compressed, or were to be checked and the file was so new that
    it could change again without a new time.
    """

    path: Path
    digests: Digests
    views: npt.NDArray[np.uint16]
    status: npt.NDArray[np.uint8]
    feature_shape: tuple[int, ...] | None
    chunk_rows: int
    recorded: Mapping[str, str]
    stamp: FileStamp
    codec: Codec = "none"
    direct: _Direct | None = None

    @property
    def name(self) -> str:
        """BLAKE3 of the file, 64 hex digits."""
        return self.path.stem

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self.stamp[0]

    @property
    def written_ns(self) -> int:
        """The file's time of modification."""
        return self.stamp[1]

    def read_into(self, out: Features, places: npt.NDArray[np.intp], rows: npt.NDArray[np.intp]) -> None:
        """Put the features of this segment's ``rows`` (n,) at ``out[places]``, a chunk at a time.

        ``out`` is C-contiguous, (M, *feature_shape). If every byte of the file was checked less than a minute ago, or
        was not to be checked, and it has not changed since, its bytes go straight into ``out``; otherwise by way of
        HDF5, which checks each chunk's checksum once more. Raises DamageError if one does not hold, FileNotFoundError
        if the file that was checked is not there: it has gone, or is another, or has changed.
        """
        order = np.argsort(rows, kind="stable")
        rows, places = rows[order], places[order]
        starts = np.arange(0, len(self.digests), self.chunk_rows)
        cuts = np.searchsorted(rows, [*starts, len(self.digests)])
        parts = [
            (number, places[first:last], rows[first:last] - start)
            for number, (start, first, last) in enumerate(zip(starts.tolist(), cuts[:-1], cuts[1:], strict=True))
            if first < last
        ]
        if self.direct is not None and time.monotonic() < self.direct.until:
            with _raw(self.path) as handle:
                if self.stamp == stamp_of(os.fstat(handle)):
                    for number, into, within in parts:
                        _read_raw(handle, int(self.direct.offsets[number]), out, into, within)
                    return
        with _hdf5(self.path, self.stamp) as file:
            for number, into, within in parts:
                _read_chunk(file["features"], int(starts[number]), self.chunk_rows, out, into, within)

    def check_features(self) -> None:
        """Read every chunk once, so that HDF5 checks and decompresses all of them; errors as in :meth:`read_into`."""
        if self.feature_shape is None:
            return
        with _hdf5(self.path, self.stamp) as file:
            dataset = file["features"]
            for start in range(0, len(self.digests), self.chunk_rows):
                dataset[start : start + self.chunk_rows]


@dataclass(frozen=True, slots=True, eq=False)
class _Direct:
    """Where in the file the chunks of features begin, int64 (chunks,), and until when (seconds of the monotonic clock)
    they need not be checked.
    """

    until: float
    offsets: npt.NDArray[np.int64]


def open_segment(path: Path, spec: Spec, *, read_data: bool = True) -> Segment:
    """Open the segment at ``path`` of the namespace of ``spec``.

    With ``read_data`` every byte is read and must give the file's name. Without, the structure is checked alone, and
    uncompressed features are taken as they are on the disk. After an I/O error it is read once more: a network may
    recover, a bad sector does not.

    Raises
    ------
    FileNotFoundError : it is not there (any more).
    DamageError : it is not what its name or the format promises.
    InputError : it needs a newer featstore, or a codec that is not installed.
    ReadOnlyError, StorageError : it may not be read, or there is no handle or memory to read it with.
    """
    try:
        return _open_once(path, spec, read_data)
    except DamageError as error:
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.EIO:
            raise
        return _open_once(path, spec, read_data)


def spec_within(path: Path, fingerprint: str) -> Spec | None:
    """The spec that the segment at ``path`` says it is of, if it has this fingerprint; nothing else is checked.

    None if it has another, or says none that can be read. Raises ReadOnlyError or StorageError as :func:`open_segment`.
    """
    try:
        about = _check_bytes(path, None)
        with _hdf5(path, stamp_of(about)) as file:
            spec = Spec.from_json(spec_text(file))
    except (DamageError, FileNotFoundError, ValueError):
        return None
    return spec if spec.fingerprint == fingerprint else None


def _open_once(path: Path, spec: Spec, read_data: bool) -> Segment:
    until = time.monotonic() + _FRESH_SECONDS if read_data else math.inf
    about = _check_bytes(path, path.stem if read_data else None)
    with _hdf5(path, stamp_of(about)) as file:
        datasets, recorded = check_structure(file, about.st_size, spec)
        status = read_whole(datasets["status"])
        features = datasets.get("features")
        settled = time.time_ns() - max(about.st_mtime_ns, about.st_ctime_ns) > RACY_NS
        offsets = _offsets(features) if features is not None and (settled or not read_data) else None
        if features is None and not status.all():
            raise Malformed("there are no features, yet not every row is a reject")
        if strange := set(np.flatnonzero(np.bincount(status)).tolist()) - set(Reason):
            raise Malformed(f"a status is {min(strange)}, which is no reason")
        return Segment(
            path=path,
            digests=read_whole(datasets["digest"]),
            views=read_whole(datasets["view"]).astype(np.uint16, copy=False),
            status=status,
            feature_shape=None if features is None else features.shape[1:],
            chunk_rows=1 if features is None else chunks_of(features)[0],
            recorded=recorded,
            stamp=stamp_of(about),
            codec="none" if features is None else codec_of(features),
            direct=None if offsets is None else _Direct(until, offsets),
        )


def _check_bytes(path: Path, name: str | None) -> os.stat_result:
    """The status of the regular file at ``path``, whose content has the BLAKE3 ``name`` (None: not asked)."""
    with _raw(path) as handle:
        about = os.fstat(handle)
        _require_regular(path, about)
        if about.st_size > MAX_SEGMENT_BYTES:
            raise _damaged(path, f"it has {about.st_size} bytes, and no segment has more than {MAX_SEGMENT_BYTES}")
        if name is not None:
            found = name_of_file(handle)
            if found != name:
                raise _damaged(path, f"its content has the BLAKE3 {found}, which is not its name")
        return about


def _require_regular(path: Path, about: os.stat_result) -> None:
    if not stat.S_ISREG(about.st_mode):
        raise _damaged(path, "it is not a regular file")


def _require_unchanged(path: Path, about: os.stat_result, stamp: FileStamp) -> None:
    if stamp_of(about) != stamp:
        raise FileNotFoundError(errno.ENOENT, "it has changed since it was checked", str(path))


@contextmanager
def _hdf5(path: Path, stamp: FileStamp) -> Iterator[Any]:
    """The HDF5 file at ``path``, open for reading without a lock; failures within the block become DamageError.

    Raises FileNotFoundError if it is no longer the file that had this ``stamp`` when it was checked.
    """
    try:
        _require_unchanged(path, os.lstat(path), stamp)  # first: what is there now may be a pipe, or lead elsewhere
        with h5py.File(path, "r", locking=False, rdcc_nbytes=0) as file:
            _require_unchanged(path, os.fstat(file.id.get_vfd_handle()), stamp)
            yield file
    except (InputError, FileNotFoundError):
        raise
    except Malformed as error:
        raise _damaged(path, str(error)) from error
    except _CANNOT_READ_HDF5 as error:
        if not os.path.lexists(path):  # removed at this very moment; HDF5 says so in many words and no type
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
        first, *_ = str(error).splitlines() or [type(error).__name__]
        raise _unreadable(path, error, f"HDF5 cannot read it: {first}") from error


def _read_chunk(
    dataset: Any, start: int, length: int, out: Features, places: npt.NDArray[np.intp], rows: npt.NDArray[np.intp]
) -> None:
    """Read the chunk of ``length`` rows from ``start`` on; put its ``rows`` (ascending) at ``out[places]``."""
    stop = min(start + length, len(dataset))
    first = int(places[0])
    if len(rows) == stop - start and _is_run(rows) and _is_run(places):
        dataset.read_direct(out, np.s_[start:stop], np.s_[first : first + len(rows)])
    else:
        out[places] = dataset[start:stop][rows]


def _read_raw(
    handle: int, offset: int, out: Features, places: npt.NDArray[np.intp], rows: npt.NDArray[np.intp]
) -> None:
    """The same, of the uncompressed chunk whose bytes begin at ``offset`` of the file."""
    first, last = int(rows[0]), int(rows[-1]) + 1
    straight = _is_run(rows) and _is_run(places)
    target = out[places[0] : places[0] + len(rows)] if straight else np.empty((last - first, *out.shape[1:]), out.dtype)
    left = target.data.cast("B")
    at = offset + first * (target.nbytes // len(target))
    while left:
        count = os.preadv(handle, [left], at)
        if not count:
            raise OSError(errno.EIO, "the file is shorter than it was")
        left, at = left[count:], at + count
    if not straight:
        out[places] = target[rows - first]


def _is_run(numbers: npt.NDArray[np.intp]) -> bool:
    """Whether they are n, n + 1, n + 2 …"""
    return bool((np.diff(numbers) == 1).all())


def _offsets(features: Any) -> npt.NDArray[np.int64] | None:
    """Where the chunks begin, in their order; None if their bytes are not those of an array in memory."""
    if codec_of(features) != "none" or sys.byteorder != "little" or not hasattr(os, "preadv"):
        return None
    return np.array([chunk.byte_offset for chunk in stored_chunks(features)], np.int64)


@contextmanager
def _raw(path: Path) -> Iterator[int]:
    """The regular file at ``path``, open for reading; failures within the block become typed errors."""
    try:
        _require_regular(path, os.lstat(path))  # first: to open a device may do something
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)  # a pipe makes nobody wait
        try:
            yield handle
        finally:
            os.close(handle)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unreadable(path, error, f"it cannot be read: {error.strerror}") from error


def _unreadable(path: Path, error: Exception, problem: str) -> FeatstoreError:
    if isinstance(error, OSError) and error.errno in NOT_THE_FILE:
        return from_os_error(error, "read a segment", path)
    return _damaged(path, problem)


def _damaged(path: Path, problem: str) -> DamageError:
    return DamageError(
        problem,
        where=path,
        todo="run the same extraction again: the damaged segment is set aside, and only its rows are computed anew",
    )
