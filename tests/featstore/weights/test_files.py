from __future__ import annotations

import contextlib
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore.weights import files
from tests.memory import mib_taken_by
from tests.npy_files import NONSENSE, claiming, npy, npz_of


def _archive(path: Path, *names: str) -> zipfile.ZipFile:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 100)
    return zipfile.ZipFile(path)


@pytest.mark.parametrize("name", ["arr_{}", "{:04d}", "{}", "layer{}/var", "v2_{}"])
def test_arrays_come_in_the_order_of_their_numbers_as_float32(name: str, tmp_path: Path) -> None:
    arrays = {name.format(number): np.array([number]) for number in (11, 2, 0, 10, 1)}
    np.savez(tmp_path / "a.npz", **arrays)
    tensors = files.read_npz(tmp_path / "a.npz")
    assert [t.tolist() for t in tensors] == [[0.0], [1.0], [2.0], [10.0], [11.0]]
    assert {t.dtype for t in tensors} == {np.dtype(np.float32)}


@pytest.mark.parametrize("names", ["kernel bias", "arr_0 brr_1", "arr_1 arr_01", "a a_1", "conv1_kernel conv1_bias"])
def test_names_whose_order_is_not_clear_are_a_value_error(names: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **dict.fromkeys(names.split(), np.zeros(1)))
    with pytest.raises(ValueError, match="order is not clear") as caught:
        files.read_npz(tmp_path / "a.npz")
    assert all(name in str(caught.value) for name in names.split())


def _aged(path: Path, seconds: float) -> Path:
    os.utime(path, times=(time.time() - seconds,) * 2)
    return path


def test_only_leftovers_older_than_a_day_are_swept(tmp_path: Path) -> None:
    for name in (".old.tmp", ".young.tmp", "old.tmp", ".old.json"):
        (tmp_path / name).write_bytes(b"half")
        _aged(tmp_path / name, 3600 if "young" in name else 90_000)
    (tmp_path / ".folder.tmp").mkdir()
    (tmp_path / ".folder.tmp" / "inside").write_bytes(b"half")
    _aged(tmp_path / ".folder.tmp", 90_000)
    files.sweep(tmp_path, ".*.tmp")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".old.json", ".young.tmp", "old.tmp"]


def test_what_cannot_be_swept_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".old.tmp").write_bytes(b"half")
    _aged(tmp_path / ".old.tmp", 90_000)

    def fail(*args: object, **options: object) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(Path, "unlink", fail)
    files.sweep(tmp_path, ".*.tmp")
    files.sweep(tmp_path / "nowhere", ".*.tmp")


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


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_entries_that_unpack_without_measure_are_refused(method: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        archive.writestr("arr_0.npy", bytes(32 * 2**20))
    with pytest.raises(ValueError, match="packed with"):
        files.read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.filterwarnings("ignore:Reading `.npy`")
def test_a_damaged_file_is_a_value_error_or_the_same_arrays(save: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save(path, np.arange(30.0), np.eye(3))
    whole, sound = path.read_bytes(), files.read_npz(path)
    for place in range(len(whole)):
        for damaged in (whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :], whole[:place]):
            path.write_bytes(damaged)
            with contextlib.suppress(ValueError, OSError):
                assert all((one == other).all() for one, other in zip(files.read_npz(path), sound, strict=True))


@pytest.mark.parametrize("header", NONSENSE)
@pytest.mark.filterwarnings("ignore:Reading `.npy`")
def test_a_header_of_nonsense_is_a_value_error(header: str, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(npz_of(npy(header), "arr_0"))
    with pytest.raises(ValueError, match=r"."):
        files.read_npz(tmp_path / "a.npz")


def test_an_array_that_claims_to_be_huge_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(npz_of(npy(claiming((2**27,))), "arr_0"))
    prepare = "import sys\nfrom pathlib import Path\nfrom featstore.weights.files import read_npz"
    work = "try:\n    read_npz(Path(sys.argv[1]))\n    sys.exit('it was read')\nexcept ValueError:\n    pass"
    assert mib_taken_by(prepare, work, tmp_path / "a.npz") < 16


def test_an_ordinary_archive_passes(tmp_path: Path) -> None:
    with _archive(tmp_path / "a.zip", "config.json", "assets/a..b") as archive:
        files.check_archive(archive)
