"""Files that appear whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from featstore.errors import from_os_error


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
