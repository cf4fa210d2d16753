"""The small frozen records that stages hand to one another. Imports nothing of ours."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

Digests = npt.NDArray[np.uint8]
"""SHA-256 digests of image files, uint8 (N, 32)."""

DIGEST_BYTES = 32

RACY_NS = 2_000_000_000
"""Two seconds: the coarsest clock of a file system in use (FAT). A file that was changed less than this before it was
looked at can change again without a new time."""

SPLITS = ("train", "validation", "test", "unlabelled")
"""The names of the splits; a dataset stores a split as its index in this tuple."""


class Reason(IntEnum):
    """Why an image has no features. The numbers are stored in segments: never reuse one."""

    OK = 0
    EMPTY_FILE = 1
    NOT_AN_IMAGE = 2
    UNSUPPORTED_FORMAT = 3
    TRUNCATED = 4
    CORRUPT = 5
    FILE_TOO_LARGE = 6
    TOO_MANY_PIXELS = 7
    TOO_MANY_SCANS = 8
    NOT_FINITE = 9
    UNREADABLE = 255  # the file could not be read; it has no digest, so this is reported and never stored

    @property
    def code(self) -> str:
        """The name people see: ``truncated``, ``too-many-pixels``."""
        return self.name.lower().replace("_", "-")


class Rejected(Exception):
    """One image cannot become features. Not an error of the run: it becomes a reject row.

    ``reason`` is the typed code, ``detail`` the decoder's own words in one line.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        """Both, for people."""
        return f"{self.reason.code}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the file system says of a file; if all of it is unchanged, so (almost surely) is the content.

    Sizes in bytes, times in nanoseconds since the epoch.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


def as_text(digests: Digests) -> npt.NDArray[np.bytes_]:
    """Digests (N, 32) as S32 (N,), which NumPy sorts and compares byte by byte (zeros at the end included)."""
    return np.ascontiguousarray(digests).view(f"S{DIGEST_BYTES}").reshape(-1)
