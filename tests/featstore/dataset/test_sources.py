from __future__ import annotations

import os
import socket
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from featstore.dataset.listing import list_zip
from featstore.dataset.sources import FolderSource, ZipSource
from featstore.records import Reason, Rejected
from tests.memory import mib_taken_by


def zip_source(path: Path) -> ZipSource:
    _, archive, entries = list_zip(str(path))
    return ZipSource(str(path), archive, entries)


_PREPARED = """
import sys
from contextlib import suppress
from featstore.records import Rejected
from tests.featstore.dataset.test_sources import Path, zip_source
source = zip_source(Path(sys.argv[1]))
"""
_READ = """
with suppress(Rejected):
    source.read("bomb", 10**6)
with suppress(Rejected):
    source.first("bomb", 10**6)
"""


def reason_of(source: FolderSource | ZipSource, path: str, limit: int = 100) -> Reason:
    with pytest.raises(Rejected) as caught:
        source.read(path, limit)
    return caught.value.reason


class TestFolder:
    def test_a_file_is_read_whole(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"x" * 100)
        source = FolderSource(str(tmp_path))
        assert source.read("a", 100) == b"x" * 100
        assert source.first("a", 32) == b"x" * 32
        assert source.first("a", 101) == b"x" * 100

    def test_the_stamp_is_what_the_file_system_says(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"abc")
        stamp, found = FolderSource(str(tmp_path)).stamp("a"), (tmp_path / "a").stat()
        assert (stamp.size, stamp.mtime_ns, stamp.ctime_ns, stamp.inode) == (
            3, found.st_mtime_ns, found.st_ctime_ns, found.st_ino,
        )  # fmt: skip

    def test_a_file_over_the_limit_is_rejected(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"x" * 101)
        assert reason_of(FolderSource(str(tmp_path)), "a") == Reason.FILE_TOO_LARGE

    def test_a_huge_file_is_rejected_without_reading_it(self, tmp_path: Path) -> None:
        with (tmp_path / "a").open("wb") as file:
            file.truncate(1 << 40)
        assert reason_of(FolderSource(str(tmp_path)), "a", 1 << 36) == Reason.FILE_TOO_LARGE

    @pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc")
    def test_a_file_that_announces_no_size_is_limited_all_the_same(self) -> None:
        assert reason_of(FolderSource("/proc/self"), "maps") == Reason.FILE_TOO_LARGE

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
    def test_a_fifo_is_never_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        source = FolderSource(str(tmp_path))
        assert reason_of(source, "fifo") == Reason.UNREADABLE
        with pytest.raises(Rejected, match="not a regular file"):
            source.first("fifo", 32)

    def test_sockets_devices_and_folders_are_not_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)  # a socket's path must be short
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
            assert reason_of(FolderSource("."), "socket") == Reason.UNREADABLE
        assert reason_of(FolderSource("/dev"), "zero") == Reason.UNREADABLE
        assert reason_of(FolderSource("/"), "dev") == Reason.UNREADABLE

    @pytest.mark.parametrize("path", ["missing", "a\0b", "n" * 5000])
    def test_what_cannot_be_opened_is_rejected_in_words(self, path: str, tmp_path: Path) -> None:
        source = FolderSource(str(tmp_path))
        assert reason_of(source, path) == Reason.UNREADABLE
        with pytest.raises(Rejected):
            source.stamp(path)

    def test_a_name_that_is_not_utf8_is_read(self, tmp_path: Path) -> None:
        name = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
        Path(os.fsdecode(name)).write_bytes(b"x")
        assert FolderSource(str(tmp_path)).read("caf\udce9.jpg", 9) == b"x"


class TestZip:
    def make(self, tmp_path: Path, **entries: bytes) -> Path:
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in entries.items():
                archive.writestr(name, data)
        return tmp_path / "a.zip"

    def test_entries_are_read_in_many_threads(self, tmp_path: Path) -> None:
        contents = {f"e{i}": os.urandom(5000) for i in range(50)}
        source = zip_source(self.make(tmp_path, **contents))
        with ThreadPoolExecutor(8) as threads:
            read = list(threads.map(lambda name: source.read(name, 10_000), [*contents] * 10))
        assert read == [*contents.values()] * 10

    def test_a_stamp_changes_with_the_archive(self, tmp_path: Path) -> None:
        path = self.make(tmp_path, a=b"one", b=b"two")
        before = zip_source(path)
        assert before.stamp("a") == zip_source(path).stamp("a") != before.stamp("b")
        os.utime(path, ns=(1, 1))
        assert zip_source(path).stamp("a") != before.stamp("a")
        with pytest.raises(Rejected, match="no such entry"):
            before.stamp("c")

    def test_a_bomb_is_not_inflated_beyond_the_limit(self, tmp_path: Path) -> None:
        source = zip_source(self.make(tmp_path, bomb=bytes(5_000_000)))
        assert reason_of(source, "bomb", 1000) == Reason.FILE_TOO_LARGE
        assert source.first("bomb", 32) == bytes(32)

    def test_a_bomb_that_lies_about_its_size_is_rejected(self, tmp_path: Path) -> None:
        path = self.make(tmp_path, bomb=bytes(5_000_000))
        data = path.read_bytes().replace(struct.pack("<I", 5_000_000), struct.pack("<I", 50))
        path.write_bytes(data)
        assert reason_of(zip_source(path), "bomb", 1000) == Reason.UNREADABLE

    def test_a_flipped_byte_is_found_by_its_checksum(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("a", b"A" * 40)
        data = (tmp_path / "a.zip").read_bytes().replace(b"AAAA", b"AABA", 1)
        (tmp_path / "a.zip").write_bytes(data)
        source = zip_source(tmp_path / "a.zip")
        assert reason_of(source, "a") == Reason.UNREADABLE
        assert reason_of(source, "a", 40) == Reason.UNREADABLE

    def test_encrypted_and_unknown_compression_are_rejected(self, tmp_path: Path) -> None:
        path = self.make(tmp_path, a=b"secret")
        plain = path.read_bytes()
        central = plain.index(b"PK\1\2")
        locked = bytearray(plain)
        locked[6] |= 1
        locked[central + 8] |= 1
        path.write_bytes(locked)
        assert reason_of(zip_source(path), "a") == Reason.UNREADABLE
        strange = bytearray(plain)
        strange[8] = strange[central + 10] = 99
        path.write_bytes(strange)
        assert reason_of(zip_source(path), "a") == Reason.UNREADABLE

    def test_an_entry_that_is_not_there_is_rejected(self, tmp_path: Path) -> None:
        source = zip_source(self.make(tmp_path, a=b"x"))
        assert reason_of(source, "b") == Reason.UNREADABLE
        with pytest.raises(Rejected, match="no such entry"):
            source.first("b", 32)

    @pytest.mark.parametrize(("method", "name"), [(zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "LZMA")])
    def test_what_unpacks_without_measure_is_rejected_and_takes_no_memory(
        self, method: int, name: str, tmp_path: Path
    ) -> None:
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("bomb", bytes(32 * 2**20))
        assert path.stat().st_size < 100_000
        source = zip_source(path)
        with pytest.raises(Rejected, match=f"packed with {name}") as caught:
            source.first("bomb", 32)
        assert caught.value.reason == Reason.UNREADABLE
        assert mib_taken_by(_PREPARED, _READ, path) < 8

    def test_what_is_deflated_takes_the_memory_that_was_asked_for(self, tmp_path: Path) -> None:
        assert mib_taken_by(_PREPARED, _READ, self.make(tmp_path, bomb=bytes(64 * 2**20))) < 8
