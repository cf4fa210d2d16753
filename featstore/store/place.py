"""Where the files of a store go: a folder, or a folder that is kept in step with object storage.

The rest of the store reads files of a folder, whatever the place. What others have put there is listed and fetched, and
what we put there is durable, through here alone.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from featstore.errors import from_os_error
from featstore.progress import Progress, silent
from featstore.store import commit
from featstore.store.rows import FileStamp, stamp_at
from featstore.whole import read_small

_MAY_NOT_WRITE = {errno.EROFS, errno.EACCES, errno.EPERM}


class Place:
    """The folder ``root`` of a store on a disk. Safe in threads; other processes may use it at the same time."""

    look_seconds: ClassVar[float] = 1.0
    """How often it is worth a look whether others have added rows."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.private = root / "tmp"

    @property
    def location(self) -> str:
        """What people call it."""
        return str(self.root)

    def refresh(self) -> None:
        """Have the file FORMAT as it is there now. Raises ReadOnlyError or StorageError."""

    def names(self) -> set[str]:
        """What lies right at the place. Raises OSError."""
        return {entry.name for entry in os.scandir(self.root)}

    def list(self, folder: Path) -> list[Path]:
        """What is in a folder of the store, by name; nothing if it is not there. Raises ReadOnlyError or StorageError.

        What it names need not be here yet: see :meth:`fetch`.
        """
        try:
            with os.scandir(folder) as entries:
                return sorted(Path(entry.path) for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise from_os_error(error, "list the store", folder) from error

    def state(self, folder: Path) -> object:
        """Something else once files have come to a folder or gone from it; None if that cannot be told now."""
        try:
            return os.stat(folder).st_mtime_ns
        except OSError:
            return None

    def fetch(self, paths: Iterable[Path], progress: Progress = silent, *, anew: bool = False) -> None:
        """Have files that are there here, too; ``anew`` even if they are. What is gone is left out.

        Raises NoSpaceError, ReadOnlyError or StorageError.
        """

    def renew(self, paths: Iterable[Path]) -> None:
        """Have files again that were found damaged here, if what is here is a copy that may be to blame; errors as in
        :meth:`fetch`.
        """

    def bytes_of(self, path: Path) -> int:
        """Of a file, of a link itself, or of all files in a folder; what is gone meanwhile has none."""
        inside = [] if path.is_symlink() else [Path(top, name) for top, _, names in os.walk(path) for name in names]
        total = 0
        for file in inside or [path]:
            with suppress(FileNotFoundError):
                total += file.lstat().st_size
        return total

    def size(self) -> int:
        """Bytes of all files, what is derived, private or in quarantine included."""
        total = 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                with suppress(FileNotFoundError):  # a private file that has just got its public name
                    total += os.lstat(os.path.join(folder, name)).st_size
        return total

    def make_folder(self, folder: Path) -> None:
        """See :func:`featstore.store.commit.make_folder`."""
        commit.make_folder(folder, self.root)

    def make_durable(self, folder: Path) -> None:
        """Force the names in a folder to the disk: who put them there may have been killed before that. Where nothing
        may be written, nothing can be done. Raises StorageError.
        """
        try:
            commit.fsync_folder(folder)
        except OSError as error:
            if error.errno not in _MAY_NOT_WRITE:
                raise from_os_error(error, "force the segments to the disk", folder) from error

    def probe(self) -> None:
        """See whether one may write; errors as in :meth:`commit`."""
        commit.probe(self.private)

    def holds(self, target: Path, text: str) -> bool:
        """Whether the small file ``target`` is there and has this content. Raises ReadOnlyError or StorageError."""
        try:
            return read_small(target, len(text)) == text.encode("ascii")
        except (OSError, ValueError):
            return False

    def write_text(self, text: str, target: Path) -> None:
        """Replace the small file ``target`` (ASCII), atomically and durably; errors as in :meth:`commit`."""
        commit.write_text(text, target, self.private)

    def commit(self, data: bytes, folder: Path) -> str:
        """Put a segment into a folder; see :func:`featstore.store.commit.commit`."""
        return commit.commit(data, folder, self.private)

    def remove(self, paths: Sequence[Path], folder: Path) -> None:
        """Remove files of a folder; see :func:`featstore.store.commit.remove`."""
        commit.remove(paths, folder)

    def set_aside(self, source: Path, folder: Path, stamp: FileStamp | None) -> None:
        """Move a damaged segment into ``folder``, unless it is gone or no longer what had this ``stamp``: somebody else
        has set it aside, and written its rows again, which have the same name.

        Should that happen just before the move, the move is undone. Raises ReadOnlyError, NoSpaceError or StorageError.
        """
        self.make_folder(folder)
        target = _free(folder / source.name)
        with commit.explained("set a damaged segment aside", source):
            try:
                if stamp_at(source) != stamp:
                    return
                os.replace(source, target)
            except FileNotFoundError:
                return
            moved = stamp_at(target)
            if moved and stamp and moved[:2] != stamp[:2]:  # a move changes neither size nor mtime
                with suppress(FileNotFoundError):  # a collection was quicker: its rows are computed again
                    os.replace(target, source)
            commit.fsync_folder(folder)
            commit.fsync_folder(source.parent)

    def leave_token(self, name: str) -> None:
        """Put an empty file where whoever sees the same store finds it; again, so that it is not swept away as a
        leftover. Raises ReadOnlyError, NoSpaceError or StorageError.
        """
        with commit.explained("write to the store", self.private / name):
            (self.private / name).touch()

    def has_token(self, name: str) -> bool:
        """Whether a token is there."""
        return (self.private / name).exists()

    def remove_token(self, name: str) -> None:
        """Take a token away. Never raises."""
        with suppress(OSError):
            (self.private / name).unlink()


def _free(path: Path) -> Path:
    """The path itself; if something is there, another one in its folder."""
    return path.with_stem(f"{path.stem}.{secrets.token_hex(4)}") if os.path.lexists(path) else path
