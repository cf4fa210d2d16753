from __future__ import annotations

import pytest

from featstore.formats import DECODED, has_image_ending, picture_format


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"\x89PNG\n\n\x1a\n", "PNG"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "WEBP"),
        (b"BM" + bytes(12) + b"\x28\0\0\0", "BMP"),
        (b"GIF89a", "GIF"),
        (b"II*\0", "TIFF"),
        (b"\0\0\0\x20ftypavif", "AVIF"),
        (b"\0\0\0\x20ftypheic", "HEIC"),
        (b"P6\n3 3", "PNM"),
        (b"\0\0\0\0\x11\xaf", "FLI"),
    ],
)
def test_a_picture_is_known_by_its_first_bytes(head: bytes, name: str) -> None:
    assert picture_format(head) == name


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"B",
        b"BM",
        b"BMW is a maker of cars",
        b"RIFF\0\0\0\0WAVE",
        b"\0\0\0\x20ftypmp42",
        b"PK\3\4",
        b"P6",
        b"PS\n",
        b"id,label\n",
    ],
)
def test_what_is_no_picture_has_no_format(head: bytes) -> None:
    assert picture_format(head) is None


def test_endings_are_known_in_any_case_and_only_at_the_end() -> None:
    assert has_image_ending("a/b.c/cat.JPG")
    assert has_image_ending(".jpg")
    assert not has_image_ending("jpg")
    assert not has_image_ending("cat.jpg.txt")
    assert not has_image_ending("pictures.png/notes")


def test_every_decoded_format_is_one_that_can_be_recognised() -> None:
    assert set(DECODED) == {"JPEG", "PNG", "WEBP", "BMP", "GIF"}
