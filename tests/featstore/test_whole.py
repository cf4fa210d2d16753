from __future__ import annotations

import errno
from pathlib import Path
from typing import BinaryIO

import pytest

from featstore import whole
from featstore.errors import NoSpaceError, StorageError
from featstore.whole import write_whole


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
