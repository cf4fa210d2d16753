"""Zip archives from anywhere: which of their entries can be read piece by piece. Imports nothing of ours."""

from __future__ import annotations

import zipfile

_NAMES = {zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "LZMA"}


def refused_method(entry: zipfile.ZipInfo) -> str | None:
    """Why the entry must not be opened: it is neither stored nor deflated. None if it is.

    ``ZipExtFile.read(n)`` unpacks no more than it was asked for of those two alone. Of every other method it unpacks
    what n compressed bytes hold, which of bzip2 and LZMA can be thousands of times as much.
    """
    if entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return None
    name = _NAMES.get(entry.compress_type, f"method {entry.compress_type}")
    return f"packed with {name}, where only stored and deflated entries are read"
