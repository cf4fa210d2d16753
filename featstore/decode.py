"""Bytes to pixels: one picture file becomes uint8 (H, W, 3) arrays, or a typed reject. The owner of Pillow.

What is decided here changes vectors, so every rule below is part of ``spec.DECODE_VERSION``:

=====================  ==================================================================================
format                 by content, never by ending: JPEG, PNG, WebP, BMP, GIF; the first frame of several
orientation            EXIF (in XMP where EXIF has none) is applied; one that cannot be read is ignored
1, L                   the grey value in all three channels (0 or 255 for mode 1)
P                      the palette's colour
I;16, I                high byte of the 16 bits, as Pillow does itself for 16-bit RGB; their tRNS is ignored
CMYK, YCbCr, LAB, HSV  Pillow's conversion; colour profiles and gamma are ignored, as Keras does
LA, PA, RGBA, tRNS     laid on white: what is transparent never shows the arbitrary colour beneath it
JPEG draft             only if both sides are at least 4 times the wanted size and the filter is not nearest:
                       decoded at 1/2, 1/4 or 1/8, so that both are still at least twice the wanted size
fit                    stretch: both sides at once · crop: the middle that has the wanted shape (as Keras's
                       ``keep_aspect_ratio``) · pad: all of it, centred on black
=====================  ==================================================================================

For an opaque, upright picture of 8 bits and without draft, stretch equals ``keras.utils.load_img(target_size,
interpolation)`` bit for bit.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Image import Resampling, Transpose
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from featstore.bounds import MAX_READS, check_file, check_runs, check_size
from featstore.errors import InputError
from featstore.formats import MAX_FILE_BYTES
from featstore.records import Reason, Rejected
from featstore.spec import PixelSpec

__all__ = ["MAX_FILE_BYTES", "Pixels", "decode", "thumbnail"]

Pixels = npt.NDArray[np.uint8]
"""uint8 (H, W, 3), RGB."""

# Classes instead of Image.open: only the format that the content announces is tried, and its own words are kept.
_OPENERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
}
_FILTERS = {
    "nearest": Resampling.NEAREST,
    "bilinear": Resampling.BILINEAR,
    "bicubic": Resampling.BICUBIC,
    "lanczos": Resampling.LANCZOS,
}
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_SIDEWAYS = {5, 6, 7, 8}  # orientations that swap width and height


def decode(data: bytes, pixels: Sequence[PixelSpec]) -> list[Pixels]:
    """The picture in ``data``, once for each of ``pixels``: uint8 (H, W, 3) arrays of their own memory.

    A pure function of its arguments, safe in threads. The file is decoded once for all specs that share a draft scale:
    however many there are, a JPEG at most four times and any other file once.
    Whatever goes wrong with the picture raises Rejected; InputError if someone made Pillow accept truncated files.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise InputError(
            "Pillow is set to accept truncated images, which would store features of half pictures",
            where="PIL.ImageFile.LOAD_TRUNCATED_IMAGES",
            expected=False,
            received=True,
            todo="set it back to False before extracting",
        )
    name = check_file(data)
    with _quiet(), _typed_rejects():
        opened = [_open(data, name)]
        scales = [_draft_scale(opened[0], spec) for spec in pixels]
        made: dict[int, Pixels] = {}
        for scale in set(scales):
            picture = _load(opened.pop() if opened else _open(data, name), scale)
            made |= {at: _fit(picture, pixels[at]) for at, wanted in enumerate(scales) if wanted == scale}
            picture.close()  # before the next one is loaded
        return [made[at] for at in range(len(pixels))]


def thumbnail(data: bytes, size: int) -> bytes:
    """The picture in ``data`` as a small JPEG file: upright, its own shape, at most ``size`` pixels wide and high.

    Raises Rejected for what is no picture, as :func:`decode` does.
    """
    name = check_file(data)
    with _quiet(), _typed_rejects():
        header = _open(data, name)
        picture = _load(header, _draft_scale(header, PixelSpec((size, size))))
        picture.thumbnail((size, size))
        written = io.BytesIO()
        picture.save(written, "JPEG", quality=80, comment=b"")  # not the one that Pillow has read
        return written.getvalue()


def _open(data: bytes, name: str) -> ImageFile.ImageFile:
    """The picture's header, with its size checked; no pixels yet."""
    image = _OPENERS[name](io.BytesIO(data) if name == "BMP" else _Stream(data))
    check_size(*image.size)
    if name == "BMP" and image.tile[0][0] == "bmp_rle":
        check_runs(*image.size, len(data))
    return image


