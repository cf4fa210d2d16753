from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from featstore.errors import InputError, NoSpaceError, ReadOnlyError
from featstore.spec import Spec
from featstore.store import Store, compact


def tree(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_a_missing_folder_is_an_empty_store_and_stays_missing(store: Store, spec: Spec) -> None:
    assert not store.exists
    assert (store.namespaces(), store.size()) == ((), 0)
    assert store.namespace(spec).snapshot().rows == 0
    assert not store.path.exists()


def test_creating_writes_one_line(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "a" / "b", create=True)
    assert (store.path / "FORMAT").read_text() == "featstore store, format 2\n"
    assert store.exists
    assert tree(store.path) == ["FORMAT", "tmp"]


def test_creating_twice_is_the_same_as_once(store: Store) -> None:
    store.create()
    before = (store.path / "FORMAT").stat()
    assert store.create() is store
    assert (store.path / "FORMAT").stat().st_mtime_ns == before.st_mtime_ns


def test_a_future_format_is_named(store: Store) -> None:
    store.create()
    (store.path / "FORMAT").write_text("featstore store, format 3\n")
    with pytest.raises(InputError, match="has format 3"):
        Store.open(store.path)


@pytest.mark.parametrize("line", ["", "featstore store, format x\n", "something else", "\xff\xfe", "format 1\n" * 99])
def test_another_format_file_is_refused(store: Store, line: str) -> None:
    store.create()
    (store.path / "FORMAT").write_bytes(line.encode("latin-1"))
    with pytest.raises(InputError, match="not a featstore store"):
        Store.open(store.path)


def test_a_folder_with_other_things_is_refused_and_not_touched(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match=r"holiday\.jpg"):
        Store.open(tmp_path, create=True)
    assert tree(tmp_path) == ["holiday.jpg"]


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(InputError, match="not a featstore store"):
        Store.open(tmp_path / "file")


@pytest.mark.parametrize("name", ["", "tmp", "ns", "seg"])
@pytest.mark.parametrize("kind", ["file", "pipe", "dangling link"])
def test_what_is_in_the_place_of_a_folder_is_named(
    store: Store, spec: Spec, make_rows: Any, write: Any, name: str, kind: str
) -> None:
    if name:
        store.create()
    place = store.namespace(spec).segment_folder if name == "seg" else store.path / name
    if place.is_dir():
        place.rmdir()
    place.parent.mkdir(parents=True, exist_ok=True)
    {"file": place.touch, "pipe": lambda: os.mkfifo(place), "dangling link": lambda: place.symlink_to("gone")}[kind]()
    with pytest.raises(InputError) as raised:
        write(Store.open(store.path).namespace(spec), make_rows(2))
    assert str(place) == str(raised.value.where)
    assert raised.value.todo


def test_a_store_that_has_lost_its_format_says_how_to_have_it_back(
    store: Store, spec: Spec, make_rows: Any, write: Any
) -> None:
    write(store.namespace(spec), make_rows(5))
    (store.path / "FORMAT").unlink()
    with pytest.raises(InputError, match="not a featstore store") as raised:
        Store.open(store.path)
    command = str(raised.value.todo).rpartition(": ")[2]
    subprocess.run(["sh", "-c", command], cwd=store.path, check=True)
    [namespace] = Store.open(store.path).namespaces()
    assert namespace.snapshot().rows == 5


@pytest.mark.parametrize("size", [257, 2**24])
def test_an_endless_format_file_is_refused(store: Store, size: int) -> None:
    store.create()
    os.truncate(store.path / "FORMAT", size)
    with pytest.raises(InputError, match="FORMAT: it has more than 256 bytes"):
        Store.open(store.path)


@pytest.mark.parametrize("name", ["tmp", "scan", "ledger", "ns", "ns/F", "ns/F/seg", "ns/F/quarantine"])
def test_a_store_with_a_link_for_a_folder_is_refused_by_name_and_nothing_behind_it_is_touched(
    store: Store, spec: Spec, make_rows: Any, write: Any, tmp_path: Path, name: str
) -> None:
    namespace, elsewhere = store.namespace(spec), tmp_path / "Documents"
    write(namespace, make_rows(2))
    folder = store.path / name.replace("F", spec.fingerprint)
    if folder.exists():
        folder.rename(elsewhere)
    elsewhere.mkdir(exist_ok=True)
    folder.symlink_to(elsewhere)
    (elsewhere / "letter").write_bytes(b"x")
    os.utime(elsewhere / "letter", (time.time() - 90_000,) * 2)
    before = tree(elsewhere)
    uses = (
        lambda: Store.open(store.path),
        lambda: Store.open(store.path, create=True),
        store.check_writable,  # a process that opened the store before
        lambda: namespace.writer({}),
        lambda: compact(store, wanted=lambda digests: digests[:, 0] < 0),
    )
    for use in uses:
        with pytest.raises(InputError, match="is a link") as caught:
            use()
        assert caught.value.where == folder
    assert tree(elsewhere) == before


def test_the_folder_of_a_store_may_be_a_link_itself(store: Store, spec: Spec, make_rows: Any, write: Any) -> None:
    write(store.namespace(spec), make_rows(2))
    store.path.rename(store.path.with_name("elsewhere"))
    store.path.symlink_to("elsewhere")
    write(Store.open(store.path).namespace(spec), make_rows(3, seed=1))
    assert Store.open(store.path).namespace(spec).snapshot().rows == 5


@pytest.mark.parametrize("left", [[], ["tmp"], ["scan", "tmp"], ["ledger"]])
def test_what_an_unfinished_creation_left_is_an_empty_store(tmp_path: Path, left: list[str]) -> None:
    for name in left:
        (tmp_path / name).mkdir()
    assert Store.open(tmp_path).namespaces() == ()
    assert Store.open(tmp_path, create=True).exists


def test_a_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store.open("~/features").path == tmp_path / "features"


def test_namespaces_are_found_again(store: Store, spec: Spec, make_rows: Any, write: Any) -> None:
    specs = [spec, spec.but(pooling="max"), spec.but(image_size=(299, 299))]
    for each in specs:
        write(store.namespace(each), make_rows(2))
    found = Store.open(store.path).namespaces()
    assert {n.spec for n in found} == set(specs)
    assert [n.fingerprint for n in found] == sorted(n.fingerprint for n in found)


@pytest.mark.parametrize("content", [None, b"", b"{}", b"null", b"\xff", b"[" * 9000])
def test_a_namespace_that_does_not_say_its_spec_is_passed_over(store: Store, spec: Spec, content: bytes | None) -> None:
    store.namespace(spec).writer({})
    path = store.namespace(spec).path / "spec.json"
    path.unlink() if content is None else path.write_bytes(content)
    assert store.namespaces() == ()


@pytest.mark.parametrize("content", [None, b"", b"{}"])
def test_a_spec_that_is_lost_is_found_in_the_segments(
    store: Store, spec: Spec, content: bytes | None, make_rows: Any, write: Any
) -> None:
    write(store.namespace(spec), make_rows(3))
    path = store.namespace(spec).path / "spec.json"
    path.unlink() if content is None else path.write_bytes(content)
    assert [one.spec for one in store.namespaces()] == [spec]


def test_a_namespace_under_another_name_is_passed_over(store: Store, spec: Spec) -> None:
    store.namespace(spec).writer({})
    store.namespace(spec).path.rename(store.path / "ns" / ("0" * 64))
    assert store.namespaces() == ()


def test_only_unfinished_files_that_are_a_day_old_are_leftovers(store: Store) -> None:
    store.create()
    left = {"tmp/1-abc", "scan/.rates.json.0123abcd", f"scan/.{'0' * 64}.npz.0123abcd", "ledger/.cats.csv.0123abcd"}
    others = {"scan/rates.json", f"scan/{'0' * 64}.npz", "scan/.mine", "ledger/cats.csv"}
    for name in (*left, *others, "tmp/2-new", "scan/.rates.json.00000000"):
        (store.path / name).parent.mkdir(exist_ok=True)
        (store.path / name).write_bytes(b"x")
    for name in (*left, *others):
        os.utime(store.path / name, (time.time() - 90_000,) * 2)
    assert {str(path.relative_to(store.path)) for path in store.leftovers()} == left


def test_the_size_counts_every_file(store: Store, spec: Spec, make_rows: Any, write: Any) -> None:
    write(store.namespace(spec), make_rows(2))
    assert store.size() == sum(p.stat().st_size for p in store.path.rglob("*") if p.is_file())


def test_a_check_for_writing_really_writes_and_tidies_up(store: Store) -> None:
    store.check_writable()
    assert tree(store.path) == ["FORMAT", "tmp"]


@pytest.mark.parametrize(("code", "kind"), [(errno.EROFS, ReadOnlyError), (errno.ENOSPC, NoSpaceError)])
def test_a_check_for_writing_says_what_is_in_the_way(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    store.create()

    def write(*_: Any) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(kind):
        store.check_writable()
    assert tree(store.path) == ["FORMAT", "tmp"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else")
def test_a_store_of_someone_else_can_be_read_and_not_written(
    store: Store, spec: Spec, make_rows: Any, write: Any
) -> None:
    write(store.namespace(spec), make_rows(5))
    code = (
        "import os, sys; from featstore.errors import ReadOnlyError; from featstore.store import Store, segment;"
        "os.setuid(65534); store = Store.open(sys.argv[1]);"
        "[namespace] = store.namespaces(); assert namespace.snapshot().rows == 5\n"
        "for write in (store.check_writable, lambda: namespace.writer({})):\n"
        "    try:\n"
        "        write()\n"
        "        sys.exit('it could write')\n"
        "    except ReadOnlyError as error:\n"
        "        assert error.exit_code == 3\n"
    )
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is closed to others
        Path(folder).chmod(0o755)
        copy = shutil.copytree(store.path, Path(folder) / "store")
        done = subprocess.run([sys.executable, "-c", code, str(copy)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_two_may_create_at_once(tmp_path: Path) -> None:
    code = "import sys; from featstore.store import Store; Store.open(sys.argv[1], create=True)"
    runs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "s")]) for _ in range(3)]
    assert [run.wait() for run in runs] == [0, 0, 0]
    assert Store.open(tmp_path / "s").exists


def test_opening_and_listing_needs_no_hdf5(store: Store, spec: Spec, make_rows: Any, write: Any) -> None:
    write(store.namespace(spec), make_rows(2))
    code = (
        "import sys; from featstore.store import Store;"
        "assert Store.open(sys.argv[1]).namespaces()[0].exists; assert 'h5py' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(store.path)], check=True)
