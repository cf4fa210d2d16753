"""A namespace: the rows of one spec, as a folder of segments."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featstore.errors import DamageError
from featstore.spec import Spec
from featstore.store.checked import Checked
from featstore.store.commit import sweep
from featstore.store.rows import Damage, FileStamp, stamp_at
from featstore.store.snapshot import Snapshot
from featstore.store.writer import Writer

if TYPE_CHECKING:
    from featstore.store.segment import Segment
    from featstore.store.store import Store
    from featstore.store.structure import Codec

SEGMENT_NAME = re.compile(r"[0-9a-f]{64}\.h5")

_LISTINGS = 10
"""How often a listing is repeated because segments came or went meanwhile."""

_MAY_NOT_WRITE = {errno.EROFS, errno.EACCES, errno.EPERM}

Opened = dict[Path, tuple[FileStamp | None, bool, "Segment | Damage"]]
"""What this process has opened already: the file's stamp, whether every byte was read, and what it turned out to be."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a namespace holds: rows with features, rejects (duplicates counted in both), segments and bytes on disk.

    reasons : how many rejects there are by the code of their reason.
    """

    fingerprint: str
    spec: Spec
    rows: int
    rejects: int
    reasons: Mapping[str, int]
    segments: int
    damaged: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """The object that ``featstore store ls --json`` prints for each namespace."""
        return {
            "fingerprint": self.fingerprint,
            "backbone": self.spec.backbone,
            "layer": self.spec.layer,
            "image_size": list(self.spec.image_size),
            "pooling": self.spec.pooling,
            "preprocessing": self.spec.preprocessing,
            "precision": self.spec.precision,
            "dtype": self.spec.dtype,
            "rows": self.rows,
            "rejects": self.rejects,
            "reasons": dict(self.reasons),
            "segments": self.segments,
            "damaged": self.damaged,
            "bytes": self.bytes,
        }


class Namespace:
    """The rows of one ``spec`` in a store. It need not exist yet: then it is empty, and a writer makes it."""

    def __init__(self, store: Store, spec: Spec, opened: Opened) -> None:
        self.spec = spec
        self.fingerprint = spec.fingerprint
        self.path = store.path / "ns" / self.fingerprint
        self.segment_folder = self.path / "seg"
        self._store = store
        self._place = store.place
        self._opened = opened

    @property
    def exists(self) -> bool:
        """True if the store has a segment of this spec, sound or not."""
        return bool(self._paths())

    @property
    def is_described(self) -> bool:
        """True if the file that says the spec is there, and right."""
        return self._store.read_spec(self.fingerprint) is not None

    def state(self) -> object:
        """Something else once segments have come or gone: asked for often, where a snapshot costs more."""
        return self._place.state(self.segment_folder)

    def snapshot(self, *, read_data: bool = True, lookups_only: bool = False) -> Snapshot:
        """The rows that are there now. Every segment is checked the first time this process sees it.

        With ``read_data`` (the default) the check reads every byte; with ``lookups_only``, not of those segments that a
        process read in full within the last day and that are unchanged since. Without ``read_data`` it reads the keys
        and the structure alone: faster on a large store, and features are taken as they are on the disk, damaged or
        not. Whoever looks for lookups computes no row again that is there: so what is there is made durable.

        Raises InputError (a newer format, a codec that is not installed), ReadOnlyError or StorageError.
        """
        for _ in range(_LISTINGS):
            paths = self._paths()
            self._place.fetch(paths, self._store.progress)
            segments, damaged = self._open_all(paths, read_data, lookups_only)
            if damaged:
                self._place.renew(damage.path for damage in damaged)
                segments, damaged = self._open_all(paths, read_data, lookups_only)
            complete = len(segments) + len(damaged) == len(paths)
            # a listing is no moment: it may miss an old segment, and the new one that has its rows now, but not twice
            if complete and {*self._paths()} <= {*paths}:
                break
        if lookups_only and segments:
            self._place.make_durable(self.segment_folder)
        return Snapshot(
            self.spec, segments, damaged, lambda: self.snapshot(read_data=read_data, lookups_only=lookups_only)
        )

    def writer(self, recorded: Mapping[str, str], codec: Codec = "none") -> Writer:
        """A writer of rows.

        First it makes what is missing of the store, sets aside the segments that are damaged (so their rows can be
        written again under the same names), and clears away what killed processes left.
        ``recorded`` (library versions, runtime …) goes into every segment and identifies nothing.
        Raises ReadOnlyError, NoSpaceError or StorageError.
        """
        self._store.check_writable()
        self._place.make_folder(self.segment_folder)
        description = self.path / "spec.json"
        if not self._place.holds(description, self.spec.to_json()):
            self._place.write_text(self.spec.to_json(), description)
        for damage in self.snapshot(read_data=False).damaged:
            self.quarantine(damage)
        sweep(self._store.leftovers())
        return Writer(self.spec, self.segment_folder, self._place, recorded, codec)

    def quarantine(self, damage: Damage) -> None:
        """Take a damaged segment out of service: moved, not deleted; see :meth:`Place.set_aside`."""
        self._place.set_aside(damage.path, self.path / "quarantine", damage.stamp)

    def summary(self) -> Summary:
        """Counts for people; opens every segment, without reading the features."""
        held = self.snapshot(read_data=False)
        return Summary(
            fingerprint=self.fingerprint,
            spec=self.spec,
            rows=held.rows - held.rejects,
            rejects=held.rejects,
            reasons=held.reasons,
            segments=len(held.names),
            damaged=len(held.damaged),
            bytes=held.bytes,
        )

    def _paths(self) -> list[Path]:
        """What has a segment's name, here or yet to be fetched."""
        return [path for path in self._place.list(self.segment_folder) if SEGMENT_NAME.fullmatch(path.name)]

    def _open_all(
        self, paths: Sequence[Path], read_data: bool, lookups_only: bool
    ) -> tuple[list[Segment], list[Damage]]:
        """Every listed segment, opened or found damaged; what vanished meanwhile (compacted, set aside) is left out."""
        checked = self._store.checked(self.fingerprint)
        workers = min(len(paths), os.cpu_count() or 1)
        if workers < 2 or not read_data:
            results = [self._open(path, read_data, lookups_only, checked) for path in paths]
        else:  # hashing runs in C without the interpreter's lock
            with ThreadPoolExecutor(workers, thread_name_prefix="featstore-open") as pool:
                results = list(pool.map(lambda path: self._open(path, read_data, lookups_only, checked), paths))
        checked.save({path.stem for path in paths})
        self._forget_all_but({*paths})
        damaged = [r for r in results if isinstance(r, Damage)]
        segments = [r for r in results if r is not None and not isinstance(r, Damage)]
        return segments, damaged

    def _forget_all_but(self, present: set[Path]) -> None:
        """Let go of segments that are not there any more: their keys take 35 bytes a row."""
        for path in list(self._opened):
            if path not in present and path.parent == self.segment_folder:
                self._opened.pop(path, None)

    def _open(self, path: Path, read_data: bool, lookups_only: bool, checked: Checked) -> Segment | Damage | None:
        """What is at ``path``, None if nothing is; asked of the disk again only if the file has changed."""
        from featstore.store.segment import open_segment

        began = time.time_ns()
        stamp = None
        try:
            stamp = stamp_at(path)
            if stamp is not None:
                read_data = read_data and not (lookups_only and checked.holds(path.stem, stamp))
                known_stamp, known_data, known = self._opened.get(path, (None, False, None))
                if known_stamp == stamp and (known_data or not read_data):
                    return known
            found: Segment | Damage = open_segment(path, self.spec, read_data=read_data)
            if read_data and stamp is not None:
                checked.put(path.stem, stamp, began)
        except FileNotFoundError:
            return None
        except DamageError as error:
            checked.forget(path.stem)
            found = Damage(path, error.what, stamp)
        self._opened[path] = (stamp, read_data, found)
        return found
