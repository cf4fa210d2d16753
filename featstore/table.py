"""A table: what a head trains on. One call from a dataset and a spec to arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.cached import CachedRows
from featstore.dataset import Dataset
from featstore.errors import InputError
from featstore.records import SPLITS, Digests
from featstore.spec import Spec


@dataclass(frozen=True, slots=True, eq=False)
class StoredPart:
    """Rows of one spec that stay in the store: which ones, by digest uint8 (N, 32) and view uint16 (N,)."""

    rows: CachedRows
    digests: Digests
    views: npt.NDArray[np.uint16]

    @classmethod
    def images(cls, rows: CachedRows, digests: Digests) -> StoredPart:
        """The images themselves."""
        return cls(rows, digests, np.zeros(len(digests), np.uint16))

    def select(self, chosen: slice | npt.NDArray[Any]) -> StoredPart:
        """Only the chosen rows: a slice, indices or a mask."""
        return StoredPart(self.rows, self.digests[chosen], self.views[chosen])

    def above(self, other: StoredPart) -> StoredPart:
        """These rows and then those of ``other``, of the same spec."""
        both = np.concatenate([self.digests, other.digests]), np.concatenate([self.views, other.views])
        return StoredPart(self.rows, *both)

    def read(self) -> npt.NDArray[np.float32]:
        """The features, float32 (N, D); maps are flattened."""
        kinds = np.unique(self.views).tolist()
        if len(kinds) <= 1:
            return _flat(self.rows.read(self.digests, *kinds))
        out = np.empty((len(self.digests), width_of(self.rows)), np.float32)
        for view in kinds:
            chosen = self.views == view
            out[chosen] = _flat(self.rows.read(self.digests[chosen], view))
        return out

    def places(self) -> npt.NDArray[np.int64]:
        """Numbers int64 (N,) that rise as the rows lie in the store."""
        out = np.empty(len(self.digests), np.int64)
        for view in np.unique(self.views).tolist():
            chosen = self.views == view
            out[chosen] = self.rows.places(self.digests[chosen], view)
        return out


class StoredRows:
    """Features that stay in the store, float32 (N, D), read when they are asked for: ``rows[10:20]``, ``rows[[3, 5]]``.

    For tables larger than memory. It has an array's ``shape``, ``dtype`` and length, and gives arrays when indexed.
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(self, parts: Sequence[StoredPart]) -> None:
        self._parts = tuple(parts)
        self.widths = tuple(width_of(part.rows) for part in self._parts)
        self.shape = (len(self._parts[0].digests), sum(self.widths))

    def __len__(self) -> int:
        """N."""
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes that it would take in memory."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    @cached_property
    def order(self) -> npt.NDArray[np.intp]:
        """The rows as they lie in the store, intp (N,), by their place in the first backbone's."""
        return np.argsort(self._parts[0].places(), kind="stable")

    def __getitem__(self, chosen: slice | npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """The chosen rows, float32 (n, D): a slice, indices or a mask."""
        picked = [part.select(chosen).read() for part in self._parts]
        return picked[0] if len(picked) == 1 else np.concatenate(picked, axis=1)

    def select(self, chosen: npt.NDArray[Any]) -> StoredRows:
        """Only the chosen rows, indices or a mask, still in the store."""
        return StoredRows([part.select(chosen) for part in self._parts])

    def above(self, other: StoredRows) -> StoredRows:
        """These rows and then those of ``other``, which come from the same store and specs."""
        return StoredRows([mine.above(theirs) for mine, theirs in zip(self._parts, other._parts, strict=True)])

    def beside(self, other: StoredRows) -> StoredRows:
        """The columns of both, row by row."""
        return StoredRows(self._parts + other._parts)


@dataclass(frozen=True, slots=True)
class Table:
    """Cached features of one split, row i of everything belonging to one image.

    X : float32 (N, D) — a stored map (H, W, C) is flattened to D = H·W·C; a StoredRows if it is larger than memory.
    y : int64 (N,), index into ``classes``, -1 where unlabelled.
    ids, paths : N names; ``digests`` uint8 (N, 32).
    views : uint16 (N,), 0 where the row is the image itself, k for its k-th augmented view (training rows alone);
        ``augmentation`` is the policy of these, None if there are none.
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
    views: npt.NDArray[np.uint16]
    augmentation: str | None = None
    snapshot: tuple[str, ...] = ()

    def __len__(self) -> int:
        """The number of rows: of images, if there are no augmented views."""
        return len(self.y)

    @property
    def originals(self) -> Table:
        """Only the images themselves."""
        return self.select(self.views == 0) if self.views.any() else self

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
            views=self.views[rows],
        )


def read_tables(
    dataset: Dataset,
    digests: Digests,
    known: npt.NDArray[np.bool_],
    rows: CachedRows,
    *,
    views: int = 1,
    stored: bool = False,
) -> Mapping[str, Table]:
    """A table for every split that has an image, by the split's name; rejected images and views are left out.

    digests : uint8 (N, 32); known : bool (N,), False where the file could not be read.
    views : of every training image, itself among them; ``rows`` must know their policy if it is more than one.
    stored : leave the features in the store (:class:`StoredRows`), for tables larger than memory.
    Raises InputError if an image has no row in the store yet.
    """
    splits = dataset.split_of(digests)
    images = _usable(dataset, digests, known, rows, 0, known)
    tables = {}
    for code, split in enumerate(SPLITS):
        inside = splits == code
        others = range(1, views if split == "train" else 1)
        usable = [images & inside, *(_usable(dataset, digests, known, rows, view, inside) & inside for view in others)]
        chosen = np.concatenate([np.flatnonzero(one) for one in usable])
        if len(chosen):
            of_view = np.repeat(np.arange(len(usable), dtype=np.uint16), [int(one.sum()) for one in usable])
            features = StoredRows([StoredPart(rows, digests[chosen], of_view)])
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
                views=of_view,
                augmentation=rows.augmentation if len(usable) > 1 else None,
                snapshot=rows.names,
            )
    return tables


def _usable(
    dataset: Dataset, digests: Digests, known: npt.NDArray[np.bool_], rows: CachedRows, view: int,
    asked: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:  # fmt: skip
    """Which images have features of this view, bool (N,); raises InputError if one that is asked for has no row."""
    status = np.where(known, rows.lookup(digests, view), 1)
    if (missing := asked & (status == -1)).any():
        first = dataset.paths[int(np.argmax(missing))]
        what = f"view {view} of {int(missing.sum())}" if view else f"{int(missing.sum())}"
        raise InputError(
            f"{what} of {len(dataset)} images have no features in the store yet, {first!r} the first of them",
            where=dataset.source.location,
            expected=f"rows of {rows.spec.backbone}, {rows.spec.pooling}, {rows.spec.precision}",
            todo=f"run: featstore extract {dataset.source.location}, with the same options",
        )
    return np.asarray(status == 0)


def join_tables(tables: Sequence[Table]) -> Table:
    """One table with the columns of all of them, for the images that each of them has.

    Raises InputError if they are of different splits or classes, or have no image in common.
    """
    first, *others = tables
    if any((other.split, other.classes) != (first.split, first.classes) for other in others):
        raise InputError("these tables are not of the same images", expected=f"{first.split}, {first.classes}")
    keys = [
        {key: i for i, key in enumerate(zip(table.ids, table.paths, table.views.tolist(), strict=True))}
        for table in tables
    ]
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
        views=np.concatenate([first.views, second.views]),
        split=f"{first.split}+{second.split}",
    )


def width_of(rows: CachedRows) -> int:
    """The number of columns D of a table of these rows."""
    shape = rows.feature_shape
    return int(np.prod(shape)) if shape else 0


def _flat(features: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    return features.reshape(len(features), -1).astype(np.float32, copy=False)
