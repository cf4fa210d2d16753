"""What a segment holds, and what can be wrong with one: the records that the parts of the store hand to one another."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError
from featstore.records import DIGEST_BYTES, Digests

FORMAT_VERSION = 2
"""The store format that this code reads and writes; docs/FORMAT.md describes it."""

ROWS_PER_COMMIT = 192
"""With the two batches of 32 that may be under way beside them, a kill costs 255 rows at most."""

SECONDS_PER_COMMIT = 5.0
BYTES_PER_COMMIT = 2**26
"""Features of a batch: bounds the memory of a writer where a row is large (maps of early layers take megabytes)."""

KEY_BYTES = DIGEST_BYTES + 3
"""Of a row beside its features: digest, view and status."""

MAX_ROW_BYTES = 2**28
MAX_SEGMENT_BYTES = 2**30
MAX_ATTRIBUTE_BYTES = 2**16
"""What readers take: of the features of a row, of a file, and of an attribute. Writers stay far below, but in rows."""

Features = npt.NDArray[np.floating]
"""float32 or float16, (N, D) for pooled features, (N, H, W, C) for maps."""

FileStamp = tuple[int, int, int, int]
"""Size, mtime_ns, ctime_ns and inode of a file."""


def stamp_of(about: os.stat_result) -> FileStamp:
    """What tells that a file is as it was."""
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino


def stamp_at(path: Path) -> FileStamp | None:
    """The stamp of what is at ``path``, of a link itself; None if the disk does not tell. Raises FileNotFoundError."""
    try:
        return stamp_of(os.lstat(path))
    except FileNotFoundError:
        raise
    except OSError:  # whoever opens it is told the same, and what it means
        return None


@dataclass(frozen=True, slots=True)
class Rows:
    """N rows in the order in which they are stored.

    digests : uint8 (N, 32).
    views : uint16 (N,); 0 is the image itself, k its k-th augmented version.
    status : uint8 (N,); 0 where there are features, else the number of a :class:`featstore.records.Reason`.
    features : (N, D) or (N, H, W, C), zeros in rejected rows; None only if every row is a reject.

    Raises InputError if the shapes and types do not fit together.
    """

    digests: Digests
    views: npt.NDArray[np.uint16]
    status: npt.NDArray[np.uint8]
    features: Features | None

    def __post_init__(self) -> None:
        count = len(self.digests)
        problems = [
            f"{name} is {array.dtype} {array.shape}, not {dtype} {shape}"
            for name, array, dtype, shape in (
                ("digests", self.digests, np.uint8, (count, DIGEST_BYTES)),
                ("views", self.views, np.uint16, (count,)),
                ("status", self.status, np.uint8, (count,)),
            )
            if array.dtype != dtype or array.shape != shape
        ]
        if count == 0:
            problems.append("there is no row")
        if self.features is None:
            if not self.status.all():
                problems.append("there are no features, yet not every row is a reject")
        elif self.features.ndim not in (2, 4) or len(self.features) != count or self.features.size == 0:
            problems.append(f"features is {self.features.shape}, not ({count}, D) or ({count}, H, W, C)")
        if problems:
            raise InputError("these arrays do not make rows", where="rows of a segment", received="; ".join(problems))

    def __len__(self) -> int:
        return len(self.digests)


@dataclass(frozen=True, slots=True)
class Damage:
    """Something in a store that is not what its name or its format promises. None of its rows is ever served.

    stamp : of what was there when it was looked at; None if that could not be told.
    """

    path: Path
    problem: str
    stamp: FileStamp | None = None

    @property
    def name(self) -> str:
        """The segment's name: 64 hex digits if it has a segment's name at all."""
        return self.path.stem
