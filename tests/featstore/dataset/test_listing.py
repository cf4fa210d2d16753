from __future__ import annotations

import contextlib
import os
import random
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from featstore.dataset import listing as module
from featstore.dataset.listing import list_folder, list_zip, natural_key, some
from featstore.errors import FeatstoreError, InputError
from tests.memory import mib_taken_by


def write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")


def test_files_come_in_natural_order() -> None:
    names = ["cat.1.jpg", "cat.01.jpg", "cat.2.jpg", "cat.10.jpg", "dog.1.jpg", "9/1.jpg", "10/1.jpg"]
    shuffled = random.sample(names, len(names))
    assert sorted(shuffled, key=natural_key) == [
        "9/1.jpg", "10/1.jpg", "cat.01.jpg", "cat.1.jpg", "cat.2.jpg", "cat.10.jpg", "dog.1.jpg",
    ]  # fmt: skip


def test_other_digits_and_long_numbers_do_not_stop_the_sorting() -> None:
    assert len(sorted(["²", "٣", "1" * 5000, "\udce9"], key=natural_key)) == 4


def test_a_tree_is_listed_with_its_empty_folders(tmp_path: Path) -> None:
    write(tmp_path, "a/2.jpg", "a/10.jpg", "b/deep/er/1.jpg", "top.jpg")
    (tmp_path / "empty").mkdir()
    found = list_folder(str(tmp_path))
    assert list(found.files) == ["a/2.jpg", "a/10.jpg", "b/deep/er/1.jpg", "top.jpg"]
    assert sorted(found.folders) == ["a", "b", "b/deep", "b/deep/er", "empty"]
    assert found.notes == ()


def test_clutter_is_passed_over_in_silence(tmp_path: Path) -> None:
    write(
        tmp_path,
        ".hidden",
        ".git/x.jpg",
        "a/Thumbs.db",
        "a/desktop.ini",
        "a/.DS_Store",
        "a/Icon\r",
        "__MACOSX/a.jpg",
        "a/1.jpg",
    )
    found = list_folder(str(tmp_path))
    assert list(found.files) == ["a/1.jpg"]
    assert found.notes == ()


def test_links_are_followed_but_no_loop(tmp_path: Path) -> None:
    write(tmp_path, "real/1.jpg", "data/a/2.jpg")
    data = tmp_path / "data"
    (data / "b").symlink_to(tmp_path / "real")
    (data / "a" / "3.jpg").symlink_to(tmp_path / "real" / "1.jpg")
    (data / "a" / "up").symlink_to(data)
    (data / "a" / "self").symlink_to("self")
    (data / "a" / "gone.jpg").symlink_to("nowhere")
    found = list_folder(str(data))
    assert list(found.files) == ["a/2.jpg", "a/3.jpg", "b/1.jpg"]
    assert found.notes == ("passed over 1 link that leads in a loop", "passed over 2 links that lead nowhere")


def test_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    assert list(list_folder(str(tmp_path)).files) == ["a/1.jpg", "a/b/1.jpg", "b/1.jpg", "b/a/1.jpg"]


