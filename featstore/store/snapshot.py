"""A snapshot: the rows of a namespace at one moment, found by digest and read in the order asked for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featstore.errors import DamageError, InputError
from featstore.records import DIGEST_BYTES, Digests, Reason, as_text
from featstore.spec import Spec
from featstore.store.rows import Damage, Features

if TYPE_CHECKING:
    from featstore.store.segment import Segment

_RENEWALS = 5
"""How often rows whose segment has gone are looked for in a new snapshot."""

_WORTH_THREADS = 2**24
"""Bytes of features from which on segments are read side by side."""


_AT_ONCE = 2**20
"""Rows that are looked up at a time: bounds the memory of that."""


@dataclass(frozen=True, slots=True)
class _Index:
    """Distinct digests in ascending order, S32 (K,), and the row of the snapshot that serves each, (K,).

    ``heads`` uint64 (K,) are their first eight bytes, which are found four times as fast; None if two digests share
    theirs.
    """

    keys: npt.NDArray[np.bytes_]
    rows: npt.NDArray[np.intp]
    heads: npt.NDArray[np.uint64] | None

    @classmethod
    def of(cls, digests: Digests, rows: npt.NDArray[np.intp]) -> _Index:
        """Of digests (N, 32) and their rows (N,); of equal ones the first counts."""
        heads = _heads(digests)
        order = np.argsort(heads, kind="stable")
        keys, heads = as_text(digests)[order], heads[order]
        distinct = _changes(keys)
        if (distinct & ~_changes(heads)).any():
            order = np.argsort(as_text(digests), kind="stable")
            keys = as_text(digests)[order]
            kept = _changes(keys)
            return cls(keys[kept], rows[order[kept]], None)
        if not distinct.all():  # a copy of all keys less where no row is there twice, as nearly always
            keys, heads, order = keys[distinct], heads[distinct], order[distinct]
        return cls(keys, rows[order], heads)

    def find(self, digests: Digests) -> npt.NDArray[np.intp]:
        """The row that serves each digest (N, 32), -1 if there is none: (N,)."""
        found = np.full(len(digests), -1, np.intp)
        if not len(self.keys):
            return found
        heads = _heads(digests)
        order = np.argsort(heads)  # neighbours are found side by side: keys of millions of rows fit no cache
        for start in range(0, len(order), _AT_ONCE):
            part = order[start : start + _AT_ONCE]
            wanted = as_text(digests[part])
            at = np.searchsorted(*((self.keys, wanted) if self.heads is None else (self.heads, heads[part])))
            at = np.minimum(at, len(self.keys) - 1)
            found[part] = np.where(self.keys[at] == wanted, self.rows[at], -1)
        return found


def _heads(digests: Digests) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(digests[:, :8]).view(">u8")[:, 0].astype(np.uint64)


def _changes(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether each value differs from the one before it; the first does."""
    return np.concatenate([np.ones(min(1, len(values)), bool), values[1:] != values[:-1]])


