"""What can go wrong, said to a person: what, where, expected, received, what to do.

The bottom of the ladder: imports nothing of ours.
"""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable
from pathlib import Path

_MARGIN = " " * 12
_GOES_ON = re.compile(r"\n  +")
"""What parts the lines of one part of a message: several reasons, or another message within this one."""


class FeatstoreError(Exception):
    """An expected failure: one message, one exit code, never a traceback at a user.

    Parameters
    ----------
    what : one sentence, what is wrong.
    where : the file, option or field it is wrong in.
    expected, received : what was wanted and what was there.
    todo : what to do next.
    """

    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        expected: object = None,
        received: object = None,
        todo: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.expected = expected
        self.received = received
        self.todo = todo

    def lines(self) -> list[str]:
        """The message, a line for each part that is known; what a part has in indented lines goes on below it.

        Whoever prints them makes each visible, newlines included: nothing in a part begins a line.
        """
        parts = (
            ("where", self.where),
            ("expected", self.expected),
            ("received", self.received),
            ("to do", self.todo),
        )
        said = [_GOES_ON.split(f"  {name + ':':<10}{value}") for name, value in parts if value is not None]
        return [self.what, *(line for first, *others in said for line in (first, *(_MARGIN + one for one in others)))]

    def __str__(self) -> str:
        """The message, for a log or a traceback: see :meth:`lines`."""
        return "\n".join(self.lines())


class InputError(FeatstoreError, ValueError):
    """Wrong usage or bad input (exit code 2)."""


class DamageError(FeatstoreError):
    """A check found damage, or an image was rejected under ``on_error="fail"`` (exit code 1)."""

    exit_code = 1


class ReadOnlyError(FeatstoreError, PermissionError):
    """No permission to read or write, or a read-only place (exit code 3)."""

    exit_code = 3


class NoSpaceError(FeatstoreError, OSError):
    """The disk or quota is full (exit code 4)."""

    exit_code = 4


class StorageError(FeatstoreError, OSError):
    """Any other failure of the disk: an I/O error, a file too large for the file system (exit code 1)."""

    exit_code = 1


class Interrupted(FeatstoreError):
    """The person stopped the run; what was finished is kept (exit code 130)."""

    exit_code = 130


_WRONG = {
    errno.ENOENT: "name a place that exists",
    errno.ENOTDIR: "name a place that exists: a file is where a folder should be",
    errno.EISDIR: "name a file: a folder is there",
    errno.EEXIST: "move away what has this name, or name another place",
    errno.ENAMETOOLONG: "name it in fewer letters",
}
"""What to do about a place that can never do."""

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def from_os_error(error: OSError, doing: str, where: str | Path) -> FeatstoreError:
    """The typed error for an OSError met while ``doing`` (an infinitive: "write a segment")."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return NoSpaceError(
            f"cannot {doing}: {reason}",
            where=where,
            todo="free some space (`featstore store ls` shows what is stored) and run the same command again: "
            "everything committed so far is kept",
        )
    if error.errno in _FORBIDDEN:
        return ReadOnlyError(
            f"cannot {doing}: {reason}",
            where=where,
            todo="get the permission, or name another place",
        )
    if error.errno in _WRONG:
        return InputError(f"cannot {doing}: {reason}", where=where, todo=_WRONG[error.errno])
    return StorageError(f"cannot {doing}: {reason}", where=where, todo="check the disk and run the same command again")


_SHOWN = 12
"""Names that a message lists; the nearest ones come first in any case."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Up to ``count`` of the ``known`` names that look most like ``name``, best first."""
    by_lower = {k.lower(): k for k in known}
    return [by_lower[m] for m in difflib.get_close_matches(name.lower(), by_lower, n=count, cutoff=0.5)]


def unknown_name(kind: str, name: str, known: Iterable[str], where: str, most: int | None = _SHOWN) -> InputError:
    """The error for a ``name`` that is none of the ``known`` ones, with the nearest of them; ``most`` are listed."""
    names = list(known)
    close = nearest(name, names)
    shown = ", ".join(names[:most]) + (f" and {len(names) - most} more" if most and len(names) > most else "")
    return InputError(
        f"unknown {kind} {name!r}" + (f": did you mean {' or '.join(close)}?" if close else ""),
        where=where,
        expected=f"one of {shown}",
        received=name,
        todo=f"take {close[0]}, if that is what you meant" if close else "choose one of these",
    )
