"""Datasets on object storage: the layouts of a folder, read object by object."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from featstore import cloud
from featstore.dataset import open_dataset
from featstore.errors import InputError, ReadOnlyError, StorageError
from featstore.records import Reason, Rejected
from featstore.scan import digest_all, lost_caches
from tests.buckets import connected, go_by
from tests.pictures import class_folders, png


@pytest.fixture
def photos(s3: str, tmp_path: Path) -> str:
    """The same pictures as those of ``tmp_path / "photos"``."""
    class_folders(tmp_path / "photos")
    connected(s3).put(str(tmp_path / "photos"), f"{s3}/photos", recursive=True)
    return f"{s3}/photos"


def test_it_is_the_dataset_that_a_folder_of_the_same_files_is(photos: str, tmp_path: Path) -> None:
    here, there = open_dataset(tmp_path / "photos"), open_dataset(photos)
    assert (there.name, there.paths, there.ids, there.classes) == (here.name, here.paths, here.ids, here.classes)
    assert (there.layout, there.source.location) == (here.layout, photos)
    np.testing.assert_array_equal(there.labels, here.labels)
    np.testing.assert_array_equal(there.splits, here.splits)
    np.testing.assert_array_equal(digest_all(there, None).values, digest_all(here, None).values)


def test_a_manifest_there_lists_what_lies_beside_it(photos: str, s3: str) -> None:
    lines = "path,label,split\ntrain/cats/0.png,cat,train\ntrain/dogs/0.png,dog,test\ntrain/dogs/none.png,dog,test\n"
    connected(photos).pipe_file(f"{photos}/list.csv", lines.encode())
    found = open_dataset(f"{photos}/list.csv")
    assert found.paths == ("train/cats/0.png", "train/dogs/0.png", "train/dogs/none.png")
    assert found.classes == ("cat", "dog")
    assert "1 listed file is missing" in " ".join(found.notes)
    connected(photos).pipe_file(f"{photos}/out.csv", b"path,label\n../other/0.png,cat\n")
    with pytest.raises(InputError, match="cannot be used"):
        open_dataset(f"{photos}/out.csv")


def test_odd_names_are_passed_over(photos: str) -> None:
    for name in (".hidden.png", "train/cats//twice.png", "train/../up.png", "train/cats/"):
        connected(photos).pipe_file(f"{photos}/{name}", png(99))
    found = open_dataset(photos)
    assert len(found) == 36
    assert not [path for path in found.paths if "hidden" in path or ".." in path]


@pytest.mark.parametrize(
    ("name", "said"),
    [("nothing", "there are no objects at this place"), ("photos.zip", "a zip is read from a disk alone")],
)
def test_what_cannot_be_read_there_is_told(photos: str, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_dataset(photos.replace("photos", name))


def test_an_object_that_changes_is_read_again_and_others_are_not(photos: str, tmp_path: Path) -> None:
    folder = tmp_path / "scan"
    folder.mkdir()
    first = digest_all(open_dataset(photos), folder)
    connected(photos).pipe_file(f"{photos}/train/cats/0.png", png(1234))
    second = digest_all(open_dataset(photos), folder)
    changed = np.flatnonzero((first.values != second.values).any(axis=1))
    assert [open_dataset(photos).paths[at] for at in changed] == ["train/cats/0.png"]
    assert lost_caches(folder) == []


def expired(*_: object, **__: object) -> None:
    raise PermissionError("the keys have expired")


def test_what_is_gone_is_a_reject_and_who_does_not_answer_an_error(
    photos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = open_dataset(photos)
    connected(photos).rm_file(f"{photos}/{found.paths[0]}")
    with pytest.raises(Rejected) as rejected:
        found.source.read(found.paths[0], 10**6)
    assert rejected.value.reason is Reason.UNREADABLE
    with pytest.raises(Rejected) as rejected:
        found.source.read(found.paths[1], 10)
    assert rejected.value.reason is Reason.FILE_TOO_LARGE
    with monkeypatch.context() as patch:
        patch.setattr(cloud._connected(photos)[0], "cat_file", expired)
        with pytest.raises(ReadOnlyError, match="the keys have expired"):
            found.source.read(found.paths[1], 10**6)
    go_by(monkeypatch, 1)
    with pytest.raises(StorageError):
        found.source.read(found.paths[1], 10**6)


def test_another_process_gets_the_place_and_no_listing(photos: str) -> None:
    found = open_dataset(photos)
    there = pickle.loads(pickle.dumps(found.source))
    assert there.stamp(found.paths[0]) == found.source.stamp(found.paths[0])
    assert there.read(found.paths[0], 10**6) == found.source.read(found.paths[0], 10**6)
    assert len(pickle.dumps(found.source)) < 500


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    class_folders(tmp_path / "photos")
    assert open_dataset(f"file://{tmp_path}/photos").source.location == str(tmp_path / "photos")
