"""Objects below a URL: what is read, written, listed, and what is said when nobody answers."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest

from featstore import cloud
from featstore.cloud import Bucket, is_url, joined, local_path
from featstore.errors import InputError, ReadOnlyError, StorageError
from tests.buckets import conflicting, go_by, slowly, troubled, way
from tests.commands import ROOT
from tests.pictures import class_folders


@pytest.fixture(params=["s3", "memory"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    """An empty place below a URL."""
    return Bucket.at("memory://a/place" if request.param == "memory" else f"{request.getfixturevalue('s3')}/a/place")


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    fsspec.filesystem("memory").store.clear()


@pytest.mark.parametrize(
    ("place", "url"), [("s3://b/x", True), ("memory://x", True), ("C:\\x", False), ("s3:/b", False), ("a/b", False)]
)
def test_a_url_is_told_from_a_path(place: str, url: bool) -> None:
    assert is_url(place) == url


def test_a_file_url_is_a_path_and_what_lies_below_a_place_can_be_named() -> None:
    assert local_path("file:///some%20where/x") == "/some where/x"
    assert local_path("s3://b/x") == "s3://b/x"
    assert joined("s3://b/x/", "y/z") == "s3://b/x/y/z"
    assert joined("/b", "y") == str(Path("/b/y"))


def test_an_object_is_written_once_and_read_as_far_as_asked(bucket: Bucket) -> None:
    assert bucket.create("seg/x", b"first")
    assert not bucket.create("seg/x", b"other")
    assert (bucket.read("seg/x", 3), bucket.read("seg/x", 100)) == (b"fir", b"first")
    bucket.replace("seg/x", b"")
    assert bucket.read("seg/x", 100) == b""
    assert bucket.stamp("seg/x").size == 0


def test_a_listing_has_objects_and_folders_one_level_deep_and_all_of_them_below(bucket: Bucket) -> None:
    for name in ("FORMAT", "ns/a/seg/1", "ns/a/seg/2", "ns/b/spec"):
        bucket.create(name, name.encode())
    assert {name: stamp and stamp.size for name, stamp in bucket.folder().items()} == {"FORMAT": 6, "ns": None}
    assert {*bucket.folder("ns")} == {"a", "b"}
    assert bucket.folder("nowhere") == {}
    assert {name for name, _ in bucket.files()} == {"FORMAT", "ns/a/seg/1", "ns/a/seg/2", "ns/b/spec"}
    assert not {".", ".."} & {*bucket.folder("ns/a")}


def test_another_content_has_another_stamp(bucket: Bucket) -> None:
    bucket.create("x", b"1234")
    before = bucket.stamp("x")
    assert bucket.stamp("x") == before == bucket.folder()["x"]
    bucket.replace("x", b"4321")
    assert bucket.stamp("x") != before


def test_objects_are_copied_fetched_and_removed(bucket: Bucket, tmp_path: Path) -> None:
    bucket.create("x", b"data")
    bucket.copy("x", "aside/x")
    bucket.remove("x")
    bucket.remove("x")
    bucket.download("aside/x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"data"
    with pytest.raises(FileNotFoundError):
        bucket.stamp("x")
    with pytest.raises(FileNotFoundError):
        bucket.read("x", 1)
    with pytest.raises(FileNotFoundError):
        bucket.download("x", tmp_path / "y")


def test_what_is_not_there_yet_is_empty_and_a_bucket_that_is_not_is_told(s3: str) -> None:
    assert Bucket.at(f"{s3}-none/x").folder() == {}
    for write in (Bucket.create, Bucket.replace):
        with pytest.raises(InputError, match="no such bucket") as failed:
            write(Bucket.at(f"{s3}-none/x"), "y", b"")
        assert failed.value.where == f"{s3}-none/x"


def test_who_does_not_answer_is_an_error_that_says_what_to_do(
    s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    go_by(monkeypatch, 1)
    with pytest.raises(StorageError, match="cannot read this: Could not connect") as failed:
        Bucket.at(f"{s3}/x").read("y", 1)
    assert failed.value.where == f"{s3}/x/y"
    assert "credentials" in str(failed.value.todo)


def test_no_permission_is_told_apart(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(cloud._connected(bucket.url)[0], "cat_file", refuse)
    with pytest.raises(ReadOnlyError, match="cannot read this: Access Denied"):
        bucket.read("x", 1)


def test_a_connection_that_breaks_is_tried_again(
    s3: str, s3_port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = bytes(range(256)) * 4000
    Bucket.at(f"{s3}/x").create("large", data)
    broken: list[int] = []

    def treat(number: int, piece: bytes) -> bytes | None:
        if len(broken) < 2 and len(piece) > 4000:
            broken.append(number)
            return None
        return piece

    with way(s3_port, treat) as port:
        go_by(monkeypatch, port)
        there = Bucket.at(f"{s3}/x")
        assert there.read("large", 2**24) == data
        assert broken
        broken.clear()
        there.download("large", tmp_path / "large")
        assert broken
    assert (tmp_path / "large").read_bytes() == data


def test_a_connection_that_is_reset_or_a_storage_in_trouble_is_asked_again(
    s3: str, s3_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Bucket.at(f"{s3}/x").create("y", b"data")
    for treat, resets in ((lambda _, piece: piece, 2), (troubled(2), 0)):
        with way(s3_port, treat, resets=resets) as port:
            go_by(monkeypatch, port)
            assert Bucket.at(f"{s3}/x").read("y", 10) == b"data"
            assert Bucket.at(f"{s3}/x").create(f"z{resets}", b"")


def test_an_object_that_somebody_else_writes_at_this_instant_is_tried_again(
    s3: str, s3_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud, "_PAUSES", (0.01, 0.01))
    with way(s3_port, conflicting(2)) as port:
        go_by(monkeypatch, port)
        assert Bucket.at(f"{s3}/x").create("y", b"data")
        assert Bucket.at(f"{s3}/x").read("y", 10) == b"data"
    with way(s3_port, conflicting(3)) as port:
        go_by(monkeypatch, port)
        with pytest.raises(StorageError, match="ConditionalRequestConflict"):
            Bucket.at(f"{s3}/x").create("z", b"data")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_here_is_no_trouble_of_the_storage(
    s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    there = Bucket.at(f"{s3}/x")
    there.create("y", b"data")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(number, "full")  # a write names no file

    monkeypatch.setattr(cloud._connected(there.url)[0], "get_file", full)
    with pytest.raises(OSError, match="full") as failed:
        there.download("y", tmp_path / "y")
    assert type(failed.value) is OSError


def test_a_place_of_many_objects_is_listed_page_by_page(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there, pages = Bucket.at(f"{s3}/x"), []
    for number in range(7):
        there.create(f"many/{number}", bytes(number))
        there.create(f"many/folder-{number}/y", b"")
    system = cloud._connected(there.url)[0]
    ask = system.call_s3

    def three(method: str, **words: Any) -> Any:
        pages.append(ask(method, MaxKeys=3, **words))
        return pages[-1]

    monkeypatch.setattr(system, "call_s3", three)
    found = there.folder("many")
    assert {name: stamp.size for name, stamp in found.items() if stamp} == {str(number): number for number in range(7)}
    assert {name for name, stamp in found.items() if stamp is None} == {f"folder-{number}" for number in range(7)}
    assert len(pages) == 5


def test_a_request_of_a_listing_is_measured_on_a_connection_that_is_there(
    s3: str, s3_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with way(s3_port, slowly(0.1)) as port:
        go_by(monkeypatch, port)
        there = Bucket.at(f"{s3}/x")
        assert there.folder("nowhere") == {}
        assert 0.1 <= there.page_seconds() < 2


def test_a_million_objects_in_one_place_take_less_than_half_a_kilobyte_each(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Bucket.at(f"{s3}/x")
    when = datetime(2026, 1, 1, tzinfo=UTC)

    def page(_: str, ContinuationToken: str = "0", **__: Any) -> dict[str, Any]:
        start = int(ContinuationToken)
        keys = (
            {"Key": f"x/{n}.jpg", "Size": n, "LastModified": when, "ETag": f'"{n:032x}"'}
            for n in range(start, start + 1000)
        )
        return {"Contents": list(keys), "IsTruncated": start < 29_000, "NextContinuationToken": str(start + 1000)}

    monkeypatch.setattr(cloud._connected(there.url)[0], "call_s3", page)
    tracemalloc.start()
    found = there.folder()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 30_000
    assert most / len(found) < 500


def test_a_place_that_nothing_here_can_talk_to_is_told() -> None:
    with pytest.raises(InputError, match="nothing here can talk to such a place"):
        Bucket.at("nonsense://b/x")


def test_a_place_that_is_called_at_once_and_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def called(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(fsspec, "url_to_fs", called)
    with pytest.raises(StorageError, match="Name or service not known") as raised:
        Bucket.at("ftp://nowhere/store")
    assert raised.value.where == "ftp://nowhere/store"


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud._connected_in.cache_clear()
    monkeypatch.setattr(fsspec, "url_to_fs", lambda *_, **__: (_ for _ in ()).throw(ImportError("Install s3fs")))
    with pytest.raises(InputError, match="this place needs s3fs, which is not installed") as failed:
        Bucket.at("s3://b/elsewhere")
    assert failed.value.todo == 'pip install s3fs (the extra "cloud" has it)'
    monkeypatch.setitem(sys.modules, "fsspec", None)
    for url, package in (("s3://b/elsewhere", "s3fs"), ("memory://b", "fsspec")):
        with pytest.raises(InputError, match=f"needs {package}, which is not installed"):
            Bucket.at(url)


def test_nothing_of_this_is_loaded_for_places_on_a_disk(tmp_path: Path) -> None:
    names = {"fsspec", "s3fs", "gcsfs", "aiohttp", "botocore", "ray", "pyarrow", "pandas"}
    program = (
        "import sys, featstore, pytest; from tests.stubs import put_in_place; put_in_place(pytest.MonkeyPatch()); "
        "done = featstore.extract(sys.argv[1], store=sys.argv[2]); "
        f"print(done.report.specs[0].computed, *({names} & {{*sys.modules}}))"
    )
    words = [sys.executable, "-c", program, class_folders(tmp_path / "photos"), tmp_path / "store"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["36"]
