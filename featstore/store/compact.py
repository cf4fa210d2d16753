"""Compaction: many small segments become few large ones that give the same answers, at every moment and after a kill.

No lock is taken. A compaction removes only segments of which nobody wants a row, and those whose rows it has itself
written, durably, into new ones, and no two compactions write a segment of the same name: so however many run at once,
the copy of a row that was written last is removed by nobody. Of rows that are there twice the one that is served
stays. What decides between equals is the smallest name, so the segments that hold such rows go one by one, the largest
name first: whichever copy answers in between, it is the same bits.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featstore.progress import Advance, Progress, silent
from featstore.records import DIGEST_BYTES, Digests
from featstore.store.namespace import Namespace
from featstore.store.rows import MAX_ATTRIBUTE_BYTES, Rows
from featstore.store.store import Store

if TYPE_CHECKING:
    from featstore.store.segment import Segment
    from featstore.store.structure import Codec

SEGMENT_BYTES = 2**24
"""Features of a compacted segment, at most, unless one row is larger: small enough for all cores to check the segments
of a table at once, large enough for HDF5's overhead to vanish; a third of the memory that making it takes.
"""


def _is_small(size: int) -> bool:
    """Whether a segment with so many bytes of features is joined with others."""
    return size < SEGMENT_BYTES // 2


def segments_after(segments: int, size: int) -> int:
    """How many a compaction leaves of so many equal ones with ``size`` bytes of features."""
    return math.ceil(segments / (SEGMENT_BYTES // size)) if _is_small(size) else segments


_Part = tuple["Segment", npt.NDArray[np.bool_]]
"""A segment, and which of its rows stay, bool (N,)."""


@dataclass(frozen=True, slots=True)
class CompactReport:
    """Segments and bytes before and after; ``dropped`` rows were there twice, outranked or not wanted.

    Counted is what a compaction found and did itself, whatever others wrote and removed meanwhile.
    """

    segments_before: int
    segments_after: int
    bytes_before: int
    bytes_after: int
    dropped: int

    def to_json(self) -> dict[str, Any]:
        """The object that ``featstore store compact --json`` prints."""
        return {
            "segments": {"before": self.segments_before, "after": self.segments_after},
            "bytes": {"before": self.bytes_before, "after": self.bytes_after},
            "dropped": self.dropped,
        }


Wanted = Callable[[Digests], npt.NDArray[np.bool_]]
"""Which of the images with these digests, uint8 (N, 32), are to stay: bool (N,)."""


def compact(store: Store, *, wanted: Wanted | None = None, progress: Progress = silent) -> CompactReport:
    """Compact every namespace. Reading and writing go on beside it; damaged segments are left where they are.

    With ``wanted`` the rows of all other images are dropped: first the segments that hold no others, for which nothing
    is written, so that it works on a full disk. The rest takes room for one large segment at a time, and once for all
    those that hold rows to drop.
    Raises InputError (a newer format, a codec that is not installed), ReadOnlyError, NoSpaceError or StorageError.
    """
    store.check_folders()
    each = [_Compaction(namespace, store, wanted) for namespace in store.namespaces()]
    for compaction in each:
        compaction.drop_unwanted()
    store.create()
    done = [compaction.run(progress) for compaction in each]
    return CompactReport(*(sum(getattr(one, field.name) for one in done) for field in fields(CompactReport)))


class _Compaction:
    """Of one namespace."""

    def __init__(self, namespace: Namespace, store: Store, wanted: Wanted | None) -> None:
        self._namespace, self._spec = namespace, namespace.spec
        self._folder, self._place = namespace.segment_folder, store.place
        self._wanted = wanted
        self._found: dict[str, int] = {}  # name → bytes
        self._made: dict[str, int] = {}
        self._gone: set[str] = set()
        self._dropped = 0

    def drop_unwanted(self) -> None:
        """Remove the segments of whose images none is wanted. Those with a row that is there twice are left for later:
        if it ended here, the copy that is not served would be.
        """
        if self._wanted is None:
            return
        parts = self._look()
        twice = _twice(parts)
        going = [
            segment
            for segment, _ in parts
            if not self._wanted(segment.digests).any() and not np.isin(_keys(segment), twice).any()
        ]
        self._remove([(segment, np.zeros(len(segment.digests), np.bool_)) for segment in going])

    def run(self, progress: Progress) -> CompactReport:
        """The rest; and what was found and done, by :meth:`drop_unwanted`, too."""
        with progress(f"compact {self._spec.backbone}", len(self._look()), "segments") as advance:
            while True:
                try:
                    self._join(advance)
                    break
                except FileNotFoundError:  # another compaction was quicker: see what it has left
                    continue
        sizes = self._found | self._made
        after = [size for name, size in sizes.items() if name not in self._gone]
        return CompactReport(len(self._found), len(after), sum(self._found.values()), sum(after), self._dropped)

    def _join(self, advance: Advance) -> None:
        loose = self._loose()  # first, and together: afterwards no two segments have the same row
        for group in self._groups(loose):
            self._write(group, advance)
        for part in sorted(loose, key=lambda part: part[0].name, reverse=True):
            self._remove([part])
        # whole ones alone: others may have written more meanwhile, whose rows that are not served would be lost with it
        small = [part for part in self._parts() if part[1].all() and _is_small(self._bytes(part))]
        for group in self._groups(small):
            if len(group) > 1:
                self._write(group, advance)
                self._remove(group)

    def _look(self) -> Sequence[_Part]:
        """The segments that are there now, and which of their rows are served."""
        parts = self._namespace.snapshot().parts()
        self._found |= {segment.name: segment.bytes for segment, _ in parts if segment.name not in self._made}
        return parts

    def _remove(self, parts: Sequence[_Part]) -> None:
        """Remove segments of which what stays is elsewhere, too."""
        if parts:
            self._place.remove([segment.path for segment, _ in parts], self._folder)
            self._gone |= {segment.name for segment, _ in parts}
            self._dropped += sum(int(np.count_nonzero(~stays)) for _, stays in parts)

    def _parts(self) -> list[_Part]:
        """The segments that are there now, and which of their rows stay."""
        return [self._staying(part) for part in self._look()]

    def _staying(self, part: _Part) -> _Part:
        segment, served = part
        return segment, served if self._wanted is None else served & self._wanted(segment.digests)

    def _loose(self) -> list[_Part]:
        """The segments with rows that do not stay, or that are there twice, even where this is the copy that is served:
        relying on a segment that somebody else may remove would be relying on luck.
        """
        parts = self._look()
        twice = _twice(parts)
        return [
            (segment, stays)
            for segment, stays in map(self._staying, parts)
            if not stays.all() or np.isin(_keys(segment), twice).any()
        ]

    def _groups(self, parts: Sequence[_Part]) -> Iterator[list[_Part]]:
        """What stays, as parts that fit one segment, in the order in which they were written: rows of a run stay side
        by side. Segments without features are joined apart: beside features their rows would take as much room.
        """
        in_order = sorted(parts, key=lambda part: (part[0].written_ns, part[0].name))
        for bare in (False, True):
            of_kind = [part for part in in_order if (part[0].feature_shape is None) == bare]
            yield from self._fitting(piece for part in of_kind for piece in self._pieces(part))

    def _fitting(self, pieces: Iterable[_Part]) -> Iterator[list[_Part]]:
        group: list[_Part] = []
        size = 0
        for piece in pieces:
            if group and size + self._bytes(piece) > SEGMENT_BYTES:
                yield group
                group, size = [], 0
            group.append(piece)
            size += self._bytes(piece)
        if group:
            yield group

    def _pieces(self, part: _Part) -> Iterator[_Part]:
        """What stays of a part, which may be nothing, or more than fits one segment."""
        segment, stays = part
        place = np.cumsum(stays) - 1
        most = max(1, SEGMENT_BYTES // self._row_bytes(segment))
        for start in range(0, int(np.count_nonzero(stays)), most):
            yield segment, stays & (place >= start) & (place < start + most)

    def _bytes(self, part: _Part) -> int:
        """Of the rows that stay."""
        segment, stays = part
        return int(np.count_nonzero(stays)) * self._row_bytes(segment)

    def _row_bytes(self, segment: Segment) -> int:
        """Of the features; where there are none, of a digest."""
        if segment.feature_shape is None:
            return DIGEST_BYTES
        return int(np.prod(segment.feature_shape)) * np.dtype(self._spec.dtype).itemsize

    def _write(self, group: Sequence[_Part], advance: Advance) -> None:
        """Write what stays of the parts as one segment."""
        from featstore.store.encode import encode

        data = encode(self._merged(group), self._spec, _recorded(group), _codec(group))
        self._made[self._place.commit(data, self._folder)] = len(data)
        advance(len(group))

    def _merged(self, group: Sequence[_Part]) -> Rows:
        """The rows that stay of all parts, one after another."""
        chosen = [(segment, np.flatnonzero(stays)) for segment, stays in group]
        status = np.concatenate([segment.status[rows] for segment, rows in chosen])
        features = None
        if not status.all():
            [shape] = {segment.feature_shape for segment, _ in chosen if segment.feature_shape}
            features = np.zeros((len(status), *shape), self._spec.dtype)
            start = 0
            for segment, rows in chosen:
                if segment.feature_shape and len(rows):
                    segment.read_into(features, np.arange(start, start + len(rows)), rows)
                start += len(rows)
        return Rows(
            digests=np.concatenate([segment.digests[rows] for segment, rows in chosen]),
            views=np.concatenate([segment.views[rows] for segment, rows in chosen]),
            status=status,
            features=features,
        )


def _recorded(group: Sequence[_Part]) -> dict[str, str]:
    """What the makers noted, where they differ all that they said, unless that is more than a reader takes; and a token
    that makes the name its own.
    """
    said: dict[str, set[str]] = {}
    for segment, _ in group:
        for name, value in segment.recorded.items():
            said.setdefault(name, set()).update(value.split(", "))
    token = {"compaction": secrets.token_hex(8)}
    recorded = {name: ", ".join(sorted(values)) for name, values in said.items()} | token
    return recorded if len(json.dumps(recorded)) <= MAX_ATTRIBUTE_BYTES else token


def _codec(group: Sequence[_Part]) -> Codec:
    """Compressed, if any of the parts was."""
    return "zstd" if any(segment.codec == "zstd" for segment, _ in group) else "none"


def _twice(parts: Sequence[_Part]) -> npt.NDArray[np.bytes_]:
    """The keys of the rows that are there more than once, S34 (M,), given which rows of each segment are served."""
    return np.concatenate([np.zeros(0, "S34"), *(_keys(segment)[~served] for segment, served in parts)])


def _keys(segment: Segment) -> npt.NDArray[np.bytes_]:
    """Digest and view of every row as one text, S34 (N,)."""
    views = segment.views.astype(">u2").view(np.uint8).reshape(-1, 2)
    return np.concatenate([segment.digests, views], axis=1).view("S34").reshape(-1)
