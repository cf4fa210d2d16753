"""Waiting for what another thread or process is to bring about."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until it holds; a test in which it does not fails."""
    stop = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < stop, "it does not come about"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether a process runs, where /proc tells it; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
