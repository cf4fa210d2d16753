"""A table: what a head trains on. One call from a dataset and a spec to arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featstore.cached import CachedRows
from featstore.dataset import Dataset
from featstore.errors import InputError
from featstore.records import SPLITS, Digests
from featstore.spec import Spec


@dataclass(frozen=True, slots=True)
class Table:
    """Cached features of one split, row i of everything belonging to one image.

    X : float32 (N, D) — a stored map (H, W, C) is flattened to D = H·W·C.
    y : int64 (N,), index into ``classes``, -1 where unlabelled.
    ids, paths : N names; ``digests`` uint8 (N, 32).
    snapshot : the names of the store's segments that were there; with the spec they tell exactly which rows these are.
    """

    X: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    ids: tuple[str, ...]
    paths: tuple[str, ...]
    classes: tuple[str, ...]
    digests: Digests
    split: str
    spec: Spec
    snapshot: tuple[str, ...] = ()

    def __len__(self) -> int:
        """The number of images."""
        return len(self.y)


def read_tables(
    dataset: Dataset, digests: Digests, known: npt.NDArray[np.bool_], rows: CachedRows
) -> Mapping[str, Table]:
    """A table for every split that has an image, by the split's name; rejected images are left out.

    digests : uint8 (N, 32); known : bool (N,), False where the file could not be read.
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
            tables[split] = _table(dataset, digests, rows, chosen, split)
    return tables


def _table(dataset: Dataset, digests: Digests, rows: CachedRows, chosen: npt.NDArray[np.intp], split: str) -> Table:
    features = rows.read(digests[chosen])
    return Table(
        X=features.reshape(len(chosen), -1).astype(np.float32, copy=False),
        y=dataset.labels[chosen],
        ids=tuple(dataset.ids[i] for i in chosen),
        paths=tuple(dataset.paths[i] for i in chosen),
        classes=dataset.classes,
        digests=digests[chosen],
        split=split,
        spec=rows.spec,
        snapshot=rows.names,
    )