class Snapshot:
    """An unchanging list of segments and what is in them. Safe to use from several threads.

    If several segments hold the same (digest, view), features outrank a reject; among equals the segment with the
    smallest name wins, and in it the first row. So the answer depends on the set of segments alone, not on who wrote
    them when. ``damaged`` lists the segments that are not what their name promises: none of their rows is served.
    ``renew`` takes a new snapshot, for rows whose segment was compacted since: they lie, bit for bit, in another.
    """

    def __init__(
        self,
        spec: Spec,
        segments: Sequence[Segment],
        damaged: Sequence[Damage],
        renew: Callable[[], Snapshot] | None = None,
    ) -> None:
        self.spec = spec
        self._renew = renew
        usable, misfits = _agreeing(sorted(segments, key=lambda s: s.name))
        self._segments = usable
        self.damaged = (*damaged, *misfits)
        self._indexes: dict[int, _Index] = {}
        self._lock = Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """Its segments in ascending order, 64 hex digits each: with the fingerprint they name exactly these rows."""
        return tuple(s.name for s in self._segments)

    @property
    def feature_shape(self) -> tuple[int, ...] | None:
        """(D,), or (H, W, C) for maps; None if no row has features."""
        return next((s.feature_shape for s in self._segments if s.feature_shape is not None), None)

    @property
    def rows(self) -> int:
        """Stored rows, rejects and duplicates included."""
        return sum(len(s.digests) for s in self._segments)

    @property
    def rejects(self) -> int:
        """Stored rows that are rejects."""
        return int(np.count_nonzero(self._status))

    @property
    def reasons(self) -> dict[str, int]:
        """How many rejects there are by the code of their reason."""
        numbers, counts = np.unique(self._status[self._status != 0], return_counts=True)
        return {Reason(number).code: count for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)}

    @property
    def bytes(self) -> int:
        """Size of its segments on disk."""
        return sum(s.bytes for s in self._segments)

    def __len__(self) -> int:
        return self.rows

    def lookup(self, digests: Digests, view: int = 0) -> npt.NDArray[np.int16]:
        """For each digest (N, 32), int16 (N,): -1 no row, 0 features, above 0 the number of the reject's Reason."""
        rows = self.places(digests, view)
        found = rows >= 0
        status = np.full(len(rows), -1, np.int16)
        status[found] = self._status[rows[found]]
        return status

    def places(self, digests: Digests, view: int) -> npt.NDArray[np.intp]:
        """For each digest (N, 32) the row of the snapshot that serves it, -1 if there is none: intp (N,).

        Rows are numbered as they lie in the store, segment by segment.
        """
        if digests.ndim != 2 or digests.shape[1] != DIGEST_BYTES or digests.dtype != np.uint8:
            raise InputError(
                "these are no digests",
                where="digests",
                expected="uint8 (N, 32)",
                received=f"{digests.dtype} {digests.shape}",
            )
        return self._index(view).find(digests)

    def read(self, digests: Digests, view: int = 0, out: Features | None = None) -> Features:
        """The features of ``digests`` (N, 32) in that order, in the spec's dtype: (N, D), or (N, H, W, C) for maps.

        Read straight into ``out`` (C-contiguous, of that shape) if given; else into a new array.

        Raises
        ------
        InputError : one of them has no features here, or ``out`` does not fit.
        DamageError : a segment has been damaged or removed since the snapshot was taken.
        """
        rows = self.places(digests, view)
        lacking = (rows < 0) | (self._status[rows] != 0) if self.rows else np.ones(len(rows), bool)
        if lacking.any():
            raise InputError(
                f"{np.count_nonzero(lacking)} of {len(rows)} images have no features in the store",
                where=f"namespace {self.spec.fingerprint}, view {view}",
                received=f"the first is {digests[np.argmax(lacking)].tobytes().hex()}",
                todo="extract them first",
            )
        out = self._room(len(rows), out)
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(owner, kind="stable")
        present, first = np.unique(owner[order], return_index=True)

        def read(number: int, places: npt.NDArray[np.intp]) -> None:
            try:
                self._segments[number].read_into(out, places, rows[places] - self._starts[number])
            except FileNotFoundError as error:
                out[places] = self._read_elsewhere(digests[places], view, self._segments[number].path, error)

        parts = zip(present.tolist(), np.split(order, first[1:]), strict=False)
        if out.nbytes < _WORTH_THREADS or len(present) < 2:
            for part in parts:
                read(*part)
        else:
            with ThreadPoolExecutor(min(len(present), os.cpu_count() or 1), "featstore-read") as threads:
                list(threads.map(lambda part: read(*part), parts))
        return out

    def parts(self) -> list[tuple[Segment, npt.NDArray[np.bool_]]]:
        """Its segments, each with which of its rows are served, bool (n,); the others are there twice."""
        served = np.zeros(self.rows, np.bool_)
        for view in np.unique(np.concatenate([np.zeros(0, np.uint16), *(s.views for s in self._segments)])).tolist():
            served[self._index(view).rows] = True
        return list(zip(self._segments, np.split(served, self._starts[1:]), strict=True)) if self._segments else []

    def _read_elsewhere(self, digests: Digests, view: int, path: Path, gone: FileNotFoundError) -> Features:
        if self._renew is not None:
            for _ in range(_RENEWALS):
                fresh = self._renew()
                if not fresh.lookup(digests, view).any():
                    return fresh.read(digests, view)
        raise DamageError(
            "a segment was removed, damaged or set aside since this snapshot was taken",
            where=path,
            todo="run the same command again; if that does not help, the same extraction",
        ) from gone

    def _room(self, count: int, out: Features | None) -> Features:
        """The array to read ``count`` rows into. With nothing stored, nothing is asked for, and (0, 0) holds it."""
        shape = (count, *(self.feature_shape or (0,)))
        if out is None:
            return np.empty(shape, self.spec.dtype)
        if out.shape != shape or not out.flags.c_contiguous:
            raise InputError(
                "this array cannot take the rows", where="out", expected=f"C-contiguous {shape}", received=out.shape
            )
        return out

    def _index(self, view: int) -> _Index:
        with self._lock:
            if view not in self._indexes:
                self._indexes[view] = self._make_index(view)
            return self._indexes[view]

    def _make_index(self, view: int) -> _Index:
        rows = np.flatnonzero(np.concatenate([np.zeros(0, bool), *(s.views == view for s in self._segments)]))
        digests = np.concatenate([np.zeros((0, DIGEST_BYTES), np.uint8), *(s.digests for s in self._segments)])
        if len(rows) < len(digests) or self.rejects:
            rows = rows[np.argsort(self._status[rows] != 0, kind="stable")]  # features first, then by segment name
            digests = digests[rows]
        return _Index.of(digests, rows)

    @cached_property
    def _status(self) -> npt.NDArray[np.uint8]:
        return np.concatenate([np.zeros(0, np.uint8), *(s.status for s in self._segments)])

    @cached_property
    def _starts(self) -> npt.NDArray[np.intp]:
        """The first row of each segment."""
        return np.cumsum([0, *(len(s.digests) for s in self._segments)])[:-1]


def _agreeing(segments: Sequence[Segment]) -> tuple[tuple[Segment, ...], list[Damage]]:
    """The segments whose features have the shape that most of them have, and the others as damage."""
    shapes = Counter(s.feature_shape for s in segments if s.feature_shape is not None)
    if len(shapes) < 2:
        return tuple(segments), []
    [(shape, _)] = shapes.most_common(1)
    good = tuple(s for s in segments if s.feature_shape in (None, shape))
    bad = [
        Damage(s.path, f"its features are of shape {s.feature_shape}, those of most others {shape}", s.stamp)
        for s in segments
        if s not in good
    ]
    return good, bad
