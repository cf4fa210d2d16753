"""Pictures that were damaged or made to do harm: each becomes a row or a typed reject, at a bounded cost."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featstore.records import Reason
from tests.commands import ROOT
from tests.pictures import png
from tests.reliability.campaign import FULL, Figures, amount

_MOST_MIB = 512
_MOST_CPU_SECONDS = 5
_HANGS_SECONDS = 300

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


def check_cost(found: dict[str, Any]) -> None:
    assert found["mib"] <= _MOST_MIB
    assert found["cpu_seconds"] <= _MOST_CPU_SECONDS


@pytest.fixture
def good_pictures(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Photographs as JPEG, PNG, WebP, GIF and BMP files."""
    folder = tmp_path / "good"
    folder.mkdir()
    sources: list[Any] = [io.BytesIO(png(seed, 160)) for seed in range(4)]
    if FULL:
        sources = sorted((request.getfixturevalue("photographs") / "test" / "cats").iterdir())[:8]
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
        seconds, mib = max(seconds, one["cpu_seconds"]), max(mib, one["mib"])
        outcomes.update(one["outcomes"])
    rejects = {code: number for code, number in outcomes.items() if code in _CODES}
    assert len(rejects) > 2
    figures.keep("damaged photographs", pictures=count, rejected=sum(rejects.values()),
                 most_cpu_seconds=round(seconds, 2), most_mib=round(mib))  # fmt: skip


def test_the_odd_images_are_rows_or_typed_rejects(odd_images: Path, figures: Figures) -> None:
    files = [file for file in sorted(odd_images.rglob("*")) if file.is_file()][:: amount(24, 1)]
    seconds = mib = 0.0
    for file in files:
        found = decoded("file", file)
        check_cost(found)
        seconds, mib = max(seconds, found["cpu_seconds"]), max(mib, found["mib"])
    figures.keep("odd images, each in a process of its own", images=len(files),
                 most_cpu_seconds=round(seconds, 2), most_mib=round(mib))  # fmt: skip


# ---- bombs -----------------------------------------------------------------------------------------------------------

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def header(width: int, height: int, depth: int = 8, colours: int = 2) -> bytes:
    return _SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0))


def zeros(count: int) -> bytes:
    """So many zeros, deflated."""
    packer = zlib.compressobj(9)
    block = bytes(2**20)
    return b"".join([*(packer.compress(block) for _ in range(count // 2**20)), packer.flush()])


def huge_png() -> bytes:
    return header(60_000, 60_000, 1, 0) + chunk(b"IDAT", zeros(amount(2**23, 60_000 * 7_501))) + chunk(b"IEND", b"")


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
    return _with_chunk(b"zTXt", b"Comment\0\0" + zeros(amount(2**26, 2**30)))


def profile_bomb() -> bytes:
    return _with_chunk(b"iCCP", b"profile\0\0" + zeros(amount(2**26, 2**30)))


def many_chunks() -> bytes:
    data = png(1)
    return data[:33] + chunk(b"teXt", b"") * amount(100_000, 1_000_000) + data[33:]


def many_texts() -> bytes:
    data = png(1)
    return data[:33] + chunk(b"tEXt", b"a\0b") * amount(100_000, 1_000_000) + data[33:]


def deep_exif() -> bytes:
    """An IFD whose next IFD is itself."""
    exif = b"Exif\0\0MM\0\x2a\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, 1, 0, 8)
    data = _jpeg()
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


def _with_chunk(kind: bytes, body: bytes) -> bytes:
    data = png(1)
    return data[:33] + chunk(kind, body) + data[33:]


def _jpeg(**options: Any) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG", **options)
    return buffer.getvalue()


_BOMBS: dict[Callable[[], bytes], set[str] | None] = {
    huge_png: {"too-many-pixels"},
    huge_jpeg: {"too-many-pixels"},
    many_scans: {"too-many-scans"},
    many_frames_gif: None,
    many_frames_webp: None,
    text_bomb: {"corrupt", "truncated"},
    profile_bomb: None,
    many_chunks: None,
    many_texts: None,
    deep_exif: None,
}


@pytest.mark.parametrize("bomb", _BOMBS, ids=lambda bomb: bomb.__name__)
def test_a_bomb_costs_little(bomb: Callable[[], bytes], tmp_path: Path, figures: Figures) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(bomb())
    one, two = decoded("file", path), decoded("file", path)
    assert one["outcomes"] == two["outcomes"]
    check_cost(one)
    allowed = _BOMBS[bomb]
    if allowed is not None:
        assert set(one["outcomes"]) <= allowed
    figures.keep(f"bomb: {bomb.__name__}", kib=path.stat().st_size // 1024, became=one["outcomes"][0],
                 cpu_seconds=round(one["cpu_seconds"], 2), mib=round(one["mib"]))  # fmt: skip
