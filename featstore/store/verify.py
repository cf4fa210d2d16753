"""Checking a whole store: is everything in it what its name and the format promise?"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featstore.errors import DamageError
from featstore.progress import Advance, Progress, silent
from featstore.spec import Spec
from featstore.store.namespace import SEGMENT_NAME
from featstore.store.rows import Damage
from featstore.store.snapshot import Snapshot
from featstore.store.store import DERIVED, Store

if TYPE_CHECKING:
    from featstore.store.segment import Segment


_STRANGER = "it is not part of a store: remove it"
"""What is wrong with a file that nothing of ours is called by, or that is in a folder's place; no extraction sets it
aside.
"""

_FOREIGN = "it does not hold the spec that names its folder"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a check saw. ``quarantined`` files are not problems: they serve no rows any more.

    ``read_data`` tells whether every byte was read, ``bytes`` the size of the segments that were checked.
    """

    segments: int
    rows: int
    bytes: int
    quarantined: int
    problems: tuple[Damage, ...]
    read_data: bool

    @property
    def sound(self) -> bool:
        """True if nothing is damaged."""
        return not self.problems

    @property
    def is_mendable(self) -> bool:
        """Whether there is damage that the next extraction sets aside: all but what is not part of a store."""
        return any(damage.problem != _STRANGER for damage in self.problems)

    def to_json(self) -> dict[str, Any]:
        """The object that ``featstore store verify --json`` prints."""
        return {
            "segments": self.segments,
            "rows": self.rows,
            "bytes": self.bytes,
            "quarantined": self.quarantined,
            "read_data": self.read_data,
            "problems": [{"path": str(p.path), "problem": p.problem} for p in self.problems],
            "sound": self.sound,
        }


def verify(store: Store, *, read_data: bool = False, progress: Progress = silent) -> VerifyReport:
    """Check names, sizes, structure and keys of every segment; with ``read_data`` every byte. Changes no row.

    Raises InputError (a newer format, a codec that is not installed), ReadOnlyError or StorageError.
    """
    fingerprints, spaces = store.fingerprints(), store.path / "ns"
    problems = _strangers(store, spaces, fingerprints)
    folders = [store.path / name for name in ("ns", *sorted(DERIVED))]
    problems += [Damage(path, _STRANGER) for path in folders if os.path.lexists(path) and not os.path.isdir(path)]
    rows = segments = size = 0
    for fingerprint in fingerprints:
        folder = spaces / fingerprint
        problems += _strangers(store, folder, ("seg", "quarantine"), files=("spec.json",))
        paths = store.place.list(folder / "seg")
        store.place.fetch(filter(_is_named, paths), progress, anew=read_data)
        spec = store.read_spec(fingerprint)
        if spec is None and paths:  # without segments it is a namespace that was just about to be made
            problems.append(Damage(folder / "spec.json", _FOREIGN))
            spec = store.spec_of_segments(fingerprint)
        if spec is None:
            problems += [Damage(path, _FOREIGN if _is_named(path) else _STRANGER) for path in paths]
            segments += len(paths)
            continue
        with progress(f"verify {spec.backbone}", len(paths), "segments") as advance:
            held = Snapshot(spec, *_check_all(paths, spec, read_data, advance))
        problems += held.damaged
        checked = store.checked(fingerprint)
        for damage in held.damaged:
            checked.forget(damage.name)
        checked.save(held.names)
        segments, rows, size = segments + len(paths), rows + held.rows, size + held.bytes
    return VerifyReport(segments, rows, size, len(store.quarantined()), tuple(problems), read_data)


def _check_all(paths: list[Path], spec: Spec, read_data: bool, advance: Advance) -> tuple[list[Segment], list[Damage]]:
    from featstore.store.segment import open_segment

    sound, damaged = [], []
    for path in paths:
        try:
            if not _is_named(path):
                raise DamageError(_STRANGER)
            sound.append(open_segment(path, spec, read_data=read_data))
            if read_data:
                sound[-1].check_features()
        except DamageError as error:
            damaged.append(Damage(path, error.what))
        except FileNotFoundError:  # compacted or set aside while we looked
            pass
        advance(1)
    return sound, damaged


def _is_named(path: Path) -> bool:
    return SEGMENT_NAME.fullmatch(path.name) is not None


def _strangers(store: Store, folder: Path, folders: Collection[str], files: Collection[str] = ()) -> list[Damage]:
    """What is in a folder and is neither one of the ``files`` nor one of the ``folders`` that belong there."""
    return [
        Damage(path, _STRANGER)
        for path in store.place.list(folder)
        if path.name not in files and not (path.name in folders and os.path.isdir(path))
    ]
