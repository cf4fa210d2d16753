"""What a picture may cost, told from its file's bytes before any of it is decoded.

Within these limits no picture takes more than 5 seconds or 512 MiB (tests/reliability/test_images.py), each time that
it is decoded: once, or for a JPEG once for each of the draft scales, four at most, that the wanted sizes need. That
cannot be spared, for pixels depend on nothing but the file and the spec; four scales of the costliest picture take 12
seconds. A refused picture has no vector: so none of this is a part of ``spec.DECODE_VERSION``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from featstore.formats import DECODED, HEAD_BYTES, MAX_FILE_BYTES, picture_format
from featstore.records import Reason, Rejected

MAX_PIXELS = 50_000_000
"""The most pixels a picture may announce, checked before any memory is set aside."""

MAX_SIDE = 65_535
"""The most pixels in a row or a column, as in a JPEG: for each row, Pillow keeps a pointer and, while it resizes, a row
of the wanted width."""

MAX_BYTES = 510_000_000
"""The most memory for all copies of a picture that there are at once, for what Pillow keeps beside it, and for what the
file has beyond 20 MB: up to there it has room of its own.
"""

MAX_READS = 400_000
"""How often Pillow may ask for a part of a file: it goes from one chunk, marker or block to the next in Python."""

MAX_CHUNKS = 100_000
"""The most chunks of a PNG or WebP file. The smallest in use, of 1 KiB, make 64 MiB of 65,536."""

MAX_NOTES = 16 * 2**20
"""The most bytes of texts, EXIF and colour profiles in a PNG or WebP file, unpacked."""

MAX_PNG_OTHERS = 16 * 2**20
"""The most bytes of chunks that are neither such notes nor pixels."""

MAX_JPEG_SEGMENTS = 300
MAX_JPEG_HEADER = 16 * 2**20
"""The most segments, and bytes in them, before the first scan of a JPEG. A full one has 64 KiB."""

MAX_JPEG_SCANS = 100
"""Ordinary progressive files have about ten; each costs a pass over the whole picture."""

MAX_SCANNED_PIXELS = 800_000_000
"""Scans of a JPEG times its pixels: 16 scans of the largest picture. Encoders write 10, of CMYK 18."""

MAX_RUNS = 8_000_000
"""The most pixels and bytes of a run-length encoded BMP: Pillow unpacks it in Python."""

_ROOM_FOR_FILE = 20_000_000
_COPIES = 4  # how often Pillow may hold a note or a segment, or how many bytes it may make of one
_PICTURE_AND_COPY = 8  # bytes a pixel: Pillow has four for each, and two pictures while one becomes RGB or upright
_WEBP_COPIES = 18  # libwebp's frame and the one before, the pixels that Pillow takes over, its picture; some between


def check_file(data: bytes) -> str:
    """The name of the format. Raises Rejected for whatever can be refused without a decoder."""
    if not data:
        raise Rejected(Reason.EMPTY_FILE, "the file has no bytes")
    if len(data) > MAX_FILE_BYTES:
        raise Rejected(Reason.FILE_TOO_LARGE, f"{len(data)} bytes, the limit is {MAX_FILE_BYTES}")
    name = picture_format(data[:HEAD_BYTES])
    if name is None:
        raise Rejected(Reason.NOT_AN_IMAGE, f"no picture starts with {data[:8]!r}")
    if name not in DECODED:
        raise Rejected(Reason.UNSUPPORTED_FORMAT, f"{name} is not one of {', '.join(DECODED)}")
    if name == "JPEG":
        _check_jpeg(data)
    elif name == "PNG":
        _check_png(data)
    elif name == "WEBP":
        _check_webp(data)
    return name


def check_size(width: int, height: int, *, per_pixel: int = _PICTURE_AND_COPY, more: int = 0) -> None:
    """Raise Rejected for a picture too large to be decoded with ``per_pixel`` bytes for each pixel and ``more``."""
    most = min(MAX_PIXELS, (MAX_BYTES - more) // per_pixel)
    if width * height > most:
        raise Rejected(Reason.TOO_MANY_PIXELS, f"{width} x {height} pixels, the limit is {most}")
    if max(width, height) > MAX_SIDE:
        raise Rejected(Reason.TOO_MANY_PIXELS, f"{width} x {height} pixels, the limit is {MAX_SIDE} a side")


def check_runs(width: int, height: int, size: int) -> None:
    """Raise Rejected for a run-length encoded BMP of ``size`` bytes that would take too long."""
    if width * height + size > MAX_RUNS:
        raise Rejected(
            Reason.TOO_MANY_PIXELS, f"{width} x {height} pixels and {size} bytes of runs, the limit is {MAX_RUNS}"
        )


_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")  # not a stuffed byte, not a restart marker
_FILL = b"\xff" * 2**19
_END_OF_IMAGE, _START_OF_SCAN = 0xD9, 0xDA
_FRAMES = {*range(0xC0, 0xD0), 0xDE} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_BARE = {0xC8, 0xD8, _END_OF_IMAGE, *range(0xF0, 0xFE)}  # markers without a segment, as Pillow has it


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The markers of a JPEG, without the thumbnails inside its segments: kind, start and end of the segment."""
    position = 2  # behind the start of the image
    while marker := _MARKER.search(data, position):
        kind, start = marker[1][0], marker.end()
        length = 0 if kind in _BARE else max(2, int.from_bytes(data[start : start + 2], "big"))
        position = start + length
        yield kind, start, position


