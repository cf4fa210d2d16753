from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore.errors import StorageError
from featstore.spec import Spec
from featstore.store import Namespace, Store, verify
from featstore.store import checked as checked_module
from featstore.store import commit as committing
from featstore.store import rows as rows_module
from featstore.store import segment as segment_module


def test_it_need_not_exist(namespace: Namespace) -> None:
    assert not namespace.exists
    assert namespace.snapshot().rows == 0
    assert not namespace.path.exists()


def test_its_folder_is_named_after_the_spec_it_holds(namespace: Namespace, spec: Spec) -> None:
    namespace.writer({})
    content = (namespace.path / "spec.json").read_bytes()
    assert hashlib.sha256(content).hexdigest() == namespace.fingerprint == namespace.path.name
    assert Spec.from_json(content.decode()) == spec


def test_it_exists_once_it_has_a_segment(namespace: Namespace, make_rows: Any, write: Any) -> None:
    namespace.writer({})
    assert not namespace.exists
    write(namespace, make_rows(1))
    assert namespace.exists


def test_a_damaged_spec_file_is_written_again(namespace: Namespace, spec: Spec) -> None:
    namespace.writer({})
    (namespace.path / "spec.json").write_text("{}")
    namespace.writer({})
    assert (namespace.path / "spec.json").read_text() == spec.to_json()


def test_other_files_in_the_folder_are_passed_over(namespace: Namespace, segment_path: Path) -> None:
    for name in ("README", f"{'0' * 64}.h5.part", f"{'0' * 63}.h5", f"{'G' * 64}.h5"):
        (segment_path.parent / name).write_bytes(b"x")
    assert (namespace.snapshot().rows, namespace.snapshot().damaged) == (8, ())


def test_a_damaged_segment_serves_nothing_and_is_told(namespace: Namespace, make_rows: Any, write: Any) -> None:
    first, second = make_rows(5, seed=1), make_rows(5, seed=2)
    write(namespace, first)
    write(namespace, second)
    victim = namespace.path / "seg" / f"{namespace.snapshot().names[0]}.h5"
    victim.write_bytes(victim.read_bytes()[:-1])
    snapshot = namespace.snapshot()
    assert [d.name for d in snapshot.damaged] == [victim.stem]
    served = [bool((snapshot.lookup(rows.digests) == 0).all()) for rows in (first, second)]
    assert sorted(served) == [False, True]


def test_swapped_segments_are_both_noticed(namespace: Namespace, make_rows: Any, write: Any) -> None:
    for seed in (1, 2):
        write(namespace, make_rows(5, seed=seed))
    first, second = (namespace.path / "seg").iterdir()
    first.rename(first.parent / "other")
    second.rename(first)
    (first.parent / "other").rename(second)
    assert len(namespace.snapshot().damaged) == 2


def test_a_writer_sets_damage_aside_and_the_rows_can_be_written_again(
    namespace: Namespace, segment_path: Path, make_rows: Any, write: Any
) -> None:
    good = segment_path.read_bytes()
    segment_path.write_bytes(b"x" + good[1:])
    rows = make_rows(8, rejects=[7])
    assert (namespace.snapshot().lookup(rows.digests) == -1).all()
    write(namespace, rows)
    assert (namespace.snapshot().lookup(rows.digests)[:7] == 0).all()
    assert segment_path.read_bytes() == good  # the same rows: the same bytes under the same name
    assert (namespace.path / "quarantine" / segment_path.name).read_bytes() == b"x" + good[1:]


def test_quarantine_of_what_is_gone_is_no_error(namespace: Namespace, segment_path: Path) -> None:
    segment_path.write_bytes(b"x")
    [damage] = namespace.snapshot().damaged
    segment_path.unlink()
    namespace.quarantine(damage)
    assert not namespace.exists


