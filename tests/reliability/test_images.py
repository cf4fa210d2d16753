"""Pictures that were damaged or made to do harm: each becomes a row or a typed reject, at a bounded cost."""

from __future__ import annotations

import io
import json
import re
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featstore.bounds import (
    MAX_BYTES,
    MAX_CHUNKS,
    MAX_JPEG_HEADER,
    MAX_JPEG_SEGMENTS,
    MAX_NOTES,
    MAX_PIXELS,
    MAX_PNG_OTHERS,
    MAX_READS,
    MAX_RUNS,
    MAX_SIDE,
)
from featstore.formats import MAX_FILE_BYTES
from featstore.records import Reason
from tests.commands import ROOT
from tests.featstore.picture_files import (
    COMMENT,
    bmp_of_runs,
    encoded,
    gif_with,
    jpeg_of_scans,
    jpeg_with,
    png_chunk,
    png_header,
    png_of_pieces,
    png_with,
    segment,
    turned,
    webp_with,
)
from tests.pictures import png
from tests.reliability.campaign import FULL, Figures, amount

_MOST_MIB = 512
_MOST_CPU_SECONDS = 5
_HANGS_SECONDS = 300

_PLAIN = "64:bilinear:0"
_AT_ONCE = "299:bilinear:4,150:bilinear:4,64:nearest:4"
"""What three bases may ask for together: sizes for which libjpeg decodes at different scales, and views."""

_THUMBNAIL = "thumbnail:512"
"""The largest that the service makes."""

_CODES = {reason.code for reason in Reason}


def decoded(*words: object) -> dict[str, Any]:
    """What tests/reliability/decoding.py says, in a process that must live."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.reliability.decoding", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=_HANGS_SECONDS,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def outcomes_of(outcomes: Iterable[str]) -> set[str]:
    """What pictures became: "row" for the digests of rows, and whatever else there is."""
    return {"row" if re.fullmatch("[0-9a-f]{16}", one) else one for one in outcomes}


def check_cost(found: dict[str, Any], *, several: int | None = None) -> None:
    """``several`` : the place among the outcomes of a JPEG that may be decoded once for each of three sizes."""
    assert found["mib"] <= _MOST_MIB
    for place, seconds in enumerate(found["seconds"]):
        assert seconds <= _MOST_CPU_SECONDS * (3 if place == several else 1)


@pytest.fixture
def good_pictures(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Photographs as JPEG, PNG, WebP, GIF and BMP files."""
    folder = tmp_path / "good"
    folder.mkdir()
    sources: list[Any] = [io.BytesIO(png(seed, 160)) for seed in range(amount(2, 0))]
    try:
        sources += sorted((request.getfixturevalue("photographs") / "test" / "cats").iterdir())[: amount(2, 8)]
    except pytest.skip.Exception:
        if FULL:
            raise
    for number, source in enumerate(sources):
        picture = Image.open(source).convert("RGB")
        picture.thumbnail((320, 320))
        for kind, options in (
            ("jpeg", {}), ("jpeg", {"progressive": True}), ("png", {}), ("webp", {}), ("gif", {}), ("bmp", {}),
        ):  # fmt: skip
            picture.save(folder / f"{number}-{kind}-{len(options)}.{kind}", kind, **options)
    return folder


def test_every_damaged_photograph_is_a_row_or_a_typed_reject_twice_the_same(
    good_pictures: Path, figures: Figures
) -> None:
    count, step = amount(400, 12_000), amount(400, 2000)
    outcomes: Counter[str] = Counter()
    seconds = mib = 0.0
    for first in range(0, count, step):
        one, two = (decoded("mutations", good_pictures, first, step) for _ in range(2))
        assert one["outcomes"] == two["outcomes"]
        check_cost(one)
        seconds, mib = max(seconds, *one["seconds"]), max(mib, one["mib"])
        outcomes.update(one["outcomes"])
    assert outcomes_of(outcomes) <= {"row", *_CODES}
    rejects = {code: number for code, number in outcomes.items() if code in _CODES}
    assert len(rejects) > 2
    figures.keep("damaged photographs", pictures=count, rejected=sum(rejects.values()),
                 most_cpu_seconds=round(seconds, 2), most_mib=round(mib))  # fmt: skip


