from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from featstore import whole
from featstore.errors import NoSpaceError, StorageError
from featstore.whole import is_unfinished, read_small, write_whole


def test_a_file_appears_with_its_folder_and_replaces_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file"
    for content in (b"one", b"two"):
        write_whole(target, "write", lambda file, content=content: file.write(content))  # type: ignore[misc]
        assert target.read_bytes() == content
    assert [path.name for path in target.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), ValueError("a fault")])
def test_what_fails_leaves_what_was_there(error: Exception, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"before")

    def half(file: BinaryIO) -> None:
        file.write(b"ha")
        raise error

    with pytest.raises(NoSpaceError if isinstance(error, OSError) else ValueError):
        write_whole(target, "write", half)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert target.read_bytes() == b"before"


def test_it_has_its_name_only_when_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(whole.os, "fsync", fails)
    with pytest.raises(StorageError, match="keep a thing"):
        write_whole(tmp_path / "file", "keep a thing", lambda file: file.write(b"x"))
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_leaves_can_be_told_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(whole.os, "replace", killed)
    monkeypatch.setattr(whole.os, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "line\nbreak.csv", "write", b"x")
    [left] = tmp_path.iterdir()
    assert is_unfinished(left.name)
    others = ("rates.json", ".hidden", ".bashrc.old", f".{'0' * 64}.npz", ".x.0123ABCD", "x.0123abcd", ".0123abcd")
    assert not any(map(is_unfinished, others))


def test_a_small_file_is_read_up_to_its_last_byte_and_no_further(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert read_small(tmp_path / "link", 5) == b"12345"
    with pytest.raises(ValueError, match="more than 4 bytes"):
        read_small(tmp_path / "file", 4)
    with pytest.raises(FileNotFoundError):
        read_small(tmp_path / "other", 4)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_regular_file_is_refused_at_once(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "file")
    said: list[object] = []

    def read() -> None:
        try:
            said.append(read_small(tmp_path / "file", 4))
        except ValueError as error:
            said.append(str(error))

    thread = threading.Thread(target=read, daemon=True)  # one that waits for a pipe does not keep the tests from ending
    thread.start()
    thread.join(5)
    assert said == ["it is not a regular file"]