def test_what_another_writer_has_mended_meanwhile_is_not_set_aside(
    namespace: Namespace, segment_path: Path, make_rows: Any, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = segment_path.read_bytes()
    segment_path.write_bytes(b"x" + good[1:])
    [damage] = namespace.snapshot().damaged
    write(Store.open(namespace.path.parents[1]).namespace(namespace.spec), make_rows(8, rejects=[7]))
    monkeypatch.setattr(os, "replace", lambda *_: pytest.fail("it was moved"))
    namespace.quarantine(damage)
    assert segment_path.read_bytes() == good


def test_segments_of_another_shape_than_most_are_set_aside(namespace: Namespace, make_rows: Any, write: Any) -> None:
    for seed, width in enumerate((4, 4, 5)):
        write(namespace, make_rows(3, seed=seed, shape=(width,)))
    assert len(namespace.snapshot().damaged) == 1
    namespace.writer({})
    assert (len(namespace.snapshot().names), namespace.snapshot().damaged) == (2, ())


def test_what_is_mended_just_before_the_move_is_put_back(
    namespace: Namespace, segment_path: Path, make_rows: Any, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, replace = segment_path.read_bytes(), os.replace
    segment_path.write_bytes(b"x" + good[1:])
    [damage] = namespace.snapshot().damaged

    def slow(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "replace", replace)
        write(namespace, make_rows(8, rejects=[7]))
        assert segment_path.read_bytes() == good
        replace(source, target)

    monkeypatch.setattr(os, "replace", slow)
    namespace.quarantine(damage)
    assert segment_path.read_bytes() == good


@pytest.mark.parametrize("first", ["file", "folder"])
def test_what_was_set_aside_before_is_in_nobodys_way(namespace: Namespace, segment_path: Path, first: str) -> None:
    segment_path.unlink()
    for kind in (first, "file", "folder", "file"):
        segment_path.write_bytes(b"x") if kind == "file" else segment_path.mkdir()
        namespace.writer({})
        assert not namespace.exists
    aside = {path.name for path in (namespace.path / "quarantine").iterdir()}
    assert len(aside) == 4
    assert segment_path.name in aside


@pytest.mark.parametrize("leads_to", ["itself", "below a file", "nowhere", "the segment"])
def test_a_link_in_the_place_of_a_segment_is_set_aside(
    namespace: Namespace, segment_path: Path, make_rows: Any, write: Any, leads_to: str, tmp_path: Path
) -> None:
    good = segment_path.rename(tmp_path / "good")
    where = {"itself": segment_path, "below a file": good / "x", "nowhere": tmp_path / "none", "the segment": good}
    segment_path.symlink_to(where[leads_to])
    assert [damage.problem for damage in namespace.snapshot().damaged] == ["it is not a regular file"]
    write(namespace, make_rows(8, rejects=[7]))
    assert segment_path.read_bytes() == good.read_bytes()
    assert not segment_path.is_symlink()
    assert (namespace.path / "quarantine" / segment_path.name).is_symlink()


def test_what_the_disk_tells_nothing_of_is_set_aside(
    namespace: Namespace, segment_path: Path, make_rows: Any, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, real = segment_path.lstat().st_ino, os.lstat

    def failing(path: Any, **options: Any) -> os.stat_result:
        about = real(path, **options)
        if about.st_ino == lost:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return about

    monkeypatch.setattr(os, "lstat", failing)
    [damage] = namespace.snapshot().damaged
    assert damage.problem == "it cannot be read: Input/output error"
    lazily = Store.open(namespace.path.parents[1]).namespace(namespace.spec).snapshot(read_data=False)
    assert lazily.damaged == (damage,)
    write(namespace, make_rows(8, rejects=[7]))
    assert (namespace.snapshot().rows, namespace.snapshot().damaged) == (8, ())


def test_what_is_found_by_a_look_for_lookups_is_durable(
    namespace: Namespace, segment_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever wrote it may have been killed just before that, and nobody will write it again."""
    forced: list[Path] = []
    monkeypatch.setattr(committing, "fsync_folder", forced.append)
    namespace.snapshot()
    assert forced == []
    namespace.snapshot(lookups_only=True)
    assert forced == [segment_path.parent]


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EIO])
def test_where_nothing_may_be_written_it_is_found_all_the_same(
    namespace: Namespace, segment_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fsync(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    if code == errno.EIO:
        with pytest.raises(StorageError, match="force the segments to the disk"):
            namespace.snapshot(lookups_only=True)
    else:
        assert namespace.snapshot(lookups_only=True).rows == 8


def test_files_are_read_once_in_a_process(
    namespace: Namespace, segment_path: Path, store: Store, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace.snapshot()
    monkeypatch.setattr(segment_module, "open_segment", lambda *_, **__: pytest.fail("opened again"))
    assert store.namespace(spec).snapshot().rows == 8
    assert store.namespace(spec).snapshot(read_data=False).rows == 8


def test_a_segment_that_is_gone_is_let_go_of(
    namespace: Namespace, segment_path: Path, make_rows: Any, write: Any
) -> None:
    write(namespace, make_rows(3, seed=9))
    assert namespace.snapshot().rows == 11
    segment_path.unlink()
    assert namespace.snapshot().rows == 3
    assert [path.exists() for path in namespace._opened] == [True], "keys of rows that are gone are in memory"


def test_a_file_that_changed_is_checked_again(namespace: Namespace, segment_path: Path) -> None:
    assert namespace.snapshot().damaged == ()
    content = segment_path.read_bytes()
    segment_path.write_bytes(content[:-9] + b"\0" * 9)
    assert len(namespace.snapshot().damaged) == 1
    segment_path.write_bytes(content)
    assert namespace.snapshot().damaged == ()


def test_a_light_look_is_followed_by_a_thorough_one(
    namespace: Namespace, make_rows: Any, write: Any, segment_path: Path
) -> None:
    content = bytearray(segment_path.read_bytes())
    row = np.ascontiguousarray(make_rows(8, rejects=[7]).features[3]).tobytes()
    content[bytes(content).index(row)] ^= 1
    segment_path.write_bytes(content)
    assert namespace.snapshot(read_data=False).damaged == ()
    assert len(namespace.snapshot().damaged) == 1


def test_segments_that_vanish_while_they_are_listed_make_it_list_again(
    namespace: Namespace, segment_path: Path, make_rows: Any, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, rows = segment_module.open_segment, make_rows(3, seed=9)

    def compacted_meanwhile(path: Path, *args: Any, **options: Any) -> Any:
        if path == segment_path and path.exists():
            path.unlink()
            monkeypatch.setattr(segment_module, "open_segment", real)
            write(namespace, rows)
        return real(path, *args, **options)

    monkeypatch.setattr(segment_module, "open_segment", compacted_meanwhile)
    snapshot = namespace.snapshot()
    assert (snapshot.lookup(rows.digests) == 0).all()
    assert snapshot.rows == 3


def test_a_writer_sweeps_what_killed_processes_left(namespace: Namespace, store: Store) -> None:
    store.create()
    old, new = store.private_folder / "old", store.private_folder / "new"
    old.write_bytes(b"x")
    new.write_bytes(b"x")
    os.utime(old, (time.time() - 90_000,) * 2)
    namespace.writer({})
    assert [p.name for p in store.private_folder.iterdir()] == ["new"]


def test_a_summary_counts_for_people(namespace: Namespace, segment_path: Path) -> None:
    told = namespace.summary().to_json()
    assert (told["rows"], told["rejects"], told["segments"], told["damaged"]) == (7, 1, 1, 0)
    assert told["bytes"] == segment_path.stat().st_size
    assert told["image_size"] == [150, 150]


def test_a_disk_that_cannot_be_listed_is_an_error_and_no_empty_store(
    namespace: Namespace, segment_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scandir(_: Any) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(StorageError):
        namespace.snapshot()


def test_what_made_the_rows_is_recorded(namespace: Namespace, make_rows: Any, spec: Spec) -> None:
    with namespace.writer({"keras": "3.15", "runtime": "openvino"}) as writer:
        writer.add(b"d" * 32, 0, np.ones(3, np.float32))
    [path] = (namespace.path / "seg").iterdir()
    assert segment_module.open_segment(path, spec).recorded == {"keras": "3.15", "runtime": "openvino"}


def test_compressed_segments_read_like_any_other(namespace: Namespace, make_rows: Any) -> None:
    rows = make_rows(300, shape=(64,))
    with namespace.writer({}, codec="zstd") as writer:
        for digest, row in zip(rows.digests, rows.features, strict=True):
            writer.add(digest.tobytes(), 0, row)
    assert (namespace.snapshot().read(rows.digests) == rows.features).all()


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files written just now count as written long ago."""
    monkeypatch.setattr(checked_module, "RACY_NS", 0)


def hashed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each segment that is opened from now on has its bytes read."""
    real, seen = segment_module.open_segment, list[bool]()

    def watched(path: Path, spec: Spec, *, read_data: bool = True) -> Any:
        seen.append(read_data)
        return real(path, spec, read_data=read_data)

    monkeypatch.setattr(segment_module, "open_segment", watched)
    return seen


@pytest.mark.usefixtures("settled")
def test_a_look_for_lookups_reads_no_byte_that_another_process_has_checked(
    namespace: Namespace, segment_path: Path, make_rows: Any, spec: Spec, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace.snapshot(lookups_only=True)
    seen = hashed(monkeypatch)
    next_process = Store.open(store.path).namespace(spec)
    status = next_process.snapshot(lookups_only=True).lookup(make_rows(8, rejects=[7]).digests)
    assert (status[:7] == 0).all()
    next_process.snapshot()  # features are not read on the strength of it
    assert seen == [False, True]


@pytest.mark.usefixtures("settled")
def test_a_look_for_lookups_reads_every_byte_of_what_changed(namespace: Namespace, segment_path: Path) -> None:
    namespace.snapshot()
    content = segment_path.read_bytes()
    times = segment_path.stat()
    segment_path.write_bytes(content[:-9] + b"\0" * 9)
    os.utime(segment_path, ns=(times.st_atime_ns, times.st_mtime_ns))  # the time of the change cannot be set
    again = Store.open(namespace.path.parents[1]).namespace(namespace.spec)
    assert len(again.snapshot(lookups_only=True).damaged) == 1


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("finder", ["reader", "verify"])
def test_whoever_finds_rot_makes_the_next_look_for_lookups_find_it_too(
    namespace: Namespace, segment_path: Path, make_rows: Any, finder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "stamp_of", lambda _: (1, 2, 3, 4))  # rot changes no time
    folder = namespace.path.parents[1]
    namespace.snapshot()
    content = bytearray(segment_path.read_bytes())
    content[content.index(np.ascontiguousarray(make_rows(8, rejects=[7]).features[3]).tobytes())] ^= 1
    segment_path.write_bytes(content)
    assert Store.open(folder).namespace(namespace.spec).snapshot(lookups_only=True).damaged == ()
    if finder == "verify":
        assert not verify(Store.open(folder), read_data=True).sound
    else:
        assert len(Store.open(folder).namespace(namespace.spec).snapshot().damaged) == 1
    assert len(Store.open(folder).namespace(namespace.spec).snapshot(lookups_only=True).damaged) == 1