def test_the_odd_images_are_rows_or_typed_rejects(odd_images: Path, figures: Figures) -> None:
    files = [file for file in sorted(odd_images.rglob("*")) if file.is_file()][:: amount(24, 1)]
    seconds = mib = 0.0
    for file in files:
        found = decoded("file", file, *([_PLAIN, _AT_ONCE, _THUMBNAIL] if FULL else ["150:bilinear:0,64:nearest:0"]))
        assert outcomes_of(found["outcomes"]) <= {"row", *_CODES}
        check_cost(found)
        seconds, mib = max(seconds, *found["seconds"]), max(mib, found["mib"])
    figures.keep("odd images, each in a process of its own", images=len(files),
                 most_cpu_seconds=round(seconds, 2), most_mib=round(mib))  # fmt: skip


# ---- bombs -----------------------------------------------------------------------------------------------------------


def zeros(count: int) -> bytes:
    """So many zeros, deflated."""
    packer = zlib.compressobj(9)
    block = bytes(2**20)
    return b"".join([*(packer.compress(block) for _ in range(count // 2**20)), packer.flush()])


def huge_png() -> bytes:
    return png_header(60_000, 60_000, 1, 0) + png_chunk(b"IDAT", zeros(amount(2**23, 60_000 * 7_501)))


def huge_jpeg() -> bytes:
    data = bytearray(_jpeg())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    return bytes(data)


def many_scans() -> bytes:
    data = _jpeg(progressive=True)
    first = data.index(b"\xff\xda")
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[first:last] * 200 + data[last:]


def many_frames_gif() -> bytes:
    buffer = io.BytesIO()
    Image.new("P", (400, 400)).save(buffer, "GIF")
    data = buffer.getvalue()
    frame = data[data.index(b",", 13 + 3) : -1]
    return data[:-1] + frame * 10_000 + b";"


def many_frames_webp() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (64, 64), (200 * number, 0, 0)) for number in range(2)]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    data = buffer.getvalue()
    at = data.rindex(b"ANMF")
    whole = data[:at] + data[at:] * 10_000
    return whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:]


def text_bomb() -> bytes:
    return png_with(png_chunk(b"zTXt", b"Comment\0\0" + zeros(amount(2**26, 2**30))))


def profile_bomb() -> bytes:
    return png_with(png_chunk(b"iCCP", b"profile\0\0" + zeros(amount(2**26, 2**30))))


def many_chunks() -> bytes:
    return png_with(png_chunk(b"teXt", b"") * amount(100_000, 5_000_000))


def many_texts() -> bytes:
    return png_with(png_chunk(b"tEXt", b"a\0b") * amount(100_000, 4_000_000))


def many_comments() -> bytes:
    return jpeg_with(COMMENT * amount(100_000, 16_000_000))


def many_blocks() -> bytes:
    return gif_with(b"!\xfe\0" * amount(200_000, 22_000_000))


def many_webp_chunks() -> bytes:
    return webp_with(amount(100_000, 8_000_000))


def deep_exif() -> bytes:
    """An IFD whose next IFD is itself."""
    exif = b"Exif\0\0MM\0\x2a\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, 1, 0, 8)
    data = _jpeg()
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


def _jpeg(**options: Any) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG", **options)
    return buffer.getvalue()


_BOMBS: dict[Callable[[], bytes], set[str]] = {
    huge_png: {"too-many-pixels"},
    huge_jpeg: {"too-many-pixels"},
    many_scans: {"too-many-scans"},
    many_frames_gif: {"row"},
    many_frames_webp: {"row"},
    text_bomb: {"corrupt", "truncated"},
    profile_bomb: {"corrupt"},
    many_chunks: {"corrupt"},
    many_texts: {"corrupt"},
    many_comments: {"corrupt"},
    many_blocks: {"corrupt"},
    many_webp_chunks: {"corrupt"},
    deep_exif: {"row"},
}


@pytest.mark.parametrize("bomb", _BOMBS, ids=lambda bomb: bomb.__name__)
def test_a_bomb_costs_little(bomb: Callable[[], bytes], tmp_path: Path, figures: Figures) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(bomb())
    one, two = (decoded("file", path, _PLAIN, _AT_ONCE, _THUMBNAIL) for _ in range(2))
    assert one["outcomes"] == two["outcomes"]
    check_cost(one)
    check_cost(two)
    assert outcomes_of(one["outcomes"]) <= _BOMBS[bomb]
    figures.keep(f"bomb: {bomb.__name__}", kib=path.stat().st_size // 1024, became=one["outcomes"][0],
                 most_cpu_seconds=round(max(one["seconds"]), 2), mib=round(one["mib"]))  # fmt: skip


# ---- just within the limits ------------------------------------------------------------------------------------------

_SIDE = int(MAX_PIXELS**0.5)
_ON_ITS_SIDE = turned()


def _one_colour(mode: str, colour: object, size: tuple[int, int] = (_SIDE, _SIDE)) -> Image.Image:
    return Image.new(mode, size, colour)  # type: ignore[arg-type] # what each mode takes


def _of(megapixels: int) -> tuple[int, int]:
    """The size of a picture that is as wide as the largest square, and has so many pixels."""
    return _SIDE, megapixels * 10**6 // _SIDE


def _noise(size: tuple[int, int] = (_SIDE, _SIDE)) -> Image.Image:
    """As much detail as 64 MiB hold."""
    tile = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    picture = Image.new("RGB", size)
    for left in range(0, size[0], 512):
        for top in range(0, size[1], 512):
            picture.paste(Image.fromarray(np.roll(tile, left + top)), (left, top))
    return picture


def _texts() -> bytes:
    """As much text as may be, of the widest letters, and as much else."""
    text = ("x" * (2**20 - 4) + "\U0001f600").encode()
    texts = [png_chunk(b"iTXt", b"%d\0\1\0\0\0" % i + zlib.compress(text, 9)) for i in range(MAX_NOTES // 2**20)]
    texts[0] = png_chunk(b"teXt", bytes(MAX_PNG_OTHERS - 2**10))
    data = encoded(_one_colour("RGBA", (1, 2, 3, 4)), exif=_ON_ITS_SIDE)
    return data[:33] + b"".join(texts) + data[33:]


def _segments(kind: int, body: bytes) -> bytes:
    """As many segments of that kind as may be, each as large as may be."""
    each = MAX_JPEG_HEADER // (MAX_JPEG_SEGMENTS - 20) - 2 if kind == 0xE1 else 2**16 - 3
    count = (MAX_JPEG_HEADER - 2**14) // (each + 2)
    return jpeg_with(segment(kind, (body * (each // len(body) + 1))[: each // len(body) * len(body)]) * count)


_WEBP_SIDE = int(((MAX_BYTES - 2**21) // 18) ** 0.5)

_WITHIN: dict[str, Callable[[], bytes]] = {
    "rgba": lambda: encoded(_one_colour("RGBA", (1, 2, 3, 4)), exif=_ON_ITS_SIDE),
    "grey and alpha": lambda: encoded(_one_colour("LA", (1, 2)), exif=_ON_ITS_SIDE),
    "a transparent colour": lambda: encoded(_one_colour("RGB", (1, 2, 3)), transparency=(1, 2, 3), exif=_ON_ITS_SIDE),
    "a transparent palette": lambda: encoded(_one_colour("P", 3), transparency=bytes(9), exif=_ON_ITS_SIDE),
    "16 bits": lambda: encoded(Image.fromarray(np.full((_SIDE, _SIDE), 999, np.uint16)), exif=_ON_ITS_SIDE),
    "a transparent gif": lambda: encoded(_one_colour("P", 3), "GIF", transparency=3),
    "a tall png": lambda: encoded(_one_colour("RGB", (1, 2, 3), (MAX_PIXELS // MAX_SIDE, MAX_SIDE))),
    "a wide png": lambda: encoded(_one_colour("RGB", (1, 2, 3), (MAX_SIDE, MAX_PIXELS // MAX_SIDE))),
    "texts": _texts,
    "pieces": lambda: png_of_pieces(MAX_CHUNKS - 2),
    "a photograph": lambda: encoded(_noise(), "JPEG", quality=50, exif=_ON_ITS_SIDE),
    "a progressive photograph": lambda: encoded(
        _noise(_of(49)), "JPEG", quality=50, subsampling=0, progressive=True, exif=_ON_ITS_SIDE
    ),
    "17 scans": lambda: jpeg_of_scans(17, _noise(_of(46))),
    "100 scans": lambda: jpeg_of_scans(100, _noise((2828, 2828)).reduce(4).resize((2828, 2828))),
    "cmyk": lambda: encoded(_noise(_of(39)).convert("CMYK"), "JPEG", progressive=True,
                            quality=50, exif=_ON_ITS_SIDE),
    "exif in pieces": lambda: _segments(0xE1, b"Exif\0\0"),
    "photoshop": lambda: _segments(0xED, b"Photoshop 3.0\0" + b"8BIM\1\1\0\0\0\0\0\0" * 5000),
    "tables": lambda: _segments(0xDB, bytes(65)),
    "junk in a jpeg": lambda: jpeg_with(b"\0" * (MAX_READS - 500), at=b"\xff\xdb"),
    "blocks": lambda: gif_with(b"!\xfe" + b"\1a" * (MAX_READS // 2 - 100) + b"\0"),
    "webp": lambda: encoded(_one_colour("RGBA", (1, 2, 3, 4), (_WEBP_SIDE, _WEBP_SIDE)), "WEBP", lossless=True,
                            exif=_ON_ITS_SIDE),
    "lossy webp": lambda: encoded(_one_colour("RGBA", (1, 2, 3, 4), (_WEBP_SIDE, _WEBP_SIDE)), "WEBP",
                                  exif=_ON_ITS_SIDE),
    "webp chunks": lambda: webp_with(MAX_CHUNKS - 2, (_WEBP_SIDE, _WEBP_SIDE)),
    "rows of one run": lambda: bmp_of_runs(1000, MAX_RUNS // 1000 - 50, b"\1\1\0\0" * (MAX_RUNS // 1000 - 50)),
    "runs of no pixels": lambda: bmp_of_runs(1, 2, b"\1\1" + b"\7\1" * (MAX_RUNS // 2 - 3000) + b"\0\0\1\1"),
}  # fmt: skip


@pytest.mark.skipif(not FULL, reason="a part of the campaign; tests/featstore/test_bounds.py has the limits themselves")
@pytest.mark.parametrize("make", _WITHIN.values(), ids=_WITHIN)
def test_what_is_within_all_limits_costs_what_it_may(
    make: Callable[[], bytes], tmp_path: Path, figures: Figures, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / "picture"
    path.write_bytes(make())
    assert path.stat().st_size <= MAX_FILE_BYTES
    is_jpeg = path.read_bytes().startswith(b"\xff\xd8")
    one = f"299:{'nearest' if is_jpeg else 'lanczos'}:0"  # for that one no draft is made
    found = decoded("file", path, one, _AT_ONCE, _THUMBNAIL)
    assert outcomes_of(found["outcomes"]) == {"row"}
    check_cost(found, several=1 if is_jpeg else None)
    name = f"within the limits: {request.node.callspec.id}"
    figures.keep(name, kib=path.stat().st_size // 1024, became=found["outcomes"][0],
                 most_cpu_seconds=round(max(found["seconds"]), 2), mib=round(found["mib"]))  # fmt: skip
