"""What is to become a file or a folder: there whole or not at all, and nothing is left of one that was killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from featstore.errors import InputError
from featstore.store import draft as module
from featstore.store.draft import drafted


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_file_and_a_folder_take_the_place_of_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with drafted(tmp_path / "file") as draft:
        draft.write_text("new")
        assert (tmp_path / "file").read_text() == "old"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()
    with drafted(tmp_path / "folder") as draft:
        draft.mkdir()
        (draft / "new").touch()
    assert (tmp_path / "file").read_text() == "new"
    assert names(tmp_path) == ["file", "folder", "folder/new"]


def test_what_a_killed_one_left_goes_and_what_it_had_moved_away_comes_back(tmp_path: Path) -> None:
    left = tmp_path / ".folder.export"
    (left / "new").mkdir(parents=True)
    (left / "new" / "part").touch()
    (left / "old").mkdir()
    (left / "old" / "kept").touch()
    with drafted(tmp_path / "folder") as draft:
        assert names(tmp_path / "folder") == ["kept"]
        assert not os.path.lexists(draft)
        draft.mkdir()
    assert names(tmp_path) == ["folder"]


def test_what_was_there_is_never_lost_even_where_it_cannot_be_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").touch()
    rename = os.rename

    def only_away(source: Path, to: Path) -> None:
        if to.name != "old":
            raise OSError(5, "no")
        rename(source, to)

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "rename", only_away)
        with pytest.raises(OSError, match="no"), drafted(tmp_path / "folder") as draft:
            draft.mkdir()
    assert ".folder.export/old/kept" in names(tmp_path)
    with pytest.raises(KeyError), drafted(tmp_path / "folder"):
        raise KeyError
    assert names(tmp_path) == ["folder", "folder/kept"]


def test_two_at_once_are_not_in_each_others_way(tmp_path: Path) -> None:
    with drafted(tmp_path / "file") as draft:
        draft.write_text("mine")
        with pytest.raises(InputError, match="another export to this place"), drafted(tmp_path / "file"):
            pass
    assert (tmp_path / "file").read_text() == "mine"
    assert names(tmp_path) == ["file"]


def test_nobody_writes_through_a_link_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "old").touch()
    (tmp_path / ".file.export").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError), drafted(tmp_path / "file"):  # noqa: PT011 - ENOTDIR or ELOOP
        pass
    assert names(tmp_path / "elsewhere") == ["old"]


def test_what_somebody_else_keeps_under_that_name_stays(tmp_path: Path) -> None:
    (tmp_path / ".file.export").mkdir()
    (tmp_path / ".file.export" / "letter.txt").touch()
    with drafted(tmp_path / "file") as draft:
        draft.touch()
    assert names(tmp_path) == [".file.export", ".file.export/letter.txt", "file"]
