"""What comes in: pictures in every form that is taken, and everything that only says it is one."""

from __future__ import annotations

import asyncio
import json
import random
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from featstore.formats import MAX_FILE_BYTES
from heads.service import bodies as module
from heads.service.bodies import MAX_PICTURES, pictures_of
from tests.heads.service.conftest import line, zipped


def pictures(body: bytes, kind: str | None = None) -> list[tuple[str, bytes]]:
    """The pictures of a request with this body; ``kind`` is its type."""
    return list(taken_out(body, kind))


def taken_out(
    body: bytes, kind: str | None, hold: Callable[[int], object] = lambda _: None
) -> Iterator[tuple[str, bytes]]:
    """The same one after another; ``hold`` is told what is held beside the body."""

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [] if kind is None else [(b"content-type", kind.encode())]
    scope = {"type": "http", "method": "POST", "headers": headers, "state": {"hold": hold}}
    return asyncio.run(pictures_of(Request(scope, receive)))


@pytest.mark.parametrize(
    "kind",
    [None, "image/png", "IMAGE/JPEG; q=1", "application/octet-stream", "application/x-www-form-urlencoded"],
)
def test_a_body_of_any_such_type_is_one_picture(kind: str | None) -> None:
    assert pictures(b"bytes", kind) == [("picture", b"bytes")]


def test_a_zip_holds_pictures_in_its_order_and_folders_are_none() -> None:
    body = zipped(**{"b.png": b"1", "folder/": b"", "folder/a.png": b"2", "empty.png": b""})
    assert pictures(body, "application/zip") == [("b.png", b"1"), ("folder/a.png", b"2"), ("empty.png", b"")]


def test_what_a_system_left_in_a_zip_is_no_picture() -> None:
    body = zipped(**{"a.png": b"1", "__MACOSX/._a.png": b"2", ".DS_Store": b"3", "folder/Thumbs.db": b"4"})
    assert pictures(body, "application/zip") == [("a.png", b"1")]


def test_lines_hold_a_picture_each_and_those_without_a_name_are_numbered() -> None:
    body = line("b.png", b"1") + "\n" + json.dumps({"image": ""}) + "\n" + json.dumps({"name": 7, "image": "eA=="})
    found = pictures(body.encode(), "application/x-ndjson; charset=utf-8")
    assert found == [("b.png", b"1"), ("line 2", b""), ("7", b"x")]


def test_of_lines_what_it_takes_to_read_the_longest_counts_beside_the_body() -> None:
    held: list[int] = []
    long = line("b.png", bytes(30_000))
    assert len(list(taken_out((line("a.png", b"1") + long).encode(), "application/x-ndjson", held.append))) == 2
    assert held == [3 * (len(long) - 1)]


def test_a_name_that_is_null_is_none() -> None:
    assert pictures(b'{"name": null, "image": "eA=="}', "application/x-ndjson") == [("line 1", b"x")]


def test_a_name_with_half_a_character_can_be_written() -> None:
    [(name, _)] = pictures(b'{"name": "\\ud800.png", "image": "eA=="}', "application/x-ndjson")
    assert name == "\\ud800.png"


def test_of_a_zip_one_picture_is_unpacked_at_a_time_and_the_largest_counts_as_held() -> None:
    held: list[int] = []
    body = zipped(**{f"{number}.png": bytes(2**20) for number in range(32)}, larger=bytes(2**21))
    tracemalloc.start()
    try:
        found = [len(data) for _, data in taken_out(body, "application/zip", held.append)]
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == [2**20] * 32 + [2**21]
    assert held == [2**21]
    assert most < 8 * 2**20


def test_a_zip_of_very_many_entries_is_refused_before_its_list_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    body = zipped(**{f"__MACOSX/{number}": b"" for number in range(1000)})
    monkeypatch.setattr(module.zipfile, "ZipFile", None)  # calling it would be another error
    with pytest.raises(HTTPException) as refused:
        pictures(body, "application/zip")
    assert refused.value.status_code == 413


def test_an_entry_that_is_longer_than_it_says_is_not_unpacked_to_its_end() -> None:
    size = 64 * 2**20
    body = zipped(**{"a.png": bytes(size)}).replace(struct.pack("<L", size), struct.pack("<L", 10))
    tracemalloc.start()
    try:
        with pytest.raises(HTTPException, match="cannot be read"):
            pictures(body, "application/zip")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 4 * 2**20


def test_of_very_many_lines_no_more_are_looked_at_than_there_may_be() -> None:
    body = b"xx\n" * 2**21
    tracemalloc.start()
    try:
        with pytest.raises(HTTPException) as refused:
            pictures(body, "application/x-ndjson")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refused.value.status_code == 413
    assert most < 2 * len(body)


@pytest.mark.parametrize("body", [b"[" + b"[]," * 10**6 + b"[]]", b'{"image": "' + rb"\u4e2d" * 10**6 + b'"}'])
def test_a_line_that_is_not_mostly_base64_is_refused_before_it_is_parsed(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.json, "loads", lambda _: pytest.fail("it was parsed"))
    with pytest.raises(HTTPException, match="line 1 is not"):
        pictures(body, "application/x-ndjson")


@pytest.mark.parametrize(("sign", "escaped"), [("/", r"\/"), ("+", r"\u002B")])
def test_programs_may_escape_what_others_do_not(sign: str, escaped: str) -> None:
    data = random.Random(0).randbytes(300_000)
    [(name, found)] = pictures(line("a.png", data).replace(sign, escaped).encode(), "application/x-ndjson")
    assert (name, found) == ("a.png", data)


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
        ("application/zip", zipped(**{str(n) + "x" * 50_000: b"x" for n in range(6)}), 413),
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
