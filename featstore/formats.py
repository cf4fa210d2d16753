"""What a picture looks like from outside: first bytes, file endings, and how large a file may be.

The content decides what a file is; endings only help to see whether a folder holds pictures at all.
"""

from __future__ import annotations

MAX_FILE_BYTES = 64 * 2**20
"""The largest file that is read: 64 MiB. A photograph of 50 megapixels is well below it."""

HEAD_BYTES = 32
"""How many first bytes :func:`picture_format` needs."""

DECODED = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
"""The formats that become pixels; the others are only recognised, to say so."""

_ENDINGS = "jpg jpeg jpe jfif png apng webp bmp dib gif tif tiff avif heic heif jp2 j2k jxl ico ppm pgm pbm pnm tga psd"
IMAGE_ENDINGS = frozenset(_ENDINGS.split())
"""File endings of pictures, without the dot, in lower case."""

_HEADS: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG", "PNG"),  # the rest of its signature exists to detect damage: then it is a damaged PNG
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"8BPS", "PSD"),
    (b"\0\0\1\0", "ICO"),
    (b"\x01\xda", "SGI"),
    (b"%!PS", "PostScript"),
    (b"qoif", "QOI"),
    (b"DDS ", "DDS"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
)
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF"}
_FLIC = (b"\x11\xaf", b"\x12\xaf")


def picture_format(head: bytes) -> str | None:
    """The picture format that the first :data:`HEAD_BYTES` bytes of a file announce, None if it is none we know.

    Formats in :data:`DECODED` can be decoded; others ("TIFF", "AVIF", …) are pictures of an unsupported kind.
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and head[15:18] == b"\0\0\0":  # a small header size: text can start with BM as well
        return "BMP"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12])
    if head[4:6] in _FLIC:
        return "FLI"
    if head[:1] == b"P" and head[1:2].isdigit() and head[2:3].isspace():
        return "PNM"
    return next((name for start, name in _HEADS if head.startswith(start)), None)


def has_image_ending(path: str) -> bool:
    """True if the name ends like a picture's (``.jpg``, ``.PNG``)."""
    _, dot, ending = path.rpartition(".")
    return bool(dot) and ending.lower() in IMAGE_ENDINGS
