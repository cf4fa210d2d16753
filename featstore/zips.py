"""Zip archives from anywhere: what opening one may cost, and which of its entries can be read piece by piece.

Imports nothing of ours.
"""

from __future__ import annotations

import zipfile
from typing import BinaryIO

_END64_BYTES = 76  # the two records that a 64-bit zip has between its directory and its end
_BLOCK = 2**20

_NAMES = {zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "LZMA"}


def check_directory(file: BinaryIO, most_entries: int, most_bytes: int) -> None:
    """Raise ValueError if the directory of a zip has more bytes or entries than that; to be asked before it is opened.

    ``zipfile`` reads all of the directory, and makes an object of some 600 bytes of every entry. The entries are
    counted, for the number that the end of the file tells need not be true. What is no zip is left to ``zipfile`` to
    refuse. Raises OSError, and BadZipFile.
    """
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined] # private, but no other function finds the same end
    if end is None:
        return
    size, end_at = end[5], end[9]
    if size > most_bytes:
        raise ValueError(f"its directory has {size:,} bytes, the limit is {most_bytes:,}")
    if (count := _count(file, max(0, end_at - size - _END64_BYTES), end_at, b"PK\1\2")) > most_entries:
        raise ValueError(f"it has {count:,} entries, the limit is {most_entries:,}")


def _count(file: BinaryIO, start: int, stop: int, mark: bytes) -> int:
    """How often ``mark`` is there between two places."""
    file.seek(start)
    count, seen = 0, b""
    for at in range(start, stop, _BLOCK):
        seen = seen[1 - len(mark) :] + file.read(min(_BLOCK, stop - at))
        count += seen.count(mark)
    return count


def refused_method(entry: zipfile.ZipInfo) -> str | None:
    """Why the entry must not be opened: it is neither stored nor deflated. None if it is.

    ``ZipExtFile.read(n)`` unpacks no more than it was asked for of those two alone. Of every other method it unpacks
    what n compressed bytes hold, which of bzip2 and LZMA can be thousands of times as much.
    """
    if entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return None
    name = _NAMES.get(entry.compress_type, f"method {entry.compress_type}")
    return f"packed with {name}, where only stored and deflated entries are read"
