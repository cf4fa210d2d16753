"""What is to become a file or a folder, until it is whole: beside it, and cleared away after a kill."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from featstore.errors import InputError
from featstore.store.commit import fsync_folder


@contextmanager
def drafted(target: Path) -> Iterator[Path]:
    """Where to write what is to be at ``target``, which is then put there as a whole: a path beside it.

    The next one clears away what a killed one has left, and puts back what that had moved out of the way. Whoever
    checks what is at ``target`` does so here inside, too: it may have come meanwhile.
    Raises InputError if another one is under way, and OSError.
    """
    target = target.absolute()
    private = target.with_name(f".{target.name}.export")
    private.mkdir(exist_ok=True)
    handle = os.open(private, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _lock(handle, target)
        draft, old = private / "new", private / "old"
        try:
            if os.path.lexists(old) and not os.path.lexists(target):
                os.rename(old, target)
            _clear(draft, old)
            yield draft
            _publish(draft, target, old)
        finally:
            with suppress(OSError):  # what else lies in it is not ours
                _clear(draft, *([old] if os.path.lexists(target) else []))
                private.rmdir()
    finally:
        os.close(handle)


def _lock(handle: int, target: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            "another export to this place is under way", where=target, todo="wait for it, or name another place"
        ) from None
    except OSError:  # a file system without locks
        return


def _clear(*paths: Path) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _publish(draft: Path, target: Path, old: Path) -> None:
    """Move the draft into place. A folder that was there goes to ``old``, and comes back if that fails."""
    if not draft.is_dir():
        os.replace(draft, target)
    else:
        if os.path.lexists(target):
            os.rename(target, old)
        try:
            os.rename(draft, target)
        except OSError:
            with suppress(OSError):
                os.rename(old, target)
            raise
    fsync_folder(target.parent)