class _Stream(io.BytesIO):
    """A file that Pillow may ask for a part of so often: for a chunk, marker or block it asks two or three times."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise Rejected(Reason.CORRUPT, f"more than {MAX_READS} parts (chunks, markers or blocks)")
        return super().read(size)


def _draft_scale(image: ImageFile.ImageFile, spec: PixelSpec) -> int:
    """What libjpeg may divide both sides by: 1, 2, 4 or 8. A function of file and spec alone."""
    if spec.resize == "nearest" or not isinstance(image, JpegImageFile):
        return 1
    width, height = image.size
    if _orientation(image) in _SIDEWAYS:
        width, height = height, width
    wanted_height, wanted_width = spec.image_size
    room = min(width // (2 * wanted_width), height // (2 * wanted_height))
    return next(scale for scale in (8, 4, 2, 1) if scale <= max(room, 1))


def _load(image: ImageFile.ImageFile, scale: int) -> Image.Image:
    """The whole picture at 1/scale: RGB, upright. No more than two copies of it are there at once."""
    if scale > 1:
        image.draft(None, (image.width // scale, image.height // scale))
    image.load()
    turn = _UPRIGHT.get(_orientation(image))
    rgb = _to_rgb(image)
    if rgb is not image:
        image.close()
    if turn is None:
        return rgb
    upright = rgb.transpose(turn)
    rgb.close()
    return upright


def _orientation(image: Image.Image) -> int:
    """1 to 8 as in EXIF; 1 if there is none or it cannot be read: the picture is good even where its notes are not."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # Pillow's EXIF reader raises nearly anything on nonsense
        return 1
    return value if isinstance(value, int) else 1


_WHITE = (255, 255, 255)
_TILE = 1024  # pixels; what needs more copies of a picture makes them of one such square after the other


def _to_rgb(image: Image.Image) -> Image.Image:
    """The table at the top of this module."""
    is_deep = image.mode.startswith("I")
    if not is_deep and not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it
    rgb = Image.new("RGB", image.size, _WHITE)
    for box in _tiles(*image.size):
        tile = image.crop(box)
        if is_deep:
            high_byte = np.clip(np.asarray(tile), 0, 0xFFFF) >> 8
            rgb.paste(Image.fromarray(high_byte.astype(np.uint8)).convert("RGB"), box)
        else:
            rgba = tile if tile.mode == "RGBA" else tile.convert("RGBA")
            rgb.paste(rgba, box, rgba)
    return rgb


def _tiles(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    """The picture in boxes (left, top, right, bottom) of at most _TILE x _TILE pixels."""
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            yield left, top, min(left + _TILE, width), min(top + _TILE, height)


def _fit(image: Image.Image, spec: PixelSpec) -> Pixels:
    """Resize to ``spec.image_size``: uint8 (H, W, 3)."""
    height, width = spec.image_size
    resample = _FILTERS[spec.resize]
    if spec.fit == "crop":
        resized = image.resize((width, height), resample, box=_middle(image.size, width, height))
    elif spec.fit == "pad":
        inner = image.resize(_inside(image.size, width, height), resample)
        resized = Image.new("RGB", (width, height))
        resized.paste(inner, ((width - inner.width) // 2, (height - inner.height) // 2))
    else:
        resized = image.resize((width, height), resample)
    return np.array(resized)


def _middle(size: tuple[int, int], width: int, height: int) -> tuple[int, int, int, int]:
    """The largest centred box of the shape width : height, in whole pixels, as ``load_img(keep_aspect_ratio=True)``."""
    box_width = max(1, min(size[0], size[1] * width // height))
    box_height = max(1, min(size[1], size[0] * height // width))
    left, top = (size[0] - box_width) // 2, (size[1] - box_height) // 2
    return left, top, left + box_width, top + box_height


def _inside(size: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """The largest size of the picture's own shape that fits into width x height."""
    factor = min(width / size[0], height / size[1])
    return max(1, min(width, round(size[0] * factor))), max(1, min(height, round(size[1] * factor)))


@contextmanager
def _typed_rejects() -> Iterator[None]:
    """Turn whatever Pillow raises into Rejected. It raises OSError, ValueError, SyntaxError, struct.error and more."""
    try:
        yield
    except Rejected:
        raise
    except MemoryError as error:  # this machine's state, not the file's: must never be stored
        raise Rejected(Reason.UNREADABLE, "not enough memory to decode it") from error
    except Image.DecompressionBombError as error:
        raise Rejected(Reason.TOO_MANY_PIXELS, _one_line(error)) from error
    except Exception as error:
        raise Rejected(Reason.TRUNCATED if _is_short(error) else Reason.CORRUPT, _one_line(error)) from error


def _is_short(error: BaseException) -> bool:
    """True if the data ended early; Pillow says so by EOFError or in words, often as the cause of another error."""
    cause = error.__cause__
    return isinstance(error, EOFError) or "truncated" in str(error).lower() or (cause is not None and _is_short(cause))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


class _WhileDecoding(threading.local):
    """Stands for the module pattern of a warning filter: matches only in a thread that is decoding."""

    active = False

    def match(self, _module: str) -> bool:
        return self.active


_while_decoding = _WhileDecoding()
_FILTER = ("ignore", None, Warning, _while_decoding, 0)
_decoding = 0  # how many threads are at it
_counting = threading.Lock()


def _filters() -> list[tuple[object, ...]]:
    return cast("list[tuple[object, ...]]", warnings.filters)  # replaced by catch_warnings, so looked up each time


@contextmanager
def _quiet() -> Iterator[None]:
    """No warning leaves this thread, nor becomes an error. Safe in threads, as ``warnings.catch_warnings`` is not.

    The filter goes with the last thread: scikit-learn and joblib send all filters to their worker processes, and know
    only those of ``warnings.filterwarnings``.
    """
    global _decoding
    with _counting:
        _decoding += 1
        if _FILTER not in _filters():
            _filters().insert(0, _FILTER)
    _while_decoding.active = True
    try:
        yield
    finally:
        _while_decoding.active = False
        with _counting:
            _decoding -= 1
            if not _decoding and _FILTER in _filters():
                _filters().remove(_FILTER)
