"""What comes in: pictures in every form that is taken, and everything that only says it is one."""

from __future__ import annotations

import asyncio
import json
import zipfile

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from featstore.formats import MAX_FILE_BYTES
from heads.service.bodies import MAX_PICTURES, pictures_of
from tests.heads.service.conftest import line, zipped


def pictures(body: bytes, kind: str | None = None) -> list[tuple[str, bytes]]:
    """The pictures of a request with this body; ``kind`` is its type."""

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [] if kind is None else [(b"content-type", kind.encode())]
    return asyncio.run(pictures_of(Request({"type": "http", "method": "POST", "headers": headers}, receive)))


@pytest.mark.parametrize(
    "kind",
    [None, "image/png", "IMAGE/JPEG; q=1", "application/octet-stream", "application/x-www-form-urlencoded"],
)
def test_a_body_of_any_such_type_is_one_picture(kind: str | None) -> None:
    assert pictures(b"bytes", kind) == [("picture", b"bytes")]


def test_a_zip_holds_pictures_in_its_order_and_folders_are_none() -> None:
    body = zipped(**{"b.png": b"1", "folder/": b"", "folder/a.png": b"2", "empty.png": b""})
    assert pictures(body, "application/zip") == [("b.png", b"1"), ("folder/a.png", b"2"), ("empty.png", b"")]


def test_lines_hold_a_picture_each_and_those_without_a_name_are_numbered() -> None:
    body = line("b.png", b"1") + "\n" + json.dumps({"image": ""}) + "\n" + json.dumps({"name": 7, "image": "eA=="})
    found = pictures(body.encode(), "application/x-ndjson; charset=utf-8")
    assert found == [("b.png", b"1"), ("line 2", b""), ("7", b"x")]


def test_a_name_with_half_a_character_can_be_written() -> None:
    [(name, _)] = pictures(b'{"name": "\\ud800.png", "image": "eA=="}', "application/x-ndjson")
    assert name == "\\ud800.png"


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("text/html", b"x", 415),
        ("multipart/form-data; boundary=x", b"--x", 415),
        ("image/png", b"", 400),
        ("application/zip", b"", 400),
        ("application/zip", b"no zip", 400),
        ("application/zip", zipped(a=b"x")[:-9], 400),
        ("application/zip", zipped(), 400),
        ("application/zip", zipped(zipfile.ZIP_BZIP2, a=b"x"), 400),
        ("application/zip", zipped(zipfile.ZIP_LZMA, a=b"x"), 400),
        ("application/zip", zipped(**{str(n): b"x" for n in range(MAX_PICTURES + 1)}), 413),
        ("application/zip", zipped(bomb=bytes(MAX_FILE_BYTES + 1)), 413),
        ("application/zip", zipped(half=bytes(MAX_FILE_BYTES), more=b"x"), 413),
        ("application/x-ndjson", b"", 400),
        ("application/x-ndjson", b"{", 400),
        ("application/x-ndjson", b'{"name": "x"}', 400),
        ("application/x-ndjson", b'{"image": 7}', 400),
        ("application/x-ndjson", b'{"image": "%%%"}', 400),
        ("application/x-ndjson", b"[" * 100_000, 400),
        ("application/x-ndjson", b"7", 400),
        ("application/x-ndjson", b"\xff\xfe", 400),
        ("application/x-ndjson", b'{"image": "eA=="}\n' * (MAX_PICTURES + 1), 413),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # a zip holds the time: no name of a test
)
def test_a_body_that_is_not_what_it_says_is_refused(kind: str, body: bytes, status: int) -> None:
    with pytest.raises(HTTPException) as refused:
        pictures(body, kind)
    assert refused.value.status_code == status
    assert refused.value.detail
