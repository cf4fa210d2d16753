"""What is exported: tables as the formats see them, and the few words that all formats share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from featstore.records import Digests
from featstore.spec import Spec

EXPORT_VERSION = 2
"""Rises when names or shapes in an exported file change."""

_READ_BYTES = 2**24


class TableLike(Protocol):
    """What is exported of one split: y int64 (N,) with -1 for unlabelled, N ids, paths and digests.

    X : float32 (N, D), an array or what gives arrays when indexed; if its rows lie in another order on the disk,
        ``X.order`` intp (N,) is that order.
    """

    @property
    def X(self) -> Any: ...  # noqa: D102
    @property
    def y(self) -> npt.NDArray[np.int64]: ...  # noqa: D102
    @property
    def ids(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def paths(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def digests(self) -> Digests: ...  # noqa: D102
    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def spec(self) -> Spec: ...  # noqa: D102


Tables = Mapping[str, TableLike]


def rows_at_once(table: TableLike) -> int:
    """How many rows are read at a time, so that memory is bounded whatever their number."""
    width: int = table.X.shape[1]
    return max(1, _READ_BYTES // max(1, 4 * width))


def printable_names(names: Iterable[str]) -> list[str]:
    r"""File names as valid Unicode: bytes that are no UTF-8 become ``\udcXX``."""
    return [name.encode("utf-8", "backslashreplace").decode() for name in names]
