"""Files that appear whole or not at all, whatever happens while they are written; and how files that anybody may have
laid there are read: without waiting, and without taking more memory than they may.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from featstore.errors import from_os_error

_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}", re.DOTALL)


def write_whole(path: Path, action: str, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Put a file in its place, and its folder if that is missing, once all of it is on the disk.

    content : its bytes, or what writes them. A file that is there is replaced. ``action`` is what is being done, for
    people: "keep a checkpoint". Raises ReadOnlyError, NoSpaceError or StorageError.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(content) if isinstance(content, bytes) else content(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise from_os_error(error, action, path) from error
    finally:
        with suppress(OSError):
            os.unlink(temporary)


def is_unfinished(name: str) -> bool:
    """Whether a file is called as :func:`write_whole` calls one that is not whole yet: a kill may leave it behind."""
    return _UNFINISHED.fullmatch(name) is not None


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading, and never wait for a pipe. Raises OSError, or ValueError if it is not a regular file."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("it is not a regular file")
        return open(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_small(path: Path, most: int) -> bytes:
    """All of a regular file of ``most`` bytes or fewer. Raises OSError, or ValueError for any other file."""
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most} bytes")
    return content
