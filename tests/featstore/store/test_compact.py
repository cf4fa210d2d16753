"""Compaction: the same answers before, after, at every moment in between, and whenever it is cut off."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from featstore.errors import NoSpaceError
from featstore.records import Reason
from featstore.spec import Spec
from featstore.store import Namespace, Place, Rows, Store, compact, segments_after, verify
from featstore.store import commit as committing
from featstore.store.commit import commit
from featstore.store.encode import encode

MODULE = import_module("featstore.store.compact")  # the package has a function of that name

Answers = dict[tuple[bytes, int], tuple[int, bytes]]


def put(store: Store, namespace: Namespace, rows: Rows, recorded: str = "test") -> str:
    """One segment of exactly these rows, whatever is there already."""
    store.check_writable()
    namespace.writer({})
    data = encode(rows, namespace.spec, {"featstore": recorded})
    return commit(data, namespace.segment_folder, store.private_folder)


def answers(path: Path, spec: Spec, digests: npt.NDArray[np.uint8]) -> Answers:
    """What a process that opens the store now is told of every digest in views 0 to 2."""
    snapshot = Store.open(path).namespace(spec).snapshot()
    assert not snapshot.damaged
    found: Answers = {}
    for view in range(3):
        status = snapshot.lookup(digests, view)
        good = np.flatnonzero(status == 0)
        features = snapshot.read(digests[good], view)
        rows = dict(zip(good.tolist(), features, strict=True))
        for i, code in enumerate(status.tolist()):
            found[digests[i].tobytes(), view] = (code, rows[i].tobytes() if i in rows else b"")
    return found


@pytest.fixture
def digests() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (30, 32), dtype=np.uint8)


@pytest.fixture(params=range(3))
def crowded(
    request: pytest.FixtureRequest, store: Store, namespace: Namespace, digests: npt.NDArray[np.uint8]
) -> Store:
    """Twelve segments that overlap: the same row with other bits, rejects that others have features for, views."""
    random = np.random.default_rng(request.param)
    for number in range(12):
        count = int(random.integers(1, 12))
        status = np.where(random.random(count) < 0.3, Reason.TRUNCATED, 0).astype(np.uint8)
        features = random.random((count, 4)).astype(np.float32)
        features[status != 0] = 0
        rows = Rows(
            digests=digests[random.integers(0, len(digests), count)],
            views=random.integers(0, 3, count).astype(np.uint16),
            status=status,
            features=None if status.all() else features,
        )
        put(store, namespace, rows, f"run {number}")
    return store


def test_a_compacted_store_gives_the_same_answers_from_one_segment(
    crowded: Store, spec: Spec, digests: npt.NDArray[np.uint8]
) -> None:
    before = answers(crowded.path, spec, digests)
    rows = crowded.namespace(spec).snapshot().rows
    report = compact(crowded)
    assert answers(crowded.path, spec, digests) == before
    snapshot = crowded.namespace(spec).snapshot()
    assert (report.segments_before, report.segments_after, len(snapshot.names)) == (12, 1, 1)
    assert report.dropped == rows - snapshot.rows > 0
    assert report.bytes_after == snapshot.bytes < report.bytes_before
    assert all(served.all() for _, served in snapshot.parts())
    assert verify(crowded, read_data=True).sound


def test_a_second_compaction_finds_nothing_to_do(crowded: Store, spec: Spec) -> None:
    compact(crowded)
    names = crowded.namespace(spec).snapshot().names
    report = compact(crowded)
    assert crowded.namespace(spec).snapshot().names == names
    assert (report.segments_before, report.segments_after, report.dropped) == (1, 1, 0)


def test_nothing_is_written_for_an_empty_store(store: Store) -> None:
    assert compact(store).segments_after == 0


def test_answers_are_the_same_after_every_single_removal(
    crowded: Store, spec: Spec, digests: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = answers(crowded.path, spec, digests)
    unlink, moments = os.unlink, 0

    def watched(path: Any, *more: Any, **named: Any) -> None:
        nonlocal moments
        unlink(path, *more, **named)
        if str(path).endswith(".h5"):
            moments += 1
            assert answers(crowded.path, spec, digests) == before

    monkeypatch.setattr(committing.os, "unlink", watched)
    compact(crowded)
    assert moments >= 12


@pytest.mark.parametrize("after", range(0, 14, 2))
def test_cut_off_anywhere_it_has_lost_nothing_and_the_next_one_ends_it(
    crowded: Store, spec: Spec, digests: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    before = answers(crowded.path, spec, digests)
    unlink, left = os.unlink, after

    def dying(path: Any, *more: Any, **named: Any) -> None:
        nonlocal left
        if str(path).endswith(".h5"):
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
        unlink(path, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(committing.os, "unlink", dying)
        if after < 12:
            with pytest.raises(KeyboardInterrupt):
                compact(crowded)
    assert answers(crowded.path, spec, digests) == before
    compact(Store.open(crowded.path))
    assert answers(crowded.path, spec, digests) == before
    assert len(crowded.namespace(spec).snapshot().names) == 1


@pytest.mark.parametrize("moment", range(1, 13, 3))
def test_another_compaction_at_any_moment_loses_nothing(
    crowded: Store, spec: Spec, digests: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    before = answers(crowded.path, spec, digests)
    unlink, left = os.unlink, moment

    def interrupted(path: Any, *more: Any, **named: Any) -> None:
        nonlocal left
        left -= str(path).endswith(".h5")
        if left == 0:
            left = -1
            compact(Store.open(crowded.path))
            assert answers(crowded.path, spec, digests) == before
        unlink(path, *more, **named)

    monkeypatch.setattr(committing.os, "unlink", interrupted)
    compact(crowded)
    assert left < 0
    assert answers(crowded.path, spec, digests) == before


def test_on_a_full_disk_nothing_is_removed(
    crowded: Store, spec: Spec, digests: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, names = answers(crowded.path, spec, digests), crowded.namespace(spec).snapshot().names

    def full(*given: Any) -> str:
        raise NoSpaceError("no space left", where=crowded.path)

    monkeypatch.setattr(Place, "commit", full)
    with pytest.raises(NoSpaceError):
        compact(crowded)
    assert crowded.namespace(spec).snapshot().names == names
    assert answers(crowded.path, spec, digests) == before


def test_what_nobody_wants_goes_before_anything_is_written(
    store: Store,
    namespace: Namespace,
    make_rows: Callable[..., Rows],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept, going, both = (make_rows(4, seed=seed) for seed in range(3))
    shared = Rows(both.digests[:1], both.views[:1], both.status[:1], both.features[:1])  # type: ignore[index] # it has some
    unwanted = {digest.tobytes() for digest in (*going.digests, *both.digests[:2])}
    names = {put(store, namespace, rows): rows for rows in (kept, going, both, shared)}
    other = store.namespace(namespace.spec.but(pooling="max"))
    put(store, other, going)

    def wanted(digests: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        return np.array([digest.tobytes() not in unwanted for digest in digests], bool)

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = namespace.snapshot().read(kept.digests)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(NoSpaceError):  # for the rest of `both`
            compact(store, wanted=wanted)
    held = namespace.snapshot()
    assert {name for name, rows in names.items() if rows is not going} == {*held.names}
    assert other.snapshot().names == ()
    np.testing.assert_array_equal(held.read(kept.digests), before)
    assert compact(store, wanted=wanted).dropped == 3
    assert (
        sorted(namespace.snapshot().lookup(np.concatenate([both.digests, kept.digests])).tolist()) == [-1] * 2 + [0] * 6
    )


def test_with_all_that_is_unwanted_gone_a_full_disk_is_no_error(
    store: Store, namespace: Namespace, make_rows: Callable[..., Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, going = make_rows(4, seed=1), make_rows(4, seed=2)
    name = put(store, namespace, kept)
    put(store, namespace, going)
    keys = {digest.tobytes() for digest in kept.digests}
    for call in ("commit", "probe"):
        monkeypatch.setattr(Place, call, lambda *_: pytest.fail("something was written"))
    report = compact(store, wanted=lambda digests: np.array([digest.tobytes() in keys for digest in digests], bool))
    assert (report.segments_before, report.segments_after, report.dropped) == (2, 1, 4)
    assert namespace.snapshot().names == (name,)


def test_segments_stay_below_the_size_aimed_at_and_large_ones_are_left_alone(
    store: Store, namespace: Namespace, make_rows: Callable[..., Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "SEGMENT_BYTES", 100 * 16)  # of rows of four float32
    large = put(store, namespace, make_rows(60, seed=99))
    for seed in range(10):
        put(store, namespace, make_rows(30, seed=seed))
    compact(store)
    snapshot = namespace.snapshot()
    assert large in snapshot.names
    assert sorted(len(segment.digests) for segment, _ in snapshot.parts()) == [30, 60, 90, 90, 90]
    names = snapshot.names
    compact(store)
    assert namespace.snapshot().names == names


def test_what_others_write_meanwhile_does_not_spoil_the_report(
    store: Store, namespace: Namespace, make_rows: Callable[..., Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(3):
        put(store, namespace, make_rows(4, seed=seed))
    meanwhile = make_rows(50, seed=9)
    keys = {digest.tobytes() for digest in [*make_rows(4, seed=0).digests[:2], *meanwhile.digests]}

    def commit_beside_another(_: Place, data: bytes, folder: Path) -> str:
        put(store, namespace, meanwhile)
        return commit(data, folder, store.private_folder)

    monkeypatch.setattr(Place, "commit", commit_beside_another)
    report = compact(store, wanted=lambda digests: np.array([digest.tobytes() in keys for digest in digests], bool))
    assert (report.segments_before, report.segments_after, report.dropped) == (4, 1, 10)
    assert report.bytes_after == namespace.snapshot().bytes


def test_rows_stay_in_the_order_in_which_they_were_written(
    store: Store, namespace: Namespace, make_rows: Callable[..., Rows]
) -> None:
    written = [make_rows(5, seed=seed) for seed in range(8)]
    for number, rows in enumerate(written):
        name = put(store, namespace, rows)
        os.utime(namespace.segment_folder / f"{name}.h5", ns=(number * 10**9, number * 10**9))
    compact(store)
    [(segment, _)] = Store.open(store.path).namespace(namespace.spec).snapshot().parts()
    np.testing.assert_array_equal(segment.digests, np.concatenate([rows.digests for rows in written]))


def test_rejects_alone_and_maps_are_joined_too(store: Store, spec: Spec, make_rows: Callable[..., Rows]) -> None:
    maps = store.namespace(spec.but(pooling="map"))
    for seed in range(3):
        put(store, store.namespace(spec), make_rows(4, seed=seed, rejects=range(4)))
        put(store, maps, make_rows(4, seed=seed, shape=(2, 2, 3), rejects=[0]))
    report = compact(store)
    assert (report.segments_before, report.segments_after, report.dropped) == (6, 2, 0)
    rows = make_rows(4, seed=1, shape=(2, 2, 3), rejects=[0])
    np.testing.assert_array_equal(maps.snapshot().read(rows.digests[1:]), rows.features[1:])
    assert maps.snapshot().lookup(rows.digests).tolist() == [Reason.TRUNCATED, 0, 0, 0]
    assert store.namespace(spec).snapshot().rejects == 12


def test_damaged_segments_are_left_for_the_writer_to_set_aside(
    store: Store, namespace: Namespace, make_rows: Callable[..., Rows]
) -> None:
    names = [put(store, namespace, make_rows(4, seed=seed)) for seed in range(3)]
    broken = namespace.segment_folder / f"{names[0]}.h5"
    data = bytearray(broken.read_bytes())
    data[-1] ^= 1
    broken.write_bytes(data)
    report = compact(Store.open(store.path))
    assert (report.segments_before, report.segments_after) == (2, 1)
    assert broken.read_bytes() == data


def test_what_the_makers_of_the_rows_noted_is_kept(crowded: Store, spec: Spec) -> None:
    before = crowded.namespace(spec).snapshot().parts()
    compact(crowded)
    [(segment, _)] = crowded.namespace(spec).snapshot().parts()
    said = {part.recorded["featstore"] for part, served in before if served.any()}
    assert segment.recorded["featstore"] == ", ".join(sorted(said))


def test_what_they_noted_is_left_out_where_no_reader_would_take_it(
    store: Store, namespace: Namespace, make_rows: Callable[..., Rows]
) -> None:
    for seed in range(2):
        put(store, namespace, make_rows(4, seed=seed), str(seed) * 40_000)
    compact(store)
    [(segment, _)] = Store.open(store.path).namespace(namespace.spec).snapshot().parts()
    assert (len(segment.digests), {*segment.recorded}) == (8, {"compaction"})


def test_segments_without_features_never_become_rows_of_zeros(
    store: Store, namespace: Namespace, make_rows: Callable[..., Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "SEGMENT_BYTES", 100 * 256)  # of rows of 64 float32
    written = [make_rows(60, seed=seed, rejects=range(60 if seed % 3 else 59), shape=(4, 4, 4)) for seed in range(6)]
    written.append(make_rows(1, seed=9, shape=(4, 4, 4)))
    for rows in written:
        put(store, namespace, rows)
    compact(store)
    snapshot = Store.open(store.path).namespace(namespace.spec).snapshot()
    found = sorted((len(one.digests), one.feature_shape is not None) for one, _ in snapshot.parts())
    assert found == [(1, True), (60, True), (60, True), (240, False)]
    for rows in written:
        assert (snapshot.lookup(rows.digests) == rows.status).all()


def test_a_segment_that_is_too_large_becomes_several(
    store: Store, namespace: Namespace, make_rows: Callable[..., Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "SEGMENT_BYTES", 10 * 16)
    rows, others = make_rows(37, seed=1, rejects=range(8)), make_rows(3, seed=2)
    put(store, namespace, rows)
    put(store, namespace, others)
    dropped = rows.digests[35].tobytes()
    report = compact(store, wanted=lambda digests: np.array([one.tobytes() != dropped for one in digests], bool))
    snapshot = Store.open(store.path).namespace(namespace.spec).snapshot()
    assert sorted(len(one.digests) for one, _ in snapshot.parts()) == [3, 6, 10, 10, 10]
    assert (report.segments_before, report.segments_after, report.dropped) == (2, 5, 1)
    kept = [*range(8, 35), 36]
    assert rows.features is not None
    assert (snapshot.read(rows.digests[kept]) == rows.features[kept]).all()
    assert (snapshot.lookup(rows.digests[:8]) == rows.status[:8]).all()


def test_what_was_compressed_stays_so(
    store: Store, namespace: Namespace, spec: Spec, digests: npt.NDArray[np.uint8]
) -> None:
    for part in np.array_split(digests, 2):
        with namespace.writer({}, codec="zstd") as writer:
            for digest in part:
                writer.add(digest.tobytes(), 0, np.full(64, digest[0], np.float32))
    before = answers(store.path, spec, digests)
    compact(store)
    [(segment, _)] = namespace.snapshot().parts()
    assert segment.codec == "zstd"
    assert answers(store.path, spec, digests) == before


def test_a_reader_from_before_reads_on(crowded: Store, spec: Spec, digests: npt.NDArray[np.uint8]) -> None:
    snapshot = crowded.namespace(spec).snapshot()
    good = digests[snapshot.lookup(digests) == 0]
    expected = snapshot.read(good)
    compact(Store.open(crowded.path))
    np.testing.assert_array_equal(snapshot.read(good), expected)


@pytest.mark.parametrize("seed", range(8))
def test_of_what_others_write_amid_a_compaction_nothing_is_removed_that_it_has_not_written(
    store: Store,
    spec: Spec,
    make_rows: Callable[..., Rows],
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    """Which of equal rows is served depends on the names: with some seeds those of the large segment are."""
    monkeypatch.setattr(MODULE, "SEGMENT_BYTES", 16 * 16)  # of rows of four float32
    monkeypatch.setattr(MODULE._Compaction, "_parts", amid := _Amid(MODULE._Compaction._parts))
    all_rows = make_rows(32, seed=seed)
    namespace = store.namespace(spec)
    for part in (slice(0, 12), slice(30, 31), slice(31, 32)):  # a large one, and two that are joined
        put(store, namespace, part_of(all_rows, part), "before")
    late: list[Callable[[], None]] = []

    def others() -> None:
        put(store, namespace, part_of(all_rows, [*range(8), 20, 21]), "by one who looked before the large one came")
        second = MODULE._Compaction(Store.open(store.path).namespace(spec), store, None)
        loose = second._loose()
        for group in second._groups(loose):
            second._write(group, void)
        late.extend(lambda part=part: second._remove([part]) for part in sorted(loose, key=_name, reverse=True))

    amid.do = others
    compact(store)
    for remove in late:
        remove()
    kept = [*range(12), 20, 21, 30, 31]
    found = Store.open(store.path).namespace(spec).snapshot().read(all_rows.digests[kept])
    assert all_rows.features is not None
    np.testing.assert_array_equal(found, all_rows.features[kept])


class _Amid:
    """A method that does something, once, before it does what it did."""

    def __init__(self, real: Callable[..., Any]) -> None:
        self._real = real
        self.do: Callable[[], None] | None = None

    def __get__(self, instance: Any, _: type) -> Callable[[], Any]:
        def call() -> Any:
            do, self.do = self.do, None
            if do is not None:
                do()
            return self._real(instance)

        return call


def _name(part: Any) -> str:
    return str(part[0].name)


def part_of(rows: Rows, places: Any) -> Rows:
    """Some of them."""
    features = None if rows.features is None else rows.features[places]
    return Rows(rows.digests[places], rows.views[places], rows.status[places], features)


def test_readers_writers_and_two_compactions_do_not_disturb_one_another(
    store: Store, spec: Spec, make_rows: Callable[..., Rows], write: Callable[[Namespace, Rows], None]
) -> None:
    written = [make_rows(3, seed=seed) for seed in range(40)]
    write(store.namespace(spec), written[0])
    done, errors = threading.Event(), []

    def guarded(work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                while not done.is_set():
                    work()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def read() -> None:
        snapshot = Store.open(store.path).namespace(spec).snapshot()
        for rows in written:
            status = snapshot.lookup(rows.digests)
            if not status.any():
                np.testing.assert_array_equal(snapshot.read(rows.digests), rows.features)

    threads = [
        guarded(read),
        guarded(lambda: void(compact(Store.open(store.path)))),
        guarded(lambda: void(compact(store))),
    ]
    for rows in written:
        write(Store.open(store.path).namespace(spec), rows)
    done.set()
    for thread in threads:
        thread.join()
    assert not errors
    snapshot = Store.open(store.path).namespace(spec).snapshot()
    for rows in written:
        np.testing.assert_array_equal(snapshot.read(rows.digests), rows.features)


def void(_: object) -> None:
    """Throw a result away."""


@pytest.mark.parametrize(("rows", "segments"), [(2, 13), (5, 13), (7, 13), (8, 13), (3, 1)])
def test_how_many_segments_are_left_is_known_beforehand(
    rows: int,
    segments: int,
    store: Store,
    namespace: Namespace,
    make_rows: Callable[..., Rows],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    each = [make_rows(rows, seed=seed) for seed in range(segments)]
    for one in each:
        put(store, namespace, one)
    features = each[0].features
    assert features is not None
    monkeypatch.setattr(MODULE, "SEGMENT_BYTES", 16 * features[0].nbytes)
    expected = segments_after(segments, features.nbytes)
    assert compact(store).segments_after == expected
    assert expected == {2: 2, 5: 5, 7: 7, 8: 13, 3: 1}[rows]
