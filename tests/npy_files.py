"""Arrays on disk as nobody saves them: headers that lie, or that are none."""

from __future__ import annotations

import io
import struct
import zipfile

NONSENSE = ("(" * 5000, "{'descr':", "'''", "  a\n b\n", "-" * 9000 + "1", "{[]: 1}", "\0" * 20,
            "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (True,)}")  # fmt: skip
"""Headers on which NumPy's reader raises errors of many kinds."""


def claiming(shape: tuple[int, ...]) -> str:
    """The header of an array of float64 of that shape."""
    return f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}"


def npy(header: str) -> bytes:
    """An array of that header and 64 bytes."""
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + bytes(64)


def npz_of(array: bytes, *names: str) -> bytes:
    """An archive that has the same array by several names."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(f"{name}.npy", array)
    return out.getvalue()
