"""Keras's own weight files: in Keras's cache, or where Keras publishes them."""

from __future__ import annotations

import http.client
import os
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

from featstore.catalog import Backbone
from featstore.errors import NoSpaceError, from_os_error
from featstore.progress import Advance, Progress, silent
from featstore.weights.files import file_hash

CONNECT_SECONDS = 8.0
"""How long a connection may stay silent; there are no further tries, for the next source waits."""

MEGABYTE = 1_000_000

_CHUNK = 1 << 20


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


def keras_file(backbone: Backbone) -> Path:
    """Where Keras keeps its weight file: ``$KERAS_HOME/models``, else ``~/.keras/models``."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home).expanduser() if home else Path.home() / ".keras") / "models" / backbone.weights_file


def has_published_hash(backbone: Backbone, path: Path) -> bool:
    """True if the file has the hash that Keras publishes (always true where it publishes none); raises OSError."""
    expected = backbone.weights_hash
    return expected is None or file_hash(path, "md5" if len(expected) == 32 else "sha256") == expected


def from_keras_cache(backbone: Backbone) -> Path:
    """The file in Keras's cache, its hash checked; raises Unavailable."""
    path = keras_file(backbone)
    try:
        if not has_published_hash(backbone, path):
            raise Unavailable(f"{path} does not have the hash that Keras publishes ({backbone.weights_hash})")
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
    return path


def download(backbone: Backbone, progress: Progress = silent) -> Path:
    """Fetch the file into Keras's cache, its hash checked before it gets its name; raises Unavailable, NoSpaceError."""
    target = keras_file(backbone)
    temporary: Path | None = None
    try:
        request = urllib.request.urlopen(backbone.weights_url, timeout=CONNECT_SECONDS)  # noqa: S310 # a fixed https URL
        with request as response:
            target.parent.mkdir(parents=True, exist_ok=True)
            total = int(response.headers.get("Content-Length") or 0)
            size = f" ({round(total / MEGABYTE)} MB)" if total else ""
            label = f"fetch {backbone.name} weights{size} from Keras"
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
        if received < total or not has_published_hash(backbone, temporary):
            raise Unavailable(f"{backbone.weights_url} gave {received} bytes that are not the published file")
        os.replace(temporary, target)
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and isinstance(from_os_error(error, "", ""), NoSpaceError):
            raise from_os_error(error, "download weights", target) from error
        raise Unavailable(f"{backbone.weights_url}: {getattr(error, 'reason', None) or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return target
