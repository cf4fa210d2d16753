"""Picture files made byte by byte, as no program writes them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"
COMMENT = b"\xff\xfe\0\2"
"""The smallest segment of a JPEG."""


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photograph(width: int = 60, height: int = 40) -> Image.Image:
    """A smooth picture without symmetry."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, (x * y) / 255], axis=-1).astype(np.uint8))


def turned(orientation: int = 6) -> Image.Exif:
    """Notes that a picture lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int, depth: int = 8, colours: int = 2) -> bytes:
    return PNG + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0))


def png_announcing(width: int, height: int, *chunks: bytes) -> bytes:
    return png_header(width, height) + b"".join(chunks) + png_chunk(b"IDAT", zlib.compress(bytes(100)))


def png_with(*chunks: bytes) -> bytes:
    """A PNG file of three chunks of its own, with ``chunks`` behind the first."""
    body = zlib.compress(b"\0" + bytes(12) + b"\0" + bytes(12))
    return png_header(4, 2) + b"".join(chunks) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def png_of_pieces(count: int) -> bytes:
    """A PNG file whose pixels lie in ``count`` chunks; with the header and the end it has two more."""
    rows = zlib.compress(b"\0" + bytes(12) + b"\0" + bytes(12))
    pieces = [rows[:4], *(b"" for _ in range(count - 2)), rows[4:]]
    return png_header(4, 2) + b"".join(png_chunk(b"IDAT", piece) for piece in pieces) + png_chunk(b"IEND", b"")


def jpeg_with(inside: bytes, at: bytes | None = None, picture: bytes | None = None) -> bytes:
    """A JPEG file with ``inside`` before its first marker ``at`` (default: behind the start of the image)."""
    data = encoded(photograph(), "JPEG") if picture is None else picture
    place = 2 if at is None else data.index(at)
    return data[:place] + inside + data[place:]


def segment(kind: int, body: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes((0xFF, kind)) + struct.pack(">H", len(body) + 2) + body


def jpeg_announcing(width: int, height: int, picture: bytes) -> bytes:
    """``picture`` with another size in its frame."""
    at = next(place for kind in (b"\xff\xc0", b"\xff\xc2") if (place := picture.find(kind)) > 0)
    return picture[: at + 5] + struct.pack(">HH", height, width) + picture[at + 9 :]


def jpeg_of_scans(count: int, picture: Image.Image) -> bytes:
    """A progressive JPEG whose last scan comes so often that it has ``count``."""
    data = encoded(picture, "JPEG", progressive=True, quality=20)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * (count - data.count(b"\xff\xda") + 1) + data[-2:]


def gif_with(inside: bytes) -> bytes:
    """A GIF file with ``inside`` before its picture."""
    data = encoded(Image.new("L", (4, 2)), "GIF")
    place = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    return data[:place] + inside + data[place:]


def webp_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def webp_with(count: int, size: tuple[int, int] = (4, 2)) -> bytes:
    """A WebP file of two chunks of its own, with ``count`` behind them."""
    return _webp(0x10, size, _webp_pixels(*size) + webp_chunk(b"none", b"") * count)


def webp_of_frames(count: int, inside: int = 0) -> bytes:
    """A WebP file of two chunks and ``count`` frames, each of two chunks and ``inside`` more."""
    frame = bytes(6) + b"\3\0\0\1\0\0" + bytes(4) + _webp_pixels(4, 2) + webp_chunk(b"none", b"") * inside
    return _webp(0x12, (4, 2), webp_chunk(b"ANIM", bytes(6)) + webp_chunk(b"ANMF", frame) * count)


def _webp_pixels(*size: int) -> bytes:
    data = encoded(Image.new("RGBA", size), "WEBP", lossless=True)  # type: ignore[arg-type]
    return data[data.index(b"VP8L") :]


def _webp(flags: int, size: tuple[int, int], chunks: bytes) -> bytes:
    canvas = bytes((flags, 0, 0, 0)) + b"".join(struct.pack("<I", side - 1)[:3] for side in size)
    body = b"WEBP" + webp_chunk(b"VP8X", canvas) + chunks
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp_of_runs(width: int, height: int, runs: bytes) -> bytes:
    """A BMP file of 8 bits a pixel whose rows are run-length encoded."""
    palette = bytes((3, 2, 1, 0)) * 256
    start = 14 + 40 + len(palette)
    head = struct.pack("<IIIHHIIIIII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + head + palette + runs
