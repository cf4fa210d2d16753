"""Keras's own weight files: in Keras's cache, or where Keras publishes them."""

from __future__ import annotations

import http.client
import os
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from featstore.errors import NoSpaceError, from_os_error
from featstore.folders import expanded
from featstore.progress import Advance, Progress, silent
from featstore.weights.files import file_hash

CONNECT_SECONDS = 8.0
"""How long a connection may stay silent; there are no further tries, for the next source waits."""

MEGABYTE = 1_000_000

_CHUNK = 1 << 20


class KerasFile(Protocol):
    """A file that Keras publishes, told of as a Backbone tells of its weights."""

    @property
    def name(self) -> str:
        """What it is of, for people."""

    @property
    def weights_file(self) -> str:
        """Its name in Keras's cache."""

    @property
    def weights_url(self) -> str:
        """Where it is published."""

    @property
    def weights_hash(self) -> str | None:
        """MD5 or SHA-256 in hex, if published."""


class Unavailable(Exception):
    """A source does not have the weights; the text says why."""


def in_megabytes(advance: Advance) -> Callable[[int], None]:
    """What takes the number of bytes that are there so far, and advances by whole megabytes."""
    shown = 0

    def show(received: int) -> None:
        nonlocal shown
        now = max(shown, round(received / MEGABYTE))
        advance(now - shown)
        shown = now

    return show


def keras_file(wanted: KerasFile) -> Path:
    """Where Keras keeps it: ``$KERAS_HOME/models``, else ``~/.keras/models``."""
    home = os.environ.get("KERAS_HOME")
    return expanded(home or "~/.keras") / "models" / wanted.weights_file


def has_published_hash(wanted: KerasFile, path: Path) -> bool:
    """True if the file has the hash that Keras publishes (always true where it publishes none); raises OSError."""
    expected = wanted.weights_hash
    return expected is None or file_hash(path, "md5" if len(expected) == 32 else "sha256") == expected


def from_keras_cache(wanted: KerasFile) -> Path:
    """The file in Keras's cache, its hash checked; raises Unavailable."""
    path = keras_file(wanted)
    try:
        path.stat()  # where no hash is published, nothing else would miss the file
        if not has_published_hash(wanted, path):
            raise Unavailable(f"{path} does not have the hash that Keras publishes ({wanted.weights_hash})")
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
    return path


def download(wanted: KerasFile, progress: Progress = silent, what: str = "weights") -> Path:
    """Fetch the file into Keras's cache, its hash checked before it gets its name; raises Unavailable, NoSpaceError."""
    target = keras_file(wanted)
    temporary: Path | None = None
    try:
        request = urllib.request.urlopen(wanted.weights_url, timeout=CONNECT_SECONDS)  # noqa: S310 # a fixed https URL
        with request as response:
            target.parent.mkdir(parents=True, exist_ok=True)
            total = int(response.headers.get("Content-Length") or 0)
            size = f" ({round(total / MEGABYTE)} MB)" if total else ""
            label = f"fetch {wanted.name} {what}{size} from Keras"
            received = 0
            with (
                tempfile.NamedTemporaryFile(dir=target.parent, prefix=".", suffix=".part", delete=False) as file,
                progress(label, round(total / MEGABYTE), "MB") as advance,
            ):
                temporary, show = Path(file.name), in_megabytes(advance)
                while chunk := response.read(_CHUNK):
                    file.write(chunk)
                    received += len(chunk)
                    show(received)
        if received < total or not has_published_hash(wanted, temporary):
            raise Unavailable(f"{wanted.weights_url} gave {received} bytes that are not the published file")
        os.replace(temporary, target)
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and isinstance(from_os_error(error, "", ""), NoSpaceError):
            raise from_os_error(error, f"download {what}", target) from error
        raise Unavailable(f"{wanted.weights_url}: {getattr(error, 'reason', None) or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return target
