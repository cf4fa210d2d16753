"""Making bytes durable: the only module that puts files into a store.

A file is written under a private name, forced to the disk, and only then given its public name; so whatever has a
public name is complete, at every instant and after every crash. Nothing here takes a lock, and nothing needs one.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from featstore.errors import FeatstoreError, from_os_error
from featstore.store.names import name_of, name_of_file
from featstore.whole import open_regular

SEGMENT_ENDING = ".h5"

LEFTOVER_SECONDS = 24 * 3600
_TRIED_AGAIN = {errno.EIO, errno.ENOENT}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_NO_FOLDER_FSYNC = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}


@contextmanager
def explained(doing: str, where: Path, leave: tuple[type[OSError], ...] = ()) -> Iterator[None]:
    """Turn an OSError of the block, but for those to ``leave``, into the typed error for ``doing`` (an infinitive) at
    ``where``.
    """
    try:
        yield
    except FeatstoreError:
        raise
    except leave:
        raise
    except OSError as error:
        raise from_os_error(error, doing, where) from error


def commit(data: bytes, folder: Path, private: Path) -> str:
    """Put ``data`` into ``folder`` under the BLAKE3 of its content, durably, and return that name (64 hex digits).

    When this returns, the file survives a power cut; if it raises, either nothing is there or all of it is.
    ``private`` is a folder on the same file system for the file's time without a name. An existing file of that
    name is kept if its content is right and replaced if it is not.

    Raises NoSpaceError, ReadOnlyError or StorageError; InputError if something else is in the way.
    """
    name = name_of(data)
    target = folder / (name + SEGMENT_ENDING)
    with explained("write a segment", target):
        _by_way_of(private, data, lambda file: _publish(file, target, name))
        fsync_folder(folder)
    return name


def remove(paths: Sequence[Path], folder: Path) -> None:
    """Remove files of ``folder``, and folders with all that is in them, durably; a link goes, and not what it leads to.

    What is gone already is no error. Raises ReadOnlyError or StorageError.
    """
    with explained("remove files", folder):
        for path in paths:
            with suppress(FileNotFoundError):
                if stat.S_ISDIR(os.lstat(path).st_mode):
                    shutil.rmtree(path)
                else:
                    os.unlink(path)
        fsync_folder(folder)


def write_text(text: str, target: Path, private: Path) -> None:
    """Replace ``target`` by a file holding ``text`` (ASCII), atomically and durably; errors as in :func:`commit`."""
    write_file(text.encode("ascii"), target, private)


def write_file(data: bytes, target: Path, private: Path) -> None:
    """The same, of any bytes."""
    with explained(f"write {target.name}", target):
        _by_way_of(private, data, lambda file: os.replace(file, target))
        fsync_folder(target.parent)


def make_folder(folder: Path, root: Path) -> None:
    """Make ``folder`` and its missing parents; its whole way down from the parent of ``root`` is durable afterwards.

    A folder that is there already counts for nothing: whoever made it may have died before forcing it to the disk.
    """
    way = [folder, *folder.parents]
    below = way[: way.index(root) + 1]
    with explained("make a folder", root.parent):
        root.parent.mkdir(parents=True, exist_ok=True)
    for step in reversed(below):
        with explained("make a folder", step):
            step.mkdir(exist_ok=True)
            with suppress(PermissionError):  # the store may stand in a folder that others may not list
                fsync_folder(step.parent)


def fsync_folder(folder: Path) -> None:
    """Force a folder's entries to the disk, where the file system knows how. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDER_FSYNC:
            raise
    finally:
        os.close(handle)


def probe(private: Path) -> None:
    """Write a small private file and remove it, to see whether one may write here; errors as in :func:`commit`."""
    with explained("write to the store", private):
        _by_way_of(private, b"\0" * 4096, lambda _: None)


def sweep(files: Iterable[Path]) -> None:
    """Remove :func:`leftovers`. Never raises."""
    for file in files:
        with suppress(OSError):
            os.unlink(file)


def leftovers(folder: Path, named: Callable[[str], bool] = lambda _: True) -> list[Path]:
    """The files of ``folder``, if ``named`` so, that killed processes left a day ago or earlier. Never raises."""
    found = []
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            with suppress(OSError):
                old = entry.is_file(follow_symlinks=False) and _age(entry) > LEFTOVER_SECONDS
                if old and named(entry.name):
                    found.append(Path(entry.path))
    return found


def _age(entry: os.DirEntry[str]) -> float:
    return time.time() - entry.stat(follow_symlinks=False).st_mtime


def _by_way_of(private: Path, data: bytes, publish: Callable[[Path], object]) -> None:
    """Have ``publish`` take a private file with ``data``, already on the disk; it goes if it keeps its private name.

    There is one retry, and it is a new file. After an I/O error: once a fsync has failed, the kernel may forget that,
    so a second one of the same file proves nothing. And if the file has vanished: to a process whose clock is a day
    ahead of the file's it was a leftover.
    """
    try:
        _publish_private(private, data, publish)
    except OSError as error:
        if error.errno not in _TRIED_AGAIN:
            raise
        _publish_private(private, data, publish)


def _publish_private(private: Path, data: bytes, publish: Callable[[Path], object]) -> None:
    path = _write_private(data, private)
    try:
        publish(path)
    finally:
        with suppress(OSError):  # a leftover is swept later, and must not hide the error that brought us here
            os.unlink(path)


def _write_private(data: bytes, private: Path) -> Path:
    path = private / f"{os.getpid()}-{secrets.token_hex(8)}"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(handle, left) :]
            os.fsync(handle)
        finally:
            os.close(handle)
    except BaseException:
        with suppress(OSError):
            os.unlink(path)
        raise
    return path


def _publish(temporary: Path, target: Path, name: str) -> None:
    """Give the file its public name without ever replacing a good one."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        if not _is_sound(target, name):
            os.replace(temporary, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.replace(temporary, target)  # this file system has no links; equal names mean equal bytes


def _is_sound(target: Path, name: str) -> bool:
    """True if the file has the content that its name promises; it is then on the disk too, whoever put it there."""
    try:
        if target.is_symlink():  # no reader follows it
            return False
        with open_regular(target) as file:
            sound = name_of_file(file.fileno()) == name
            if sound:
                os.fsync(file.fileno())
            return sound
    except (OSError, ValueError):
        return False
