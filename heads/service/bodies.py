"""The pictures of a request: one file, a zip of them, or lines of JSON. Everything in them is somebody else's."""

from __future__ import annotations

import base64
import binascii
import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request

from featstore.formats import MAX_FILE_BYTES
from featstore.zips import refused_method

MAX_PICTURES = 64
"""Pictures of one request."""

_PICTURE_TYPES = ("application/octet-stream", "application/x-www-form-urlencoded")
"""Beside image/*: what programs say of bytes, and what curl says of any."""

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


async def pictures_of(request: Request) -> list[tuple[str, bytes]]:
    """The pictures of a request, named; raises HTTPException for a body that is not what its type says."""
    kind = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    data = await request.body()
    if kind == "application/zip":
        pictures = await run_in_threadpool(lambda: list(_of_zip(data)))
    elif kind == "application/x-ndjson":
        pictures = await run_in_threadpool(lambda: list(_of_lines(data)))
    elif kind.startswith("image/") or kind in _PICTURE_TYPES:
        pictures = [("picture", data)]
    else:
        raise HTTPException(415, "send a picture, application/zip or application/x-ndjson")
    if not pictures or not data:
        raise HTTPException(400, "there is no picture in this body")
    return [(_text(name), content) for name, content in pictures]


def _text(name: str) -> str:
    """The name as it can be written; JSON may hold half a character."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _of_zip(data: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(entries) > MAX_PICTURES:
                raise HTTPException(413, f"at most {MAX_PICTURES} pictures at once")
            left = MAX_FILE_BYTES
            for entry in entries:
                if refused := refused_method(entry):
                    raise HTTPException(400, f"this zip has an entry {refused}")
                with archive.open(entry) as file:
                    content = file.read(left + 1)
                left -= len(content)
                if left < 0:
                    raise HTTPException(413, f"unpacked, the pictures have more than {MAX_FILE_BYTES} bytes")
                yield entry.filename, content
    except HTTPException:
        raise
    except Exception:  # zipfile raises many kinds on damaged, encrypted and lying archives
        raise HTTPException(400, "this zip cannot be read") from None


def _of_lines(data: bytes) -> Iterator[tuple[str, bytes]]:
    lines = [line for line in data.split(b"\n") if line.strip()]
    if len(lines) > MAX_PICTURES:
        raise HTTPException(413, f"at most {MAX_PICTURES} pictures at once")
    for number, line in enumerate(lines, start=1):
        try:
            item = json.loads(line)
            yield str(item.get("name", f"line {number}")), base64.b64decode(item["image"], validate=True)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
            raise HTTPException(400, f'line {number} is not {{"name": …, "image": base64}}') from None
