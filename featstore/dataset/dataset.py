"""The dataset itself: what later stages get, and the split that an image's digest decides."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from featstore.dataset.sources import Source
from featstore.errors import InputError
from featstore.records import SPLITS, Digests

BY_DIGEST = -1
"""A split that is decided by the image's digest."""

UNLABELLED = SPLITS.index("unlabelled")


@dataclass(frozen=True, slots=True)
class DatasetOptions:
    """How to read a dataset.

    ``seed`` and ``fractions`` (train, validation, test; their sum is 1) decide the split where the files do not.
    ``label_pattern`` is a regular expression searched in each file's name, without its folders; its group ``label``, or
    else its first group, is the label. If given, it decides the labels whatever folders there are.
    ``outside`` lets a manifest name images outside of its own folder, by their paths or over links: whoever wrote it
    then decides what is read.
    """

    seed: int = 0
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    label_pattern: str | None = None
    outside: bool = False

    def __post_init__(self) -> None:
        """Check everything; raises InputError with all problems at once."""
        problems = []
        if len(self.fractions) != 3 or not all(0 <= part <= 1 for part in self.fractions):
            problems.append(f"fractions={self.fractions!r} (three numbers from 0 to 1)")
        elif not math.isclose(sum(self.fractions), 1, abs_tol=1e-6):
            problems.append(f"fractions={self.fractions!r} (their sum is {sum(self.fractions):g}, not 1)")
        if self.label_pattern is not None:
            try:
                if not re.compile(self.label_pattern).groups:
                    problems.append(f"label_pattern={self.label_pattern!r} (has no group for the label)")
            except re.error as error:
                problems.append(f"label_pattern={self.label_pattern!r} ({error})")
        if problems:
            raise InputError(
                "these options of a dataset cannot be used",
                where="dataset options",
                received="; ".join(problems),
                todo=r"a pattern looks like '(?P<label>[a-z]+)_\d+'",
            )


@dataclass(frozen=True, eq=False)
class Dataset:
    """An ordered list of N images.

    ``name`` is for people. ``paths`` are relative to ``source`` with ``/`` between folders, in natural order (cat.2
    before cat.10); bytes that are not UTF-8 are kept as surrogates. ``ids`` are the paths, or the number of a numbered
    file without label. ``labels`` int64 (N,) index into the sorted ``classes``, -1 if unlabelled. ``splits`` int8 (N,)
    index into ``records.SPLITS``, or are :data:`BY_DIGEST`. An image is in the split "unlabelled" if, and only if, it
    has no label. ``layout`` says how labels and splits were found, ``notes`` what a person should be told, and
    ``seconds`` how long it took to list them. ``unseen`` counts places that could not be looked at (links that lead
    nowhere, folders that cannot be read): images may be behind them.
    """

    name: str
    source: Source
    paths: tuple[str, ...]
    ids: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    splits: npt.NDArray[np.int8]
    layout: str
    seed: int = 0
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    unseen: int = 0

    def __post_init__(self) -> None:
        """Make the arrays read-only: a dataset is shared between stages."""
        self.labels.setflags(write=False)
        self.splits.setflags(write=False)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.paths)

    def split_of(self, digests: Digests) -> npt.NDArray[np.int8]:
        """The split of every image, int8 (N,): index into ``records.SPLITS``, given the digests, uint8 (N, 32).

        Where it is :data:`BY_DIGEST`, the first 8 bytes of SHA-256(seed, digest), as a fraction of 2**64, are compared
        with the cumulated fractions. So copies of one image share a split, and adding images moves none.
        """
        splits = self.splits.copy()
        open_ones = np.flatnonzero(splits == BY_DIGEST)
        splits[open_ones] = split_by_digest(digests[open_ones], self.seed, self.fractions)
        return splits

    def split_at(self, index: int, digest: bytes) -> str:
        """The split of one image, given its digest (32 bytes)."""
        code = int(self.splits[index])
        if code == BY_DIGEST:
            [code] = split_by_digest(np.frombuffer(digest, np.uint8)[None], self.seed, self.fractions).tolist()
        return SPLITS[code]

    def select(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> Dataset:
        """The images at ``indices``, in that order; classes and notes stay."""
        chosen = np.asarray(indices, dtype=np.int64)
        paths = tuple(self.paths[i] for i in chosen)
        return replace(
            self,
            source=self.source.only(paths),
            paths=paths,
            ids=tuple(self.ids[i] for i in chosen),
            labels=self.labels[chosen],
            splits=self.splits[chosen],
        )

    def unlabelled(self) -> Dataset:
        """The same images with no more than reading them takes: without labels, classes and notes."""
        return replace(self, ids=self.paths, labels=np.full(len(self), -1), classes=(), notes=())


def split_by_digest(digests: Digests, seed: int, fractions: Sequence[float]) -> npt.NDArray[np.int8]:
    """0 (train), 1 (validation) or 2 (test) for each digest: uint8 (N, 32) → int8 (N,). Pure in its arguments."""
    salt = f"{seed}:".encode()
    heads = b"".join(hashlib.sha256(salt + digest.tobytes()).digest()[:8] for digest in digests)
    fraction = (np.frombuffer(heads, dtype=">u8") >> 11) / 2.0**53  # 53 bits: exact in float64, always below 1
    bounds = (fractions[0], 1 - fractions[2])
    return np.searchsorted(bounds, fraction, side="right").astype(np.int8)
