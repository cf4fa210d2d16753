"""A disk that fails on command, inside this process: one system call of all that touch a folder raises an error."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

CALLS = ("open", "write", "fsync", "link", "replace", "unlink", "mkdir")


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

    def _wrap(self, name: str, real: Any) -> Any:
        def call(first: Any, *rest: Any, **options: Any) -> Any:
            if self._concerns(first):
                number = self.counts[name] if self._name else self.counts.total()
                self.counts[name] += 1
                if (name == self._name and number == self._at) or (not self._name and 0 <= self._at <= number):
                    self.failed = True
                    self._fail(first, name)
            return real(first, *rest, **options)

        return call

    def _fail(self, first: Any, name: str) -> None:
        raise OSError(self._code, os.strerror(self._code), None if name in ("write", "fsync") else os.fspath(first))

    def _concerns(self, first: Any) -> bool:
        if isinstance(first, int):
            try:
                path = os.readlink(f"/proc/self/fd/{first}")
            except OSError:
                return False
        else:
            path = os.fsdecode(first)
        return path == self._folder or path.startswith(self._folder + os.sep)
