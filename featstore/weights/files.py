"""Small readers of files that may come from anywhere."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np

from featstore.weights.base import Tensors

MAX_ENTRIES = 10_000
MAX_UNPACKED_BYTES = 8 << 30
MAX_CONFIG_BYTES = 16 << 20


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """The hash (hex) of a file's bytes; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def read_npz(path: Path) -> Tensors:
    """The arrays of an ``.npz`` file as float32, ordered by name.

    Raises OSError, or ValueError for anything that is not a plain file of numbers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            check_archive(archive)
        with np.load(path, allow_pickle=False) as arrays:
            return [np.asarray(arrays[name], np.float32) for name in sorted(arrays.files)]
    except (zipfile.BadZipFile, EOFError, MemoryError, TypeError, KeyError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"not a file of arrays: {error}") from error


def check_archive(archive: zipfile.ZipFile) -> None:
    """Raise ValueError for an archive with too many entries, too much in it, or names that point outside."""
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise ValueError(f"the archive has {len(entries)} entries (limit {MAX_ENTRIES})")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > MAX_UNPACKED_BYTES:
        raise ValueError(f"the archive unpacks to {unpacked} bytes (limit {MAX_UNPACKED_BYTES})")
    for entry in entries:
        parts = entry.filename.replace("\\", "/").split("/")
        if entry.filename.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
            raise ValueError(f"the archive has an entry that points outside: {entry.filename!r}")
