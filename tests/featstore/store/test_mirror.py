"""A store on object storage: what is there counts, wherever it was written, and copies here come and go."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from featstore import cloud
from featstore.cloud import Bucket
from featstore.errors import InputError, NoSpaceError, StorageError
from featstore.folders import mirror_folder
from featstore.garbage import collect
from featstore.spec import Spec
from featstore.store import Namespace, Rows, Store, compact, verify
from featstore.store import commit as committing
from tests.buckets import connected

Write = Callable[[Namespace, Rows], None]
MakeRows = Callable[..., Rows]


@pytest.fixture
def url(s3: str) -> str:
    return f"{s3}/team/store"


@pytest.fixture
def store(url: str) -> Store:
    """In the place of the one on the disk."""
    return Store.open(url)


@pytest.fixture
def elsewhere(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], Store]:
    """The same store as another machine sees it, which has no copies."""

    def open_there() -> Store:
        with monkeypatch.context() as there:
            there.setenv("FEATSTORE_MIRRORS", str(tmp_path / "another machine"))
            return Store.open(url)

    return open_there


def names(url: str) -> set[str]:
    """The objects of a store, by name."""
    root = url.removeprefix("s3://") + "/"
    return {name.removeprefix(root) for name in connected(url).find(url)}


def damage(url: str, name: str) -> None:
    """Flip a bit of an object."""
    place = f"{url}/{name}"
    data = bytearray(connected(url).cat_file(place))
    data[len(data) // 2] ^= 1
    connected(url).pipe_file(place, bytes(data))


def segment_of(url: str) -> str:
    """The name of the only segment."""
    [name] = (name for name in names(url) if "/seg/" in name)
    return name


def test_a_place_where_nothing_is_is_an_empty_store_and_stays_one_until_something_is_written(
    store: Store, url: str, spec: Spec
) -> None:
    assert (store.exists, store.namespaces(), store.size(), store.location) == (False, (), 0, url)
    assert store.namespace(spec).snapshot().rows == 0
    assert names(url) == set()


def test_what_is_committed_is_there_and_read_from_anywhere(
    namespace: Namespace, make_rows: MakeRows, write: Write, url: str, elsewhere: Callable[[], Store], spec: Spec
) -> None:
    rows = make_rows(10, rejects=[3])
    write(namespace, rows)
    space = f"ns/{spec.fingerprint}"
    assert names(url) == {"FORMAT", f"{space}/spec.json", segment_of(url)}
    there = elsewhere()
    [found] = there.namespaces()
    snapshot = found.snapshot()
    good = rows.digests[rows.status == 0]
    assert rows.features is not None
    np.testing.assert_array_equal(snapshot.read(good), rows.features[rows.status == 0])
    assert snapshot.lookup(rows.digests).tolist() == rows.status.tolist()
    assert there.size() == sum(connected(url).info(f"{url}/{name}")["size"] for name in names(url))


def test_a_row_is_reported_once_it_is_there_and_a_copy_here_is_no_part_of_that(
    store: Store, namespace: Namespace, make_rows: MakeRows, write: Write, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    store.check_writable()

    def full(*_: object) -> str:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(committing, "commit", full)
        write(namespace, make_rows(4))
    assert segment_of(url)
    assert namespace.snapshot().rows == 4


def test_a_full_disk_here_is_told_as_such_and_where_the_copies_may_lie_instead(
    namespace: Namespace,
    make_rows: MakeRows,
    write: Write,
    url: str,
    elsewhere: Callable[[], Store],
    spec: Spec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(namespace, make_rows(6))
    there = elsewhere().namespace(spec)
    with monkeypatch.context() as patch, Path("/dev/full").open("wb", buffering=0) as device:
        # what every write to a full disk raises, whoever opened the file
        patch.setattr(cloud._connected(url)[0], "get_file", lambda *_: device.write(bytes(1)))
        with pytest.raises(NoSpaceError, match="cannot keep a copy of a segment: No space left on device") as failed:
            there.snapshot()
    assert failed.value.exit_code == 4
    assert "$FEATSTORE_MIRRORS" in str(failed.value.todo)
    assert str(there.path.parent.parent) in str(failed.value.todo)
    assert there.snapshot().rows == 6


def test_copies_that_are_lost_are_fetched_again(
    namespace: Namespace, make_rows: MakeRows, write: Write, url: str, spec: Spec
) -> None:
    rows = make_rows(6)
    write(namespace, rows)
    snapshot = namespace.snapshot()
    shutil.rmtree(mirror_folder(url))
    np.testing.assert_array_equal(snapshot.read(rows.digests), rows.features)
    shutil.rmtree(mirror_folder(url))
    assert Store.open(url).namespace(spec).snapshot().rows == 6


def test_two_writers_make_the_union_of_their_rows_and_the_same_rows_once(
    namespace: Namespace, make_rows: MakeRows, write: Write, url: str, elsewhere: Callable[[], Store], spec: Spec
) -> None:
    there = elsewhere().namespace(spec)
    write(namespace, make_rows(5, seed=1))
    write(there, make_rows(5, seed=1))
    assert segment_of(url)
    write(there, make_rows(5, seed=2))
    assert namespace.snapshot().rows == there.snapshot().rows == 10


def test_two_writers_of_the_same_rows_at_the_same_instant_make_them_once(
    namespace: Namespace,
    make_rows: MakeRows,
    write: Write,
    url: str,
    elsewhere: Callable[[], Store],
    spec: Spec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create, together = Bucket.create, threading.Barrier(2, timeout=60)

    def at_once(self: Bucket, name: str, data: bytes) -> bool:
        if "/seg/" in name:
            together.wait()
        return create(self, name, data)

    monkeypatch.setattr(Bucket, "create", at_once)
    writers = (namespace, elsewhere().namespace(spec))
    for seed in range(5):
        with ThreadPoolExecutor(2) as threads:
            [*threads.map(lambda writer, seed=seed: write(writer, make_rows(5, seed=seed)), writers)]
    assert len([name for name in names(url) if "/seg/" in name]) == 5
    assert [writer.snapshot().rows for writer in writers] == [25, 25]
    assert verify(elsewhere(), read_data=True).sound


def test_compacted_elsewhere_it_gives_the_same_answers_here_and_old_copies_go(
    namespace: Namespace, make_rows: MakeRows, write: Write, url: str, elsewhere: Callable[[], Store], spec: Spec
) -> None:
    each = [make_rows(5, seed=seed) for seed in range(3)]
    for rows in each:
        write(namespace, rows)
    before = namespace.snapshot()
    report = compact(elsewhere())
    assert (report.segments_before, report.segments_after) == (3, 1)
    assert segment_of(url)
    after = namespace.snapshot()
    for rows in each:
        np.testing.assert_array_equal(after.read(rows.digests), rows.features)
        np.testing.assert_array_equal(before.read(rows.digests), rows.features)
    assert len(list((mirror_folder(url) / "ns" / spec.fingerprint / "seg").iterdir())) == 1


def test_a_damaged_object_serves_no_row_and_is_set_aside_by_who_writes_next(
    namespace: Namespace, make_rows: MakeRows, write: Write, url: str, elsewhere: Callable[[], Store], spec: Spec
) -> None:
    write(namespace, make_rows(6))
    damage(url, name := segment_of(url))
    there = elsewhere().namespace(spec).snapshot()
    assert (there.rows, len(there.damaged)) == (0, 1)
    assert not verify(Store.open(url), read_data=True).sound  # whose copy is sound
    writing = elsewhere().namespace(spec)
    write(writing, make_rows(6))
    assert (writing.snapshot().rows, writing.snapshot().damaged) == (6, ())
    assert segment_of(url) == name
    assert len([name for name in names(url) if "/quarantine/" in name]) == 1
    assert verify(elsewhere(), read_data=True).sound
    assert verify(elsewhere(), read_data=True).quarantined == 1
    size = connected(url).info(f"{url}/{name}")["size"]
    collected = collect(elsewhere())
    assert (collected.quarantined, collected.bytes) == (1, size)
    assert not [name for name in names(url) if "/quarantine/" in name]


def test_what_is_damaged_there_is_not_fetched_at_every_look(
    namespace: Namespace, make_rows: MakeRows, write: Write, url: str, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(namespace, make_rows(6))
    damage(url, segment_of(url))
    shutil.rmtree(mirror_folder(url))
    fetched: list[str] = []
    download = Bucket.download
    monkeypatch.setattr(Bucket, "download", lambda self, name, to: (fetched.append(name), download(self, name, to)))
    there = Store.open(url).namespace(spec)
    for _ in range(3):
        assert len(there.snapshot().damaged) == 1
    assert len(fetched) == 2  # twice at once: the way may have been at fault


def test_what_goes_between_a_listing_and_the_fetch_is_left_out(
    namespace: Namespace,
    make_rows: MakeRows,
    write: Write,
    url: str,
    spec: Spec,
    monkeypatch: pytest.MonkeyPatch,
    elsewhere: Callable[[], Store],
) -> None:
    for seed in range(3):
        write(namespace, make_rows(5, seed=seed))
    there, download, once = elsewhere().namespace(spec), Bucket.download, threading.Lock()

    def late(self: Bucket, name: str, to: Path) -> None:
        if once.acquire(blocking=False):
            assert compact(Store.open(url)).segments_after == 1
        download(self, name, to)

    monkeypatch.setattr(Bucket, "download", late)
    snapshot = there.snapshot()
    assert once.locked()
    assert (snapshot.rows, snapshot.damaged) == (15, ())


def test_a_segment_that_is_taken_and_goes_before_it_is_checked_is_written(
    namespace: Namespace, make_rows: MakeRows, write: Write, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, refused = Bucket.create, []

    def taken(self: Bucket, name: str, data: bytes) -> bool:
        if not refused and "/seg/" in name:
            refused.append(name)
            return False
        return create(self, name, data)

    monkeypatch.setattr(Bucket, "create", taken)
    write(namespace, make_rows(4))
    assert refused == [segment_of(url)]


def test_a_folder_without_a_spec_stops_nothing(
    namespace: Namespace, make_rows: MakeRows, write: Write, url: str, spec: Spec
) -> None:
    write(namespace, make_rows(4))
    connected(url).pipe_file(f"{url}/ns/{'ab' * 32}/seg/{'cd' * 32}.h5", b"x")
    store = Store.open(url)
    assert [one.fingerprint for one in store.namespaces()] == [spec.fingerprint]
    assert not verify(store).sound
    assert collect(store).rows == 0
    assert compact(store).segments_after == 1


def test_if_only_the_copy_here_is_damaged_only_that_goes(
    namespace: Namespace, make_rows: MakeRows, write: Write, url: str, spec: Spec
) -> None:
    rows = make_rows(6)
    write(namespace, rows)
    copy = mirror_folder(url) / segment_of(url)
    data = bytearray(copy.read_bytes())
    data[len(data) // 2] ^= 1
    copy.write_bytes(data)
    snapshot = Store.open(url).namespace(spec).snapshot()
    assert snapshot.damaged == ()
    np.testing.assert_array_equal(snapshot.read(rows.digests), rows.features)
    assert copy.read_bytes() != bytes(data)
    assert not [name for name in names(url) if "quarantine" in name]


def test_an_object_under_the_name_of_another_content_is_written_over(
    namespace: Namespace, make_rows: MakeRows, write: Write, url: str, elsewhere: Callable[[], Store], spec: Spec
) -> None:
    write(namespace, make_rows(6))
    damage(url, segment_of(url))
    write(namespace, make_rows(6))  # whose own copy is sound
    assert verify(elsewhere(), read_data=True).sound


def test_what_is_no_part_of_a_store_is_found(namespace: Namespace, make_rows: MakeRows, write: Write, url: str) -> None:
    write(namespace, make_rows(2))
    connected(url).pipe_file(f"{url}/ns/{namespace.fingerprint}/seg/holiday.jpg", b"x")
    report = verify(Store.open(url))
    assert [problem.path.name for problem in report.problems] == ["holiday.jpg"]
    assert namespace.snapshot().rows == 2


def test_a_place_with_other_things_in_it_is_not_taken_for_a_store(s3: str) -> None:
    connected(s3).pipe_file(f"{s3}/photos/cat.jpg", b"x")
    with pytest.raises(InputError, match="not a featstore store") as failed:
        Store.open(f"{s3}/photos")
    assert failed.value.where == f"{s3}/photos"


def test_a_store_of_another_format_is_refused_and_a_removed_one_is_empty(store: Store, url: str) -> None:
    store.create()
    connected(url).pipe_file(f"{url}/FORMAT", b"featstore store, format 99\n")
    with pytest.raises(InputError, match="format 99"):
        Store.open(url)
    connected(url).rm(url, recursive=True)
    assert not Store.open(url).exists


def test_a_segment_that_is_too_large_is_damage_and_is_not_fetched(
    namespace: Namespace, make_rows: MakeRows, write: Write, url: str, monkeypatch: pytest.MonkeyPatch, spec: Spec
) -> None:
    write(namespace, make_rows(6))
    shutil.rmtree(mirror_folder(url))
    monkeypatch.setattr("featstore.store.mirror.MAX_SEGMENT_BYTES", 10)
    snapshot = Store.open(url).namespace(spec).snapshot()
    assert (snapshot.rows, len(snapshot.damaged)) == (0, 1)


def test_others_rows_are_noticed_by_who_looks_often(
    namespace: Namespace, make_rows: MakeRows, write: Write, elsewhere: Callable[[], Store], spec: Spec
) -> None:
    write(namespace, make_rows(2))
    before = namespace.state()
    assert namespace.state() == before
    write(elsewhere().namespace(spec), make_rows(2, seed=5))
    assert namespace.state() != before


def test_what_killed_runs_left_there_goes_with_the_next_writer_a_day_later(
    store: Store, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create()
    store.place.leave_token("run-killed")
    store.place.probe()
    assert store.place.has_token("run-killed")
    now = time.time()
    monkeypatch.setattr("featstore.store.mirror.time.time", lambda: now + 24 * 3600 + 5)
    store.place.probe()
    assert not [name for name in names(url) if name.startswith("tmp/")]
