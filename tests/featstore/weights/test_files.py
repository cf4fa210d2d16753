from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from featstore.weights import files


def _archive(path: Path, *names: str) -> zipfile.ZipFile:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 100)
    return zipfile.ZipFile(path)


def test_arrays_come_in_the_order_of_their_names_as_float32(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", b=np.array([2.0]), a=np.array([1], np.int32))
    tensors = files.read_npz(tmp_path / "a.npz")
    assert [t.tolist() for t in tensors] == [[1.0], [2.0]]
    assert {t.dtype for t in tensors} == {np.dtype(np.float32)}


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"\x80\x04K\x00." * 9])
def test_rubbish_is_a_value_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match="not a file of arrays"):
        files.read_npz(tmp_path / "a.npz")


def test_an_array_of_text_is_a_value_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.array(["cat"]))
    with pytest.raises(ValueError, match="could not convert"):
        files.read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "C:/x", "..\\x"])
def test_entries_that_point_outside_are_refused(name: str, tmp_path: Path) -> None:
    with _archive(tmp_path / "a.zip", name) as archive, pytest.raises(ValueError, match="points outside"):
        files.check_archive(archive)


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_ENTRIES", 2)
    with _archive(tmp_path / "a.zip", "a", "b", "c") as archive, pytest.raises(ValueError, match="3 entries"):
        files.check_archive(archive)


def test_archives_that_unpack_to_too_much_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_UNPACKED_BYTES", 150)
    with _archive(tmp_path / "a.zip", "a", "b") as archive, pytest.raises(ValueError, match="200 bytes"):
        files.check_archive(archive)


def test_an_ordinary_archive_passes(tmp_path: Path) -> None:
    with _archive(tmp_path / "a.zip", "config.json", "assets/a..b") as archive:
        files.check_archive(archive)
