"""Memory that bodies and pictures took goes back to the system."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 64 * 2**10


def give_back_large_blocks() -> None:
    """Let blocks of 64 KiB and more go back to the system once they are free, where glibc would keep them.

    It raises that bound to 32 MiB when such blocks are freed, and then keeps them for each thread (mallopt(3)): some
    large pictures, sent one after another, would leave gigabytes behind. Bodies come in parts of 64 KiB and more.
    """
    if sys.platform.startswith("linux"):
        with suppress(AttributeError):  # another C library than glibc
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
