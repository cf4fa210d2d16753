"""A disk that fails on command, inside this process: one system call of all that touch a folder raises an error."""

from __future__ import annotations

import builtins
import io
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

CALLS = ("open", "write", "fsync", "link", "replace", "unlink", "mkdir")

_OPENING = ((builtins, "open"), (io, "open"), (os, "scandir"), (h5py, "File"))
"""What opens a file or a folder by way of C: it counts as an "open", and what is written to it as a "write"."""

_SCANDIR = os.scandir


class FaultyDisk:
    """Counts the calls of each name that are about ``folder``; the ``at``-th of ``name`` fails with ``code``.

    Without a name all calls from the ``at``-th on fail.
    """

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path, name: str = "", at: int = -1, code: int = 0) -> None:
        self.counts: Counter[str] = Counter()
        self.failed = False
        self._folder = str(folder)
        self._name, self._at, self._code = name, at, code
        for call in CALLS:
            patch.setattr(os, call, self._wrap(call, getattr(os, call)))
        for place, call in _OPENING:
            patch.setattr(place, call, self._opening(getattr(place, call)))

    def _wrap(self, name: str, real: Any) -> Any:
        def call(first: Any, *rest: Any, **options: Any) -> Any:
            if self._concerns(first):
                self._meet(name, first)
            return real(first, *rest, **options)

        return call

    def _opening(self, real: Any) -> Any:
        def call(first: Any = ".", mode: str = "r", *rest: Any, **options: Any) -> Any:
            more = () if real is _SCANDIR else (mode, *rest)
            if isinstance(first, int) or not self._concerns(first):
                return real(first, *more, **options)
            self._meet("open", first)
            found = real(first, *more, **options)
            return _Watched(found, lambda: self._meet("write", first)) if set(mode) & set("wxa+") else found

        return call

    def _meet(self, name: str, first: Any) -> None:
        """Count a call; it fails if it is its turn."""
        number = self.counts[name] if self._name else self.counts.total()
        self.counts[name] += 1
        if (name == self._name and number == self._at) or (not self._name and 0 <= self._at <= number):
            self.failed = True
            self._fail(first, name)

    def _fail(self, first: Any, name: str) -> None:
        raise OSError(self._code, os.strerror(self._code), None if name in ("write", "fsync") else os.fspath(first))

    def _concerns(self, first: Any) -> bool:
        if not isinstance(first, (int, str, bytes, os.PathLike)):
            return False
        if isinstance(first, int):
            try:
                path = os.readlink(f"/proc/self/fd/{first}")
            except OSError:
                return False
        else:
            path = os.fsdecode(first)
        return path == self._folder or path.startswith(self._folder + os.sep)


class _Watched:
    """A file; ``before`` is called before anything is written to it."""

    def __init__(self, file: Any, before: Callable[[], None]) -> None:
        self._file = file
        self._before = before

    def write(self, data: Any) -> Any:
        self._before()
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
