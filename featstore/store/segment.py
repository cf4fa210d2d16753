"""Reading a segment: an immutable HDF5 file of rows, checked against its own name before anything is believed."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from featstore.errors import DamageError, FeatstoreError, InputError, from_os_error
from featstore.records import Digests
from featstore.spec import Spec
from featstore.store.rows import Features
from featstore.store.structure import Malformed, check_structure

_CANNOT_READ_HDF5 = (OSError, RuntimeError, ValueError, LookupError, TypeError, OverflowError)
"""What h5py raises on a file that HDF5 cannot make sense of."""

_NOT_THE_FILE = {errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}
"""Failures to read that say nothing against the file: calling it damaged would throw good rows away."""


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """An opened segment: its keys in memory, its N rows of features on disk.

    digests uint8 (N, 32), views uint16 (N,), status uint8 (N,); ``feature_shape`` is (D,), (H, W, C), or None if
    every row is a reject; ``chunk_rows`` rows are checked and read at a time; ``recorded`` is what its maker noted.
    """

    path: Path
    digests: Digests
    views: npt.NDArray[np.uint16]
    status: npt.NDArray[np.uint8]
    feature_shape: tuple[int, ...] | None
    chunk_rows: int
    recorded: Mapping[str, str]
    bytes: int

    @property
    def name(self) -> str:
        """SHA-256 of the file, 64 hex digits."""
        return self.path.stem

    def read_into(self, out: Features, places: npt.NDArray[np.intp], rows: npt.NDArray[np.intp]) -> None:
        """Put the features of this segment's ``rows`` (n,) at ``out[places]``, a chunk at a time.

        ``out`` is C-contiguous, (M, *feature_shape). Each chunk's checksum is checked again as it is read.
        Raises DamageError if it does not hold, or if the file is no longer there.
        """
        order = np.argsort(rows, kind="stable")
        rows, places = rows[order], places[order]
        with _hdf5(self.path) as file:
            dataset = file["features"]
            starts = np.arange(0, len(self.digests), self.chunk_rows)
            cuts = np.searchsorted(rows, [*starts, len(self.digests)])
            for start, first, last in zip(starts.tolist(), cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
                if first < last:
                    _read_chunk(dataset, start, self.chunk_rows, out, places[first:last], rows[first:last])

    def check_features(self) -> None:
        """Read every chunk once, so that HDF5 checks and decompresses all of them. Raises DamageError."""
        if self.feature_shape is None:
            return
        with _hdf5(self.path) as file:
            dataset = file["features"]
            for start in range(0, len(self.digests), self.chunk_rows):
                dataset[start : start + self.chunk_rows]


def open_segment(path: Path, spec: Spec, *, read_data: bool = True) -> Segment:
    """Open the segment at ``path`` of the namespace of ``spec``.

    With ``read_data`` every byte is read and must give the file's name. Without, the structure is checked alone, and
    damage in the features shows when they are read, by HDF5's own checksums.

    Raises
    ------
    FileNotFoundError : it is not there (any more).
    DamageError : it is not what its name or the format promises.
    InputError : it needs a newer featstore, or a codec that is not installed.
    ReadOnlyError, StorageError : it may not be read, or there is no handle or memory to read it with.
    """
    size = _check_bytes(path, path.stem if read_data else None)
    with _hdf5(path) as file:
        datasets, recorded = check_structure(file, size, spec)
        status = datasets["status"][:]
        features = datasets.get("features")
        if features is None and not status.all():
            raise Malformed("there are no features, yet not every row is a reject")
        return Segment(
            path=path,
            digests=datasets["digest"][:],
            views=datasets["view"][:].astype(np.uint16, copy=False),
            status=status,
            feature_shape=None if features is None else features.shape[1:],
            chunk_rows=1 if features is None else features.chunks[0],
            recorded=recorded,
            bytes=size,
        )


def _check_bytes(path: Path, name: str | None) -> int:
    """The size in bytes of the regular file at ``path``, whose content has the SHA-256 ``name`` (None: not asked)."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not make us wait
        try:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode):
                raise _damaged(path, "it is not a regular file")
            if name is not None:
                with open(handle, "rb", buffering=0, closefd=False) as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
                if found != name:
                    raise _damaged(path, f"its content has the SHA-256 {found}, which is not its name")
        finally:
            os.close(handle)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unreadable(path, error, f"it cannot be read: {error.strerror}") from error
    return about.st_size


@contextmanager
def _hdf5(path: Path) -> Iterator[Any]:
    """The HDF5 file at ``path``, open for reading without a lock; failures within the block become DamageError."""
    try:
        with h5py.File(path, "r", locking=False, rdcc_nbytes=0) as file:
            yield file
    except (InputError, FileNotFoundError):
        raise
    except Malformed as error:
        raise _damaged(path, str(error)) from error
    except _CANNOT_READ_HDF5 as error:
        first, *_ = str(error).splitlines() or [type(error).__name__]
        raise _unreadable(path, error, f"HDF5 cannot read it: {first}") from error


def _read_chunk(
    dataset: Any, start: int, length: int, out: Features, places: npt.NDArray[np.intp], rows: npt.NDArray[np.intp]
) -> None:
    """Read the chunk of ``length`` rows from ``start`` on; put ``rows`` (ascending, all in it) at ``out[places]``."""
    stop = min(start + length, len(dataset))
    first = int(places[0])
    if np.array_equal(rows, np.arange(start, stop)) and np.array_equal(places, np.arange(first, first + len(rows))):
        dataset.read_direct(out, np.s_[start:stop], np.s_[first : first + len(rows)])
    else:
        out[places] = dataset[start:stop][rows - start]


def _unreadable(path: Path, error: Exception, problem: str) -> FeatstoreError:
    if isinstance(error, OSError) and error.errno in _NOT_THE_FILE:
        return from_os_error(error, "read a segment", path)
    return _damaged(path, problem)


def _damaged(path: Path, problem: str) -> DamageError:
    return DamageError(
        problem,
        where=path,
        todo="run the same extraction again: the damaged segment is set aside, and only its rows are computed anew",
    )
