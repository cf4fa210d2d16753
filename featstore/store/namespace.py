"""A namespace: the rows of one spec, as a folder of segments."""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featstore.errors import DamageError, from_os_error
from featstore.spec import Spec
from featstore.store.checked import Checked
from featstore.store.commit import explained, fsync_folder, make_folder, sweep, write_text
from featstore.store.rows import Damage, FileStamp, stamp_of
from featstore.store.snapshot import Snapshot
from featstore.store.writer import Writer
from featstore.whole import read_small

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
        self._opened = opened

    @property
    def exists(self) -> bool:
        """True if the store has a segment of this spec, sound or not."""
        return next(self._list(), None) is not None

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
            segments, damaged = self._open_all(paths, read_data, lookups_only)
            complete = len(segments) + len(damaged) == len(paths)
            # a listing is no moment: it may miss an old segment, and the new one that has its rows now, but not twice
            if complete and {*self._paths()} <= {*paths}:
                break
        if lookups_only and segments:
            self._make_durable()
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
        make_folder(self.segment_folder, self._store.path)
        description = self.path / "spec.json"
        if not _holds(description, self.spec.to_json()):
            write_text(self.spec.to_json(), description, self._store.private_folder)
        for damage in self.snapshot(read_data=False).damaged:
            self.quarantine(damage)
        sweep(self._store.leftovers())
        return Writer(self.spec, self.segment_folder, self._store.private_folder, recorded, codec)

    def quarantine(self, damage: Damage) -> None:
        """Take a damaged segment out of service: moved, not deleted.

        Nothing happens if it is gone, or no longer what was found damaged: somebody else has set it aside, and written
        its rows again, which have the same name. Should that happen just before the move, the move is undone.
        Raises ReadOnlyError, NoSpaceError or StorageError.
        """
        source = damage.path
        folder = self.path / "quarantine"
        make_folder(folder, self._store.path)
        with explained("set a damaged segment aside", source):
            try:
                if _stamp_at(source) != damage.stamp:
                    return
                target = _free(folder / source.name)
                os.replace(source, target)
            except FileNotFoundError:
                return
            moved = _stamp_at(target)
            if moved and damage.stamp and moved[:2] != damage.stamp[:2]:  # a move changes neither size nor mtime
                os.replace(target, source)
            fsync_folder(folder)
            fsync_folder(source.parent)

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

    def _make_durable(self) -> None:
        """Force the names of the segments to the disk: who wrote them may have been killed before that. Where nothing
        may be written, nothing can be done. Raises StorageError.
        """
        try:
            fsync_folder(self.segment_folder)
        except OSError as error:
            if error.errno not in _MAY_NOT_WRITE:
                raise from_os_error(error, "force the segments to the disk", self.segment_folder) from error

    def _list(self) -> Iterator[os.DirEntry[str]]:
        """The entries of ``seg/`` that have a segment's name."""
        try:
            with os.scandir(self.segment_folder) as entries:
                yield from (entry for entry in entries if SEGMENT_NAME.fullmatch(entry.name))
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise from_os_error(error, "list the segments", self.segment_folder) from error

    def _paths(self) -> list[Path]:
        return sorted(Path(entry.path) for entry in self._list())

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
            stamp = _stamp_at(path)
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


def _stamp_at(path: Path) -> FileStamp | None:
    """The stamp of what is at ``path``, of a link itself; None if the disk does not tell. Raises FileNotFoundError."""
    try:
        return stamp_of(os.lstat(path))
    except FileNotFoundError:
        raise
    except OSError:  # whoever opens it is told the same, and what it means
        return None


def _free(path: Path) -> Path:
    """The path itself; if something is there, another one in its folder."""
    return path.with_stem(f"{path.stem}.{secrets.token_hex(4)}") if os.path.lexists(path) else path


def _holds(path: Path, text: str) -> bool:
    try:
        return read_small(path, len(text)) == text.encode("ascii")
    except (OSError, ValueError):
        return False
