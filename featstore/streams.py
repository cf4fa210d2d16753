"""The streams that a process was started with, made fit to be used: one may be closed, or lead to a full disk.

Imports nothing of ours.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any


def prepare_streams() -> None:
    """Have all three streams, a closed one as ``/dev/null``; messages that cannot be written are lost.

    Daemons and scripts of cron start programs with closed streams; the first files that are opened would take their
    numbers, and get what libraries print. And what is said on stderr matters less than what is done: a log on a full
    disk ends no run. Results on stdout that cannot be written are an error as ever.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in the order of their numbers
        if getattr(sys, name) is None:
            null = open(os.devnull, mode)  # noqa: SIM115 - as long as the process; it takes the lowest number
            os.set_inheritable(null.fileno(), True)
            setattr(sys, name, null)
            setattr(sys, f"__{name}__", null)  # which keeps it open
    log = io.BufferedWriter(_Forgiving(sys.stderr.fileno(), "wb", closefd=False))
    sys.stderr = io.TextIOWrapper(log, sys.stderr.encoding, errors="backslashreplace", line_buffering=True)


class _Forgiving(io.FileIO):
    """A file that takes everything, be it lost. That its reader has gone away is told as ever."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError:
            return len(data)
