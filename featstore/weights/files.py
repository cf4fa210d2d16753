"""Small readers of files that may come from anywhere, and the sweeping of those that nobody finished."""

from __future__ import annotations

import hashlib
import re
import shutil
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from featstore.weights.base import Tensors
from featstore.zips import refused_method

MAX_ENTRIES = 10_000
MAX_UNPACKED_BYTES = 8 << 30
MAX_CONFIG_BYTES = 16 << 20

LEFTOVER_SECONDS = 24 * 3600.0
"""The age from which a temporary file is nobody's: its run was killed."""


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """The hash (hex) of a file's bytes; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def read_npz(path: Path) -> Tensors:
    """The arrays of an ``.npz`` file as float32, in the order of the numbers in their names.

    Raises OSError, or ValueError for anything that is not a plain file of numbers in a clear order.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            check_archive(archive)
        with np.load(path, allow_pickle=False) as arrays:
            return [np.asarray(arrays[name], np.float32) for name in _in_order(arrays.files)]
    except (OSError, ValueError):
        raise
    except Exception as error:  # zipfile and NumPy's reader of headers raise nearly anything on nonsense
        raise ValueError(f"not a file of arrays: {error}") from error


def _in_order(names: Iterable[str]) -> list[str]:
    """``arr_2`` before ``arr_10``; raises ValueError for names that differ in anything but their numbers."""
    split = {name: re.split(r"(\d+)", name) for name in names}
    order = {name: [int(number) for number in parts[1::2]] for name, parts in split.items()}
    texts = {tuple(parts[::2]) for parts in split.values()}
    if len(texts) > 1 or len({tuple(numbers) for numbers in order.values()}) < len(order):
        some = sorted(order)
        raise ValueError(f"arrays whose order is not clear: {', '.join(some[:4])}{', …' if len(some) > 4 else ''}")
    return sorted(order, key=order.__getitem__)


def sweep(folder: Path, pattern: str) -> None:
    """Remove the files and folders of that name that killed runs left behind a day ago or longer, if that is possible.

    ``pattern`` is a glob for temporary names: nothing else may match it.
    """
    for path in folder.glob(pattern):
        try:
            if time.time() - path.stat().st_mtime < LEFTOVER_SECONDS:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        except OSError:  # another process was first, or may and we may not
            continue


def check_archive(archive: zipfile.ZipFile) -> None:
    """Raise ValueError for an archive with too many entries, too much in it, or entries that must not be opened.

    These have names that point outside, or are packed in a way that takes any amount of memory.
    """
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
        if refused := refused_method(entry):
            raise ValueError(f"the archive has an entry {refused}: {entry.filename!r}")
