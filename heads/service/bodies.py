"""The pictures of a request: one file, a zip of them, or lines of JSON. Everything in them is somebody else's."""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
import string
import zipfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request

from featstore.dataset.listing import is_clutter
from featstore.formats import MAX_FILE_BYTES
from featstore.zips import check_directory, refused_method

MAX_PICTURES = 64
"""Pictures of one request."""

_MAX_ENTRIES = 4 * MAX_PICTURES
"""Of a zip, folders and what systems leave behind included."""

_MAX_DIRECTORY_BYTES = 1024 * _MAX_ENTRIES
"""Of a zip: their names."""

_LINE = re.compile(rb"\S[^\n]*")
_BASE64 = (string.ascii_letters + string.digits + "+/=").encode()
_MOST_ELSE = 16 * 2**10
"""Bytes of a line that are not in base64's alphabet; one in 32 more, as some programs escape its slashes or plus signs.
Each of them may be an object in memory.
"""

_PICTURE_TYPES = ("application/octet-stream", "application/x-www-form-urlencoded")
"""Beside image/*: what programs say of bytes, and what curl says of any."""

_COPIES = 3
"""Of a line while it is read: itself, its text, and the picture in it."""

_BYTES = {"type": "string", "format": "binary"}

BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "One picture file; or several, as a zip, or as lines of JSON with `name` and `image` (base64).",
        "content": {
            "application/octet-stream": {"schema": _BYTES, "example": "the bytes of cat.jpg"},
            "image/*": {"schema": _BYTES, "example": "the bytes of cat.jpg"},
            "application/zip": {"schema": _BYTES, "example": "the bytes of a zip of cat.jpg and dog.png"},
            "application/x-ndjson": {
                "schema": {"type": "string"},
                "example": '{"name": "cat.jpg", "image": "/9j/4AAQSkZJRg…"}\n',
            },
        },
    }
}
"""How the reference tells of it."""


async def pictures_of(request: Request) -> Iterator[tuple[str, bytes]]:
    """The pictures of a request, named, each taken out of its body when it is asked for.

    Raises HTTPException for a body that is not what its type says, here or when that is noticed.
    """
    kind = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    data = await request.body()
    pictures: Iterator[tuple[str, bytes]]
    found: Sequence[Any] = [data]
    if kind == "application/zip":
        archive, found = await run_in_threadpool(_opened, data)
        request.state.hold(max((entry.file_size for entry in found), default=0))
        pictures = _of_zip(archive, found)
    elif kind == "application/x-ndjson":
        found = await run_in_threadpool(_lines, data)
        request.state.hold(_COPIES * max((line.end() - line.start() for line in found), default=0))
        pictures = _of_lines(found)
    elif kind.startswith("image/") or kind in _PICTURE_TYPES:
        pictures = iter([("picture", data)])
    else:
        raise HTTPException(415, "send a picture, application/zip or application/x-ndjson")
    if not found or not data:
        raise HTTPException(400, "there is no picture in this body")
    return ((_text(name), content) for name, content in pictures)


def _text(name: str) -> str:
    """The name as it can be written; JSON may hold half a character."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _opened(data: bytes) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
    """A zip, and its entries that are pictures: no more, no larger and not otherwise packed than they may be."""
    file = io.BytesIO(data)
    try:
        _check_directory(file)
        archive = zipfile.ZipFile(file)
    except HTTPException:
        raise
    except Exception:  # zipfile raises many kinds on damaged and lying archives
        raise _unreadable() from None
    entries = [entry for entry in archive.infolist() if not (entry.is_dir() or _is_clutter(entry.filename))]
    if len(entries) > MAX_PICTURES:
        raise HTTPException(413, f"at most {MAX_PICTURES} pictures at once")
    if sum(entry.file_size for entry in entries) > MAX_FILE_BYTES:
        raise HTTPException(413, f"unpacked, the pictures have more than {MAX_FILE_BYTES} bytes")
    if refused := next(filter(None, map(refused_method, entries)), None):
        raise HTTPException(400, f"this zip has an entry {refused}")
    return archive, entries


def _check_directory(file: io.BytesIO) -> None:
    try:
        check_directory(file, _MAX_ENTRIES, _MAX_DIRECTORY_BYTES)
    except ValueError as error:
        raise HTTPException(413, f"this zip holds too much: {error}") from None


def _unreadable() -> HTTPException:
    return HTTPException(400, "this zip cannot be read")


def _is_clutter(path: str) -> bool:
    """Whether it lies, or is in a folder, that a system leaves behind (``__MACOSX``); as in a dataset."""
    return any(is_clutter(part) for part in PurePosixPath(path).parts if part != "..")


def _of_zip(archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo]) -> Iterator[tuple[str, bytes]]:
    for entry in entries:
        try:
            with archive.open(entry) as file:
                content = file.read(entry.file_size + 1)  # without a number, it would unpack all that there is
        except Exception:  # of an entry that is damaged or encrypted, too
            raise _unreadable() from None
        yield entry.filename, content


def _lines(data: bytes) -> list[re.Match[bytes]]:
    """Where the lines are that hold something."""
    lines = list(islice(_LINE.finditer(data), MAX_PICTURES + 1))
    if len(lines) > MAX_PICTURES:
        raise HTTPException(413, f"at most {MAX_PICTURES} pictures at once")
    return lines


def _of_lines(lines: Sequence[re.Match[bytes]]) -> Iterator[tuple[str, bytes]]:
    for number, line in enumerate(lines, start=1):
        try:
            picture = _of_line(line.group(), f"line {number}")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
            raise HTTPException(400, f'line {number} is not {{"name": …, "image": base64}}') from None
        yield picture


def _of_line(line: bytes, usual_name: str) -> tuple[str, bytes]:
    """The picture in a line of JSON, of which most must be base64; raises many kinds."""
    if len(line.translate(None, _BASE64)) > _MOST_ELSE + len(line) // 32:
        raise ValueError("there is more than a picture")
    item = json.loads(line)
    name = item.get("name")
    return usual_name if name is None else str(name), base64.b64decode(item["image"], validate=True)