def test_a_maze_of_links_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FOLDERS", 500)
    for i in range(7):
        (tmp_path / str(i)).mkdir()
        for j in range(7):
            (tmp_path / str(i) / f"to{j}").symlink_to(tmp_path / str(j))
    with pytest.raises(InputError, match="500 folders"):
        list_folder(str(tmp_path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_special_files_are_passed_over_with_a_note(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg")
    os.mkfifo(tmp_path / "a" / "2.jpg")
    found = list_folder(str(tmp_path))
    assert list(found.files) == ["a/1.jpg"]
    assert found.notes == ("passed over 1 special file (FIFO, socket or device)",)


def test_names_that_are_not_utf8_are_listed(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    write(tmp_path, "caf\udce9/\udcff\n1.jpg")
    assert list(list_folder(str(tmp_path)).files) == ["caf\udce9/\udcff\n1.jpg"]


def test_a_folder_that_cannot_be_read_is_noted_and_the_root_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a/1.jpg", "b/1.jpg")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.rstrip("/").endswith(refused):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    refused = "/b"
    found = list_folder(str(tmp_path))
    assert list(found.files) == ["a/1.jpg"]
    assert found.notes == ("passed over 1 folder that cannot be read",)
    refused = tmp_path.name
    with pytest.raises(FeatstoreError) as caught:
        list_folder(str(tmp_path))
    assert caught.value.exit_code == 3
    assert "may read it" in str(caught.value)


def test_files_are_not_examined_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, *(f"a/{i}.jpg" for i in range(300)))
    calls = []
    examine = os.stat
    monkeypatch.setattr(os, "stat", lambda *a, **k: calls.append(a) or examine(*a, **k))
    assert len(list_folder(str(tmp_path)).files) == 300
    assert len(calls) <= 3


class TestZip:
    def make(self, tmp_path: Path, *names: str) -> str:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for name in names:
                archive.writestr(name, b"x")
        return str(tmp_path / "a.zip")

    def test_entries_that_will_not_be_opened_are_told_with_what_to_do(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("a.jpg", b"x")
            for name in ("b.jpg", "c.jpg"):
                archive.writestr(name, b"x", zipfile.ZIP_BZIP2)
        found, *_ = list_zip(str(tmp_path / "a.zip"))
        assert found.notes == (
            "2 entries packed with bzip2, where only stored and deflated entries are read: pack the zip again",
        )

    def test_entries_are_listed_in_natural_order(self, tmp_path: Path) -> None:
        found, _, entries = list_zip(self.make(tmp_path, "a/10.jpg", "a/2.jpg", "empty/", "a/.x", "__MACOSX/a/._2.jpg"))
        assert list(found.files) == ["a/2.jpg", "a/10.jpg"]
        assert list(found.folders) == ["empty"]
        assert entries["a/2.jpg"].filename == "a/2.jpg"

    def test_unsafe_names_are_passed_over_with_a_note(self, tmp_path: Path) -> None:
        found, _, _ = list_zip(self.make(tmp_path, "../up.jpg", "/etc/x.jpg", "a/../../b.jpg", "C:/x.jpg", "ok/1.jpg"))
        assert list(found.files) == ["ok/1.jpg"]
        assert found.notes == ("passed over 4 entries with unsafe names (absolute or with ..)",)

    def test_backslashes_separate_folders(self, tmp_path: Path) -> None:
        found, archive, entries = list_zip(self.make(tmp_path, r"cats\1.jpg", r"..\up.jpg"))
        assert list(found.files) == ["cats/1.jpg"]
        assert archive.read(entries["cats/1.jpg"]) == b"x"

    def test_links_are_passed_over(self, tmp_path: Path) -> None:
        path = self.make(tmp_path, "a/1.jpg")
        with zipfile.ZipFile(path, "a") as archive:
            link = zipfile.ZipInfo("a/2.jpg")
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(link, "/etc/passwd")
        found, _, _ = list_zip(path)
        assert list(found.files) == ["a/1.jpg"]
        assert found.notes == ("passed over 1 link or special file",)

    def test_of_a_name_that_is_there_twice_the_last_entry_counts(self, tmp_path: Path) -> None:
        path = self.make(tmp_path, "a/1.jpg", "a/2.jpg")
        with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a/1.jpg", b"later")
        found, archive, entries = list_zip(path)
        assert list(found.files) == ["a/1.jpg", "a/2.jpg"]
        assert archive.read(entries["a/1.jpg"]) == b"later"
        assert found.notes == ("passed over 1 entry whose name comes again",)

    @pytest.mark.parametrize("data", [b"", b"PK\3\4", b"PK\5\6" + b"\xff" * 18, b"text"])
    def test_a_damaged_zip_is_one_message(self, data: bytes, tmp_path: Path) -> None:
        (tmp_path / "a.zip").write_bytes(data)
        with pytest.raises(InputError, match="cannot be read"):
            list_zip(str(tmp_path / "a.zip"))

    def test_a_zip_whose_directory_is_damaged_is_one_message(self, tmp_path: Path) -> None:
        good = Path(self.make(tmp_path, "a/1.jpg")).read_bytes()
        start = good.index(b"PK\1\2")
        for at in range(start, len(good)):
            (tmp_path / "b.zip").write_bytes(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
            with contextlib.suppress(InputError):
                list_zip(str(tmp_path / "b.zip"))

    def test_too_many_entries_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_ENTRIES", 2)
        with pytest.raises(InputError, match="it has 3 entries, the limit is 2"):
            list_zip(self.make(tmp_path, "1", "2", "3"))

    def test_nor_do_they_take_memory(self, tmp_path: Path) -> None:
        entry = b"PK\1\2" + struct.pack("<HHHHHHLLLHHHHHLL", 20, 20, *[0] * 7, 1, *[0] * 6) + b"x"
        count = module.MAX_ENTRIES + 1
        end = b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, 1, 1, count * len(entry), 0, 0)
        (tmp_path / "a.zip").write_bytes(entry * count + end)
        prepare = "import sys\nfrom featstore.dataset.listing import list_zip"
        work = "try:\n    list_zip(sys.argv[1])\nexcept ValueError as error:\n    assert 'entries' in str(error)"
        assert mib_taken_by(prepare, work + "\nelse:\n    sys.exit('it was read')", tmp_path / "a.zip") < 32


def test_names_in_messages_are_few_and_printable() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some("abcdefg") == "a, b, c, d, e and 2 more"
    some(["caf\udce9"]).encode()
