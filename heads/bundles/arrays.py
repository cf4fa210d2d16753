"""The arrays of a bundle's files: what they must be is known from the card, and is looked for before they are read."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from featstore.records import DIGEST_BYTES
from featstore.zips import check_directory
from heads.kinds.head import Arrays

Layout = Mapping[str, tuple[str | int, ...]]
"""Name → dtype, then its sides: a number, or a letter that stands for the same number wherever it stands."""

FITTED: Layout = {"digests": ("uint8", "N", DIGEST_BYTES), "labels": ("int32", "N")}
JUDGED: Layout = {
    "digests": ("uint8", "M", DIGEST_BYTES),
    "truth": ("int32", "M"),
    "said": ("int32", "M"),
    "confidence": ("float32", "M"),
    "of_truth": ("float32", "M"),
}
_SCALED: Layout = {"mean": ("float64", "D"), "scale": ("float64", "D")}
_HEADS: Mapping[str, Layout] = {
    "linear": {"weights": ("float64", "K", "D"), "bias": ("float64", "K")},
    "kernel": {
        "rows": ("float32", "S", "D"),
        **_SCALED,
        "coefficients": ("float64", "K", "S"),
        "bias": ("float64", "K"),
    },
    "neighbours": {
        "rows": ("float32", "N", "D"),
        "labels": ("int64", "N"),
        **_SCALED,
        "row_weights": ("float64", "N"),
    },
}
MOST_ARRAYS = 200
"""A hundred layers of a dense head."""

_MOST_DIRECTORY_BYTES = 2**16


def head_layout(format: str, arrays: int) -> Layout:  # noqa: A002 - the field of the card
    """What a head of D features and K classes has in its file, given how many arrays are in it."""
    if format != "dense":
        return _HEADS[format]
    last = max(1, arrays // 2)
    sides = ["D", *(f"H{i}" for i in range(1, last)), "K"]
    weights: Layout = {f"weights_{i}": ("float32", sides[i], sides[i + 1]) for i in range(last)}
    return {**weights, **{f"biases_{i}": ("float32", sides[i + 1]) for i in range(last)}}


class ArrayFile:
    """An ``.npz`` that anybody may have made, open for reading. Raises ValueError, or on nonsense nearly anything."""

    def __init__(self, file: BinaryIO) -> None:
        check_directory(file, MOST_ARRAYS, _MOST_DIRECTORY_BYTES)
        self._archive = zipfile.ZipFile(file)
        entries = self._archive.infolist()
        size = file.seek(0, 2)
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("a compressed entry")
        if sum(entry.file_size for entry in entries) > size:  # such as those that share their bytes
            raise ValueError("entries that are larger than the file")
        self._entries = {entry.filename: entry for entry in entries}
        if len(self._entries) < len(entries):
            raise ValueError("two arrays of one name")

    def __len__(self) -> int:
        """How many arrays there are."""
        return len(self._entries)

    def read(self, layout: Layout, sides: Mapping[str, int]) -> Arrays:
        """Exactly the arrays of ``layout``, given some of its ``sides``. None is read before the headers of all fit."""
        if self._entries.keys() != {f"{name}.npy" for name in layout}:
            raise ValueError(f"the arrays {', '.join(self._entries)}, expected {', '.join(layout)}")
        known = dict(sides)
        for name, (dtype, *letters) in layout.items():
            self._check_header(name, np.dtype(str(dtype)), letters, known)
        return {name: self._read(name) for name in layout}

    def _check_header(self, name: str, dtype: np.dtype, letters: list[str | int], known: dict[str, int]) -> None:
        entry = self._entries[f"{name}.npy"]
        with self._archive.open(entry) as file:
            if npy.read_magic(file) != (1, 0):
                raise ValueError(f"the header of {name} is of another version than numpy's first")
            shape, _, found = npy.read_array_header_1_0(file)
            data = entry.file_size - file.tell()
        expected = f"{dtype} ({', '.join(map(str, letters))})"
        if found != dtype or len(shape) != len(letters):
            raise ValueError(f"{name} is {found} {shape}, expected {expected}")
        for side, letter in zip(shape, letters, strict=True):
            if side != (letter if isinstance(letter, int) else known.setdefault(letter, side)):
                raise ValueError(f"{name} is {found} {shape}, expected {expected} with {known}")
        if math.prod(shape) * dtype.itemsize != data:
            raise ValueError(f"{name} is {found} {shape}, but has {data} bytes")

    def _read(self, name: str) -> np.ndarray:
        with self._archive.open(self._entries[f"{name}.npy"]) as file:
            array: np.ndarray = npy.read_array(file, allow_pickle=False)
            return array