def _check_jpeg(data: bytes) -> None:
    """Refuse a JPEG with too much before its first scan, too large a frame, or too many scans of it."""
    segments = _segments(data)
    frame, has_several_scans, length = _header(data, segments)
    height, width = int.from_bytes(frame[3:5], "big"), int.from_bytes(frame[5:7], "big")
    coefficients = 2 * int.from_bytes(frame[7:8], "big") if has_several_scans else 0  # bytes a pixel: kept to the end
    more = _COPIES * length + max(0, len(data) - _ROOM_FOR_FILE)
    check_size(width, height, per_pixel=max(_PICTURE_AND_COPY, 4 + coefficients), more=more)
    most = min(MAX_JPEG_SCANS, MAX_SCANNED_PIXELS // max(1, width * height))
    if data.count(b"\xff\xda") <= most and not _has_fill(data, len(data)):  # which costs next to nothing
        return
    scans, end = 1, len(data)
    for kind, start, _ in segments:
        if kind == _END_OF_IMAGE:
            end = start
            break
        scans += kind == _START_OF_SCAN
        if scans > most:
            raise Rejected(Reason.TOO_MANY_SCANS, f"more than {most} JPEG scans of {width} x {height} pixels")
    if _has_fill(data, end):
        raise Rejected(Reason.CORRUPT, f"more than {len(_FILL)} fill bytes in a JPEG")


def _has_fill(data: bytes, end: int) -> bool:
    """Whether there are more fill bytes together than anybody needs: libjpeg begins them again with every 64 KiB."""
    return any(data.startswith(_FILL, at) for at in range(0, end, len(_FILL)))


def _header(data: bytes, segments: Iterator[tuple[int, int, int]]) -> tuple[bytes, bool, int]:
    """What comes before the first scan.

    The frame's segment, whether libjpeg must keep the whole picture while it reads one scan after the other, and how
    many bytes there are in segments.
    """
    frame, is_progressive = b"", False
    count = length = 0
    for kind, start, end in segments:
        count, length = count + 1, length + end - start
        if count > MAX_JPEG_SEGMENTS or length > MAX_JPEG_HEADER:
            raise Rejected(Reason.CORRUPT, f"{count} segments of {length} bytes before the first scan of a JPEG")
        if kind == _START_OF_SCAN:
            is_partial = data[start + 2 : start + 3] < frame[7:8]  # fewer components than the frame
            return frame, is_progressive or is_partial, length
        if kind in _FRAMES:
            if frame:
                raise Rejected(Reason.CORRUPT, "a JPEG of two frames")
            frame, is_progressive = data[start:end], kind in _PROGRESSIVE
    return frame, is_progressive, length


_PIXELS = (b"IDAT", b"fdAT")
_NOTES = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf")
_PACKED = (b"zTXt", b"iTXt", b"iCCP")


def _check_png(data: bytes) -> None:
    """Refuse too many chunks up to the end of the picture, and too much in them beside the pixels."""
    position, notes, others = 8, 0, 0  # behind the signature
    for _ in range(MAX_CHUNKS):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        if len(kind) < 4 or kind == b"IEND":
            return
        position += length + 12
        length = min(length, len(data))
        if kind in _PACKED:  # Pillow unpacks at most 1 MiB of each, and deflate makes at most 1032 bytes of one
            length = max(length, min(1032 * length, 2**20))
        if kind in _NOTES:
            notes += length
        elif kind not in _PIXELS:
            others += length
        if notes > MAX_NOTES or others > MAX_PNG_OTHERS:
            raise Rejected(Reason.CORRUPT, f"{notes} bytes of notes and {others} of other chunks in a PNG")
    raise Rejected(Reason.CORRUPT, f"more than {MAX_CHUNKS} chunks in a PNG")


def _check_webp(data: bytes) -> None:
    """Check the length, the canvas (WebP container specification) and the number of chunks.

    libwebp allocates the canvas when it opens a file, and keeps a record of each chunk.
    """
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise Rejected(Reason.TRUNCATED, "the file is shorter than its RIFF header says")
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    check_size(width, height, per_pixel=_WEBP_COPIES, more=2 * len(data))
    position, notes = 12, 0
    for _ in range(MAX_CHUNKS):
        kind, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        notes += length if kind in (b"EXIF", b"XMP ", b"ICCP") else 0
        if notes > MAX_NOTES:
            raise Rejected(Reason.CORRUPT, f"more than {MAX_NOTES} bytes of notes in a WebP file")
        position += 24 if kind == b"ANMF" else 8 + length + length % 2  # the chunks of a frame count like others
        if position >= len(data):
            return
    raise Rejected(Reason.CORRUPT, f"more than {MAX_CHUNKS} chunks in a WebP file")
