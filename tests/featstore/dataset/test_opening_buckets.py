"""Datasets on object storage: the layouts of a folder, read object by object."""

from __future__ import annotations

import pickle
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featstore
from featstore import Request, cloud
from featstore.dataset import open_dataset
from featstore.errors import InputError, ReadOnlyError, StorageError
from featstore.records import Reason, Rejected
from featstore.scan import digest_all, lost_caches
from tests.buckets import connected, go_by
from tests.pictures import class_folders, png
from tests.stubs import Bases


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
    assert "passed over 2 places with objects whose names are no paths (with //, . or ..)" in found.notes
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


def test_keys_that_are_refused_amid_a_run_end_it_and_make_no_rejects(
    photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bases: Bases
) -> None:
    system = cloud._connected(photos)[0]
    read, asked = system.cat_file, count()

    def refusing(*words: Any, **named: Any) -> Any:
        return read(*words, **named) if next(asked) < 15 else expired()

    with monkeypatch.context() as patch:
        patch.setattr(system, "cat_file", refusing)
        with pytest.raises(ReadOnlyError, match="the keys have expired"):
            featstore.extract(photos, Request("vgg16", image_size=32), store=tmp_path / "store")
    done = featstore.extract(photos, Request("vgg16", image_size=32), store=tmp_path / "store")
    assert (len(done.report.rejects), done.report.specs[0].hits + done.report.specs[0].computed) == (0, 36)


def test_an_object_that_alone_is_refused_is_a_reject(photos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = open_dataset(photos)
    system = cloud._connected(photos)[0]
    read = system.cat_file

    def refusing(path: str, *words: Any, **named: Any) -> Any:
        return expired() if path.endswith(found.paths[0]) else read(path, *words, **named)

    monkeypatch.setattr(system, "cat_file", refusing)
    with pytest.raises(ReadOnlyError):  # nothing has been read yet
        found.source.read(found.paths[0], 10**6)
    found.source.read(found.paths[1], 10**6)
    with pytest.raises(Rejected) as rejected:
        found.source.read(found.paths[0], 10**6)
    assert (rejected.value.reason, "expired" in rejected.value.detail) == (Reason.UNREADABLE, True)


def test_another_process_gets_the_place_and_what_is_known_of_its_share(
    photos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = open_dataset(photos)
    share = found.unlabelled().select([3, 4])
    there = pickle.loads(pickle.dumps(share))
    assert len(pickle.dumps(share)) < 1500
    assert there.source.read(there.paths[0], 10**6) == found.source.read(found.paths[3], 10**6)
    go_by(monkeypatch, 1)
    assert [there.source.stamp(path) for path in there.paths] == [found.source.stamp(path) for path in found.paths[3:5]]


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    class_folders(tmp_path / "photos")
    assert open_dataset(f"file://{tmp_path}/photos").source.location == str(tmp_path / "photos")
