"""A table: what a head trains on. One call from a dataset and a spec to arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.cached import CachedRows
from featstore.dataset import Dataset
from featstore.errors import InputError
from featstore.records import SPLITS, Digests
from featstore.spec import Spec


class StoredRows:
    """Features that stay in the store, float32 (N, D), read when they are asked for: ``rows[10:20]``, ``rows[[3, 5]]``.

    For tables larger than memory. It has an array's ``shape``, ``dtype`` and length, and gives arrays when indexed.
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(self, parts: Sequence[tuple[CachedRows, Digests]]) -> None:
        self._parts = tuple(parts)
        self.widths = tuple(width_of(rows) for rows, _ in self._parts)
        self.shape = (len(self._parts[0][1]), sum(self.widths))

    def __len__(self) -> int:
        """N."""
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes that it would take in memory."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def __getitem__(self, chosen: slice | npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """The chosen rows, float32 (n, D): a slice, indices or a mask."""
        picked = [_read(rows, digests[chosen]) for rows, digests in self._parts]
        return picked[0] if len(picked) == 1 else np.concatenate(picked, axis=1)

    def select(self, chosen: npt.NDArray[Any]) -> StoredRows:
        """Only the chosen rows, indices or a mask, still in the store."""
        return StoredRows([(rows, digests[chosen]) for rows, digests in self._parts])

    def above(self, other: StoredRows) -> StoredRows:
        """These rows and then those of ``other``, which come from the same store and specs."""
        pairs = zip(self._parts, other._parts, strict=True)
        return StoredRows([(rows, np.concatenate([mine, theirs])) for (rows, mine), (_, theirs) in pairs])

    def beside(self, other: StoredRows) -> StoredRows:
        """The columns of both, row by row."""
        return StoredRows(self._parts + other._parts)


@dataclass(frozen=True, slots=True)
class Table:
    """Cached features of one split, row i of everything belonging to one image.

    X : float32 (N, D) — a stored map (H, W, C) is flattened to D = H·W·C; a StoredRows if it is larger than memory.
    y : int64 (N,), index into ``classes``, -1 where unlabelled.
    ids, paths : N names; ``digests`` uint8 (N, 32).
    specs, widths : the blocks of columns, one a backbone: what made each, and how many columns it has.
    snapshot : the names of the store's segments that were there; with the specs they tell exactly which rows these are.
    """

    X: Any
    y: npt.NDArray[np.int64]
    ids: tuple[str, ...]
    paths: tuple[str, ...]
    classes: tuple[str, ...]
    digests: Digests
    split: str
    specs: tuple[Spec, ...]
    widths: tuple[int, ...]
    snapshot: tuple[str, ...] = ()

    def __len__(self) -> int:
        """The number of images."""
        return len(self.y)

    @property
    def spec(self) -> Spec:
        """The spec of a table that has only one; raises ValueError if it joins several."""
        [spec] = self.specs
        return spec

    def select(self, chosen: npt.NDArray[Any]) -> Table:
        """Only the chosen rows: indices or a mask (N,)."""
        rows = np.arange(len(self))[chosen]
        return replace(
            self,
            X=self.X.select(rows) if isinstance(self.X, StoredRows) else self.X[rows],
            y=self.y[rows],
            ids=tuple(self.ids[i] for i in rows),
            paths=tuple(self.paths[i] for i in rows),
            digests=self.digests[rows],
        )


def read_tables(
    dataset: Dataset,
    digests: Digests,
    known: npt.NDArray[np.bool_],
    rows: CachedRows,
    *,
    stored: bool = False,
) -> Mapping[str, Table]:
    """A table for every split that has an image, by the split's name; rejected images are left out.

    digests : uint8 (N, 32); known : bool (N,), False where the file could not be read.
    stored : leave the features in the store (:class:`StoredRows`), for tables larger than memory.
    Raises InputError if an image has no row in the store yet.
    """
    status = np.where(known, rows.lookup(digests), 1)
    if missing := int((status == -1).sum()):
        first = dataset.paths[int(np.argmax(status == -1))]
        raise InputError(
            f"{missing} of {len(dataset)} images have no features in the store yet, {first!r} the first of them",
            where=dataset.source.location,
            expected=f"rows of {rows.spec.backbone}, {rows.spec.pooling}, {rows.spec.precision}",
            todo=f"run: featstore extract {dataset.source.location}, with the same options",
        )
    splits = dataset.split_of(digests)
    usable = status == 0
    tables = {}
    for code, split in enumerate(SPLITS):
        chosen = np.flatnonzero(usable & (splits == code))
        if len(chosen):
            features = StoredRows([(rows, digests[chosen])])
            tables[split] = Table(
                X=features if stored else features[:],
                y=dataset.labels[chosen],
                ids=tuple(dataset.ids[i] for i in chosen),
                paths=tuple(dataset.paths[i] for i in chosen),
                classes=dataset.classes,
                digests=digests[chosen],
                split=split,
                specs=(rows.spec,),
                widths=features.widths,
                snapshot=rows.names,
            )
    return tables


def join_tables(tables: Sequence[Table]) -> Table:
    """One table with the columns of all of them, for the images that each of them has.

    Raises InputError if they are of different splits or classes, or have no image in common.
    """
    first, *others = tables
    if any((other.split, other.classes) != (first.split, first.classes) for other in others):
        raise InputError("these tables are not of the same images", expected=f"{first.split}, {first.classes}")
    keys = [{key: i for i, key in enumerate(zip(table.ids, table.paths, strict=True))} for table in tables]
    common = [key for key in keys[0] if all(key in other for other in keys[1:])]
    if not common:
        raise InputError("these tables have no image in common", where=f"the {first.split} split")
    parts = [
        table.select(np.array([places[key] for key in common])) for table, places in zip(tables, keys, strict=True)
    ]
    if stored := [part.X for part in parts if isinstance(part.X, StoredRows)]:
        if len(stored) < len(parts):
            raise InputError("a table in memory and one in the store cannot be joined")
        X: Any = stored[0]
        for other in stored[1:]:
            X = X.beside(other)
    else:
        X = np.concatenate([part.X for part in parts], axis=1)
    return replace(
        parts[0],
        X=X,
        specs=tuple(spec for part in parts for spec in part.specs),
        widths=tuple(width for part in parts for width in part.widths),
        snapshot=tuple(dict.fromkeys(name for part in parts for name in part.snapshot)),
    )


def stack_tables(first: Table, second: Table) -> Table:
    """The rows of both, of the same specs and classes, as one table whose split is "train+validation" or the like."""
    both_stored = isinstance(first.X, StoredRows) and isinstance(second.X, StoredRows)
    return replace(
        first,
        X=first.X.above(second.X) if both_stored else np.concatenate([first.X[:], second.X[:]]),
        y=np.concatenate([first.y, second.y]),
        ids=first.ids + second.ids,
        paths=first.paths + second.paths,
        digests=np.concatenate([first.digests, second.digests]),
        split=f"{first.split}+{second.split}",
    )


def width_of(rows: CachedRows) -> int:
    """The number of columns D of a table of these rows."""
    shape = rows.feature_shape
    return int(np.prod(shape)) if shape else 0


def _read(rows: CachedRows, digests: Digests) -> npt.NDArray[np.float32]:
    features = rows.read(digests)
    return features.reshape(len(digests), -1).astype(np.float32, copy=False)
