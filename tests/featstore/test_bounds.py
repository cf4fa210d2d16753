"""Every limit: what keeps to it is decoded, and what does not is refused before Pillow has seen it, or at once."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable
from typing import NoReturn

import numpy as np
import pytest
from PIL import Image

from featstore import bounds, decode
from featstore.records import Reason, Rejected
from featstore.spec import PixelSpec
from tests.featstore.picture_files import (
    COMMENT,
    bmp_of_runs,
    encoded,
    gif_with,
    jpeg_announcing,
    jpeg_of_scans,
    jpeg_with,
    photograph,
    png_announcing,
    png_chunk,
    png_of_pieces,
    png_with,
    segment,
    turned,
    webp_of_frames,
    webp_with,
)


def pixels(data: bytes) -> np.ndarray:
    return decode.decode(data, [PixelSpec((4, 4), "nearest")])[0]


def reason_for(data: bytes) -> Reason:
    with pytest.raises(Rejected) as caught:
        pixels(data)
    return caught.value.reason


@pytest.fixture
def unopened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow must not be asked."""

    def fail(_data: io.BytesIO) -> NoReturn:
        pytest.fail("opened")

    for name in decode._OPENERS:
        monkeypatch.setitem(decode._OPENERS, name, fail)


class TestSize:
    def test_too_many_pixels_are_refused_before_memory_is_taken(self) -> None:
        started = time.perf_counter()
        assert reason_for(png_announcing(bounds.MAX_PIXELS // 5000 + 1, 5000)) == Reason.TOO_MANY_PIXELS
        assert reason_for(png_announcing(2**31 - 1, 2**31 - 1)) == Reason.TOO_MANY_PIXELS
        assert time.perf_counter() - started < 10  # seconds; a millisecond on an idle machine

    def test_a_picture_at_the_limit_is_not_refused_for_its_size(self) -> None:
        assert reason_for(png_announcing(bounds.MAX_PIXELS // 5000, 5000)) != Reason.TOO_MANY_PIXELS

    @pytest.mark.parametrize("size", [(bounds.MAX_SIDE, 1), (1, bounds.MAX_SIDE)])
    def test_a_row_or_column_may_be_as_long_as_in_a_jpeg(self, size: tuple[int, int]) -> None:
        assert pixels(encoded(Image.new("RGB", size))).shape == (4, 4, 3)
        longer = size[0] + (size[0] > 1), size[1] + (size[1] > 1)
        assert reason_for(encoded(Image.new("RGB", longer))) == Reason.TOO_MANY_PIXELS

    def test_a_file_over_the_limit_is_refused(self, unopened: None, monkeypatch: pytest.MonkeyPatch) -> None:
        data = encoded(photograph())
        monkeypatch.setattr(bounds, "MAX_FILE_BYTES", len(data) - 1)
        assert reason_for(data) == Reason.FILE_TOO_LARGE

    @pytest.mark.parametrize("alpha", [False, True])
    @pytest.mark.parametrize("lossless", [False, True])
    def test_a_webp_canvas_is_measured_before_libwebp_opens_it(
        self, alpha: bool, lossless: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        image = Image.new("RGBA" if alpha else "RGB", (300, 200), 1)
        data = encoded(image, "WEBP", lossless=lossless, exif=b"Exif\0\0" if alpha else b"")
        monkeypatch.setattr(bounds, "MAX_PIXELS", 300 * 200)
        assert pixels(data).shape == (4, 4, 3)
        monkeypatch.setattr(bounds, "MAX_PIXELS", 300 * 200 - 1)
        monkeypatch.setitem(decode._OPENERS, "WEBP", lambda _: pytest.fail("opened"))
        assert reason_for(data) == Reason.TOO_MANY_PIXELS

    def test_all_copies_of_a_webp_and_its_file_are_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data = webp_with(0, (300, 200))
        monkeypatch.setattr(bounds, "MAX_BYTES", 300 * 200 * 18 + 2 * len(data))
        assert pixels(data).shape == (4, 4, 3)
        assert reason_for(webp_with(1, (300, 200))) == Reason.TOO_MANY_PIXELS

    @pytest.mark.parametrize(
        ("mode", "most"), [("CMYK", 42_000_000), ("RGB", bounds.MAX_PIXELS), ("L", bounds.MAX_PIXELS)]
    )
    def test_the_coefficients_of_a_progressive_jpeg_are_counted(self, mode: str, most: int) -> None:
        picture = encoded(photograph().convert(mode), "JPEG", progressive=True)
        bounds.check_file(jpeg_announcing(1000, most // 1000, picture))
        with pytest.raises(Rejected) as caught:
            bounds.check_file(jpeg_announcing(1000, most // 1000 + 1000, picture))
        assert caught.value.reason == Reason.TOO_MANY_PIXELS

    def test_so_are_those_of_a_baseline_jpeg_of_several_scans(self) -> None:
        data = jpeg_announcing(1000, 49_000, encoded(photograph().convert("CMYK"), "JPEG"))
        bounds.check_file(data)
        at = data.index(b"\xff\xda")
        with pytest.raises(Rejected):
            bounds.check_file(data[:at] + segment(0xDA, b"\1\1\0\0\x3f\0") + data[at:])


PARTS: dict[str, tuple[Callable[[int], bytes], int]] = {
    "chunks of a png": (lambda count: png_with(png_chunk(b"teXt", b"") * (count - 3)), bounds.MAX_CHUNKS),
    "pieces of a png's pixels": (lambda count: png_of_pieces(count - 2), bounds.MAX_CHUNKS),
    "chunks of a webp": (lambda count: webp_with(count - 2), bounds.MAX_CHUNKS),
    "frames of a webp": (lambda count: webp_of_frames(count - 1), bounds.MAX_CHUNKS // 2),
    "chunks in a frame of a webp": (lambda count: webp_of_frames(1, count - 4), bounds.MAX_CHUNKS),
    "texts of a png": (
        lambda count: png_with(png_chunk(b"zTXt", b"\0\0" + zlib.compress(bytes(2**20), 9)) * count), 16,
    ),
    "profiles of a png": (
        lambda count: png_with(png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**20), 9)) * count), 16,
    ),
    "plain text of a png": (
        lambda count: png_with(png_chunk(b"tEXt", b"a\0" + b"b" * (count - 2))), bounds.MAX_NOTES,
    ),
    "exif of a png": (lambda count: png_with(png_chunk(b"eXIf", bytes(count))), bounds.MAX_NOTES),
    "other chunks of a png": (
        lambda count: png_with(png_chunk(b"teXt", bytes(count - 13 - 2**20)), png_chunk(b"abCd", bytes(2**20))),
        bounds.MAX_PNG_OTHERS,
    ),
    "comments in a jpeg": (lambda count: jpeg_with(COMMENT * (count - _SEGMENTS)), bounds.MAX_JPEG_SEGMENTS),
    "bytes before a jpeg's scan": (
        lambda count: jpeg_with(segment(0xE5, bytes(2**16 - 2**10 - 3)) * count),
        bounds.MAX_JPEG_HEADER // (2**16 - 2**10),
    ),
    "scans of a jpeg": (lambda count: jpeg_of_scans(count, photograph()), bounds.MAX_JPEG_SCANS),
}  # fmt: skip
_SEGMENTS = 9
"""How many segments a baseline JPEG of Pillow has, its first scan included."""


@pytest.mark.parametrize(("make", "most"), PARTS.values(), ids=PARTS)
def test_a_picture_has_as_many_parts_as_it_may(make: Callable[[int], bytes], most: int) -> None:
    assert pixels(make(most)).shape == (4, 4, 3)


@pytest.mark.parametrize(("make", "most"), PARTS.values(), ids=PARTS)
@pytest.mark.usefixtures("unopened")
def test_with_one_more_it_is_refused_unopened(make: Callable[[int], bytes], most: int) -> None:
    reason = Reason.TOO_MANY_SCANS if make is PARTS["scans of a jpeg"][0] else Reason.CORRUPT
    assert reason_for(make(most + 1)) == reason


STEPS: dict[str, Callable[[int], bytes]] = {
    "empty comments of a gif": lambda reads: gif_with(b"!\xfe\0" * (reads // 3)),
    "a long comment of a gif": lambda reads: gif_with(b"!\xfe" + b"\1a" * (reads // 2) + b"\0"),
    "other blocks of a gif": lambda reads: gif_with(b"!\1" + b"\1a" * (reads // 2) + b"\0"),
    "nothing in a gif": lambda reads: gif_with(b"\0" * reads),
    "nothing in a jpeg": lambda reads: jpeg_with(b"\0" * reads, at=b"\xff\xdb"),
    "fill bytes in a jpeg": lambda reads: jpeg_with(b"\xff" * reads),
    "markers alone in a jpeg": lambda reads: jpeg_with(b"\xff\xd0" * (reads // 2)),
}


@pytest.mark.parametrize("make", STEPS.values(), ids=STEPS)
def test_pillow_goes_so_many_steps_through_a_file_and_no_further(make: Callable[[int], bytes]) -> None:
    assert pixels(make(bounds.MAX_READS - 200)).shape == (4, 4, 3)
    started = time.process_time()
    assert reason_for(make(20 * bounds.MAX_READS)) == Reason.CORRUPT
    assert time.process_time() - started < 5  # seconds; 0.1 on an idle machine


class TestJpeg:
    @pytest.mark.parametrize(("width", "scans"), [(1000, 100), (8000, 100), (20_000, 40), (50_000, 16)])
    def test_the_larger_a_picture_the_fewer_scans_it_may_have(self, width: int, scans: int) -> None:
        data = jpeg_announcing(width, 1000, jpeg_of_scans(scans, photograph()))
        bounds.check_file(data)
        data = jpeg_announcing(width, 1000, jpeg_of_scans(scans + 1, photograph()))
        with pytest.raises(Rejected, match=f"more than {scans} JPEG scans") as caught:
            bounds.check_file(data)
        assert caught.value.reason == Reason.TOO_MANY_SCANS

    def test_scans_are_not_counted_in_thumbnails_nor_behind_the_picture(self) -> None:
        plain = encoded(photograph(), "JPEG")
        scans = b"\xff\xda\0\2" * (bounds.MAX_JPEG_SCANS + 1)
        assert (pixels(jpeg_with(segment(0xE7, scans), picture=plain)) == pixels(plain)).all()
        assert (pixels(plain + b"\0\2" + scans) == pixels(plain)).all()

    def test_fill_bytes_before_a_later_scan_are_refused_where_they_would_take_for_ever(self) -> None:
        plain = encoded(photograph(), "JPEG", progressive=True)
        at = plain.rindex(b"\xff\xda")
        assert (pixels(plain[:at] + b"\xff" * 2**18 + plain[at:]) == pixels(plain)).all()
        started = time.process_time()
        assert reason_for(plain[:at] + b"\xff" * 2**25 + plain[at:]) == Reason.CORRUPT
        assert time.process_time() - started < 5  # seconds; 0.05 on an idle machine

    def test_behind_the_picture_there_may_be_any(self) -> None:
        plain = encoded(photograph(), "JPEG")
        assert (pixels(plain + b"\xff" * 2**21) == pixels(plain)).all()

    @pytest.mark.parametrize("end", [b"", b"\0", b"\xd0"])
    def test_fill_bytes_that_lead_to_no_marker_are_passed_in_one_go(self, end: bytes) -> None:
        started = time.process_time()
        assert reason_for(jpeg_with(b"\xff" * 2**23 + end)) == Reason.CORRUPT
        assert reason_for(b"\xff\xd8" + b"\xff" * 2**23 + end) == Reason.CORRUPT
        assert time.process_time() - started < 5  # seconds; 0.2 on an idle machine

    @pytest.mark.usefixtures("unopened")
    def test_a_second_frame_is_refused(self) -> None:
        plain = encoded(photograph(), "JPEG")
        at = plain.index(b"\xff\xc0")
        frame = plain[at : at + 2 + int.from_bytes(plain[at + 2 : at + 4], "big")]
        assert reason_for(jpeg_with(frame, at=b"\xff\xc4", picture=plain)) == Reason.CORRUPT

    @pytest.mark.parametrize("cut", range(2, 700, 37))
    def test_a_jpeg_without_its_end_is_still_told_by_pillow(self, cut: int) -> None:
        bounds.check_file(encoded(photograph(), "JPEG", exif=turned())[:cut] + b"\xff" * (cut < 3))


class TestPng:
    @pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
    def test_a_bomb_in_the_notes_is_refused(self, kind: bytes) -> None:
        assert reason_for(png_with(png_chunk(kind, b"a\0\0" + zlib.compress(bytes(50_000_000), 9)))) == Reason.CORRUPT

    def test_what_lies_behind_the_end_is_not_counted(self) -> None:
        plain = png_with()
        assert (pixels(plain + png_chunk(b"teXt", b"") * bounds.MAX_CHUNKS) == pixels(plain)).all()

    def test_small_compressed_texts_are_counted_by_what_they_can_hold(self) -> None:
        text = png_chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a few words"))
        assert pixels(png_with(text * 500)).shape == (4, 4, 3)


class TestBmp:
    def test_runs_are_unpacked_up_to_a_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data = bmp_of_runs(20, 10, b"\x14\1\0\0" * 10 + b"\0\1")
        monkeypatch.setattr(bounds, "MAX_RUNS", 200 + len(data))
        assert (pixels(data) == (1, 2, 3)).all()
        monkeypatch.setattr(bounds, "MAX_RUNS", 199 + len(data))
        assert reason_for(data) == Reason.TOO_MANY_PIXELS

    def test_pixels_one_by_one_are_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bounds, "MAX_RUNS", 0)
        assert pixels(encoded(photograph(), "BMP")).shape == (4, 4, 3)


def test_a_webp_shorter_than_it_says_is_truncated() -> None:
    data = webp_with(0)
    assert reason_for(data[:4] + struct.pack("<I", len(data) - 7) + data[8:]) == Reason.TRUNCATED
