from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable

import pytest

from featstore import zips
from featstore.zips import check_directory, refused_method

MUCH = 2**40


def zip_of(count: int, comment: bytes = b"") -> io.BytesIO:
    out = io.BytesIO(b"")
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(count):
            archive.writestr(f"{number}.txt", b"x")
        archive.comment = comment
    return out


def zip64_of(count: int) -> io.BytesIO:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 0)
        out = zip_of(count)
    assert b"PK\6\6" in out.getvalue()
    return out


def lying(count: int) -> io.BytesIO:
    """Its end tells of one entry."""
    data = zip_of(count).getvalue()
    return io.BytesIO(data[:-14] + struct.pack("<HH", 1, 1) + data[-10:])


KINDS: dict[str, Callable[[int], io.BytesIO]] = {
    "plain": zip_of,
    "with a comment": lambda count: zip_of(count, b"PK and more"),
    "of 64 bits": zip64_of,
    "behind something else": lambda count: io.BytesIO(b"#!" * 50 + zip_of(count).getvalue()),
    "that lies": lying,
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("block", [4, 7, 2**20])
def test_entries_are_counted_whatever_the_end_tells(
    make: Callable[[int], io.BytesIO], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zips, "_BLOCK", block)
    file = make(9)
    assert len(zipfile.ZipFile(file).filelist) == 9
    check_directory(file, 9, MUCH)
    with pytest.raises(ValueError, match="it has 9 entries, the limit is 8"):
        check_directory(file, 8, MUCH)


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_the_bytes_of_the_directory_are_bounded(make: Callable[[int], io.BytesIO]) -> None:
    file = make(9)
    size = 9 * (46 + len("0.txt"))
    check_directory(file, 9, size)
    with pytest.raises(ValueError, match=f"its directory has {size} bytes"):
        check_directory(file, 9, size - 1)


@pytest.mark.parametrize("data", [b"", b"PK\5\6", b"text" * 9000])
def test_what_is_no_zip_is_left_to_zipfile(data: bytes) -> None:
    check_directory(io.BytesIO(data), 0, 0)
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(data))


def test_only_what_is_unpacked_piece_by_piece_is_opened() -> None:
    entry = zipfile.ZipInfo("a")
    said = {}
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 99):
        entry.compress_type = method
        said[method] = refused_method(entry)
    assert list(said.values()) == [
        None,
        None,
        *(
            f"packed with {name}, where only stored and deflated entries are read"
            for name in ("bzip2", "LZMA", "method 99")
        ),
    ]
