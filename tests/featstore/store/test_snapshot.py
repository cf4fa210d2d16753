from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featstore.errors import DamageError, InputError
from featstore.spec import Spec
from featstore.store import Namespace, Snapshot
from featstore.store import snapshot as snapshot_module
from featstore.store.segment import Segment

SPEC = Spec("vgg16", "ab" * 32, "block5_pool", (150, 150))
EDGES = (b"\0" * 32, b"\0" * 31 + b"\1", b"\1" + b"\0" * 31, b"a" * 31 + b"\0", b"a" * 32, b"\xff" * 32)
"""Digests that a careless comparison would confuse: by zeros at the end, or by their first eight bytes."""

Row = tuple[bytes, int, int]
rows_of_a_segment = st.lists(
    st.tuples(st.sampled_from(EDGES), st.integers(0, 2), st.sampled_from([0, 0, 4, 5])), min_size=1, max_size=8
)


class FakeSegment(Segment):
    """Its features are computed, not stored: (segment number, row, 0)."""

    def read_into(self, out: Any, places: Any, rows: Any) -> None:
        out[places] = np.stack([np.full(len(rows), int(self.name, 16)), rows, 0 * rows], axis=1)


def fake(number: int, rows: Sequence[Row]) -> Segment:
    from pathlib import Path

    digests, views, status = zip(*rows, strict=True)
    return FakeSegment(
        path=Path(f"{number:064x}.h5"),
        digests=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32),
        views=np.array(views, np.uint16),
        status=np.array(status, np.uint8),
        feature_shape=(3,) if 0 in status else None,
        chunk_rows=1,
        recorded={},
        stamp=(100, 0, 0, 0),
    )


def model(segments: Sequence[Sequence[Row]]) -> dict[tuple[bytes, int], tuple[int, int, int]]:
    """(digest, view) → (status, segment, row), by the rule in words: features first, then segment, then row."""
    best: dict[tuple[bytes, int], tuple[int, int, int]] = {}
    for number, rows in enumerate(segments):
        for place, (digest, view, status) in enumerate(rows):
            have = best.get((digest, view))
            if have is None or (have[0] != 0 and status == 0):
                best[digest, view] = (status, number, place)
    return best


@settings(max_examples=200, deadline=None)
@given(segments=st.lists(rows_of_a_segment, max_size=5), order=st.randoms(), view=st.integers(0, 3))
def test_lookups_and_reads_agree_with_a_dictionary(segments: list[list[Row]], order: Any, view: int) -> None:
    made = [fake(number, rows) for number, rows in enumerate(segments)]
    order.shuffle(made)
    snapshot, best = Snapshot(SPEC, made, []), model(segments)
    asked = [EDGES[i] for i in (0, 3, 1, 5, 2, 4, 0)]
    digests = np.frombuffer(b"".join(asked), np.uint8).reshape(-1, 32)
    status = snapshot.lookup(digests, view)
    assert status.dtype == np.int16
    assert status.tolist() == [best[d, view][0] if (d, view) in best else -1 for d in asked]
    good = status == 0
    expected = [best[d, view][1:] for d, ok in zip(asked, good, strict=True) if ok]
    assert [tuple(map(int, row[:2])) for row in snapshot.read(digests[good], view)] == expected
    if not good.all():
        with pytest.raises(InputError, match="have no features"):
            snapshot.read(digests, view)
    assert snapshot.rows == len(snapshot) == sum(map(len, segments))
    assert snapshot.rejects == sum(status != 0 for rows in segments for *_, status in rows)


def test_an_empty_snapshot_answers_everything() -> None:
    snapshot = Snapshot(SPEC, [], [])
    digests = np.zeros((3, 32), np.uint8)
    assert snapshot.lookup(digests).tolist() == [-1, -1, -1]
    assert snapshot.read(digests[:0]).shape == (0, 0)
    assert (snapshot.names, snapshot.feature_shape, snapshot.bytes) == ((), None, 0)
    with pytest.raises(InputError, match="3 of 3"):
        snapshot.read(digests)


def test_no_digest_at_all_is_answered_too(namespace: Namespace, make_rows: Any, write: Any) -> None:
    write(namespace, make_rows(3))
    snapshot = namespace.snapshot()
    assert snapshot.lookup(np.zeros((0, 32), np.uint8)).shape == (0,)
    assert snapshot.read(np.zeros((0, 32), np.uint8)).shape == (0, 4)


@pytest.mark.parametrize("shape", [(6,), (2, 3, 4)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_come_in_the_order_asked_for(
    store: Any, spec: Spec, make_rows: Any, write: Any, shape: tuple[int, ...], dtype: Any
) -> None:
    namespace = store.namespace(spec.but(dtype=dtype))
    rows = make_rows(700, shape=shape, dtype=dtype)
    write(namespace, rows)
    snapshot, order = namespace.snapshot(), np.random.default_rng(1).permutation(700)
    assert len(snapshot.names) == 4
    assert snapshot.feature_shape == shape
    read = snapshot.read(rows.digests[order])
    assert read.dtype == dtype
    assert (read == rows.features[order]).all()
    assert (snapshot.read(rows.digests[[5, 5, 699]]) == rows.features[[5, 5, 699]]).all()


def test_rows_can_be_read_straight_into_an_array(namespace: Namespace, make_rows: Any, write: Any) -> None:
    rows = make_rows(20)
    write(namespace, rows)
    table = np.zeros((30, 4), np.float32)
    assert np.shares_memory(namespace.snapshot().read(rows.digests, out=table[5:25]), table)
    assert (table[5:25] == rows.features).all()
    assert (table[[4, 25]] == 0).all()


@pytest.mark.parametrize("out", [np.zeros((19, 4), np.float32), np.zeros((4, 20), np.float32).T])
def test_an_array_that_does_not_fit_is_refused(namespace: Namespace, make_rows: Any, write: Any, out: Any) -> None:
    rows = make_rows(20)
    write(namespace, rows)
    with pytest.raises(InputError, match="cannot take"):
        namespace.snapshot().read(rows.digests, out=out)


@pytest.mark.parametrize("wrong", [np.zeros((2, 31), np.uint8), np.zeros(32, np.uint8), np.zeros((2, 32), np.int64)])
def test_what_is_no_digest_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match="no digests"):
        Snapshot(SPEC, [], []).lookup(wrong)


def test_more_rows_than_are_looked_up_at_a_time_are_found(
    namespace: Namespace, make_rows: Any, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_rows(8, rejects=[5])
    write(namespace, rows)
    asked = np.concatenate([rows.digests[::-1], make_rows(3, seed=99).digests, rows.digests[:2]])
    expected = [0, 0, rows.status[5], 0, 0, 0, 0, 0, -1, -1, -1, 0, 0]
    for at_once in (1, 3, 13, 100):
        monkeypatch.setattr(snapshot_module, "_AT_ONCE", at_once)
        assert namespace.snapshot().lookup(asked).tolist() == expected


def test_views_are_rows_of_their_own(namespace: Namespace) -> None:
    with namespace.writer({}) as writer:
        for view in (0, 1, 65535):
            writer.add(b"d" * 32, view, np.full(3, view, np.float32))
    digest, snapshot = np.frombuffer(b"d" * 32, np.uint8).reshape(1, 32), namespace.snapshot()
    assert [snapshot.read(digest, view)[0, 0] for view in (0, 1, 65535)] == [0, 1, 65535]
    assert snapshot.lookup(digest, 2).tolist() == [-1]


def test_it_does_not_change_when_others_write(namespace: Namespace, make_rows: Any, write: Any) -> None:
    rows = make_rows(10)
    before = namespace.snapshot()
    write(namespace, rows)
    assert (before.lookup(rows.digests) == -1).all()
    assert before.names == ()
    assert (namespace.snapshot().lookup(rows.digests) == 0).all()


def test_segments_of_an_odd_shape_are_damage(namespace: Namespace, make_rows: Any, write: Any) -> None:
    for seed, width in ((0, 4), (1, 4), (2, 5)):
        write(namespace, make_rows(3, seed=seed, shape=(width,)))
    snapshot = namespace.snapshot()
    assert snapshot.feature_shape == (4,)
    assert (len(snapshot.names), len(snapshot.damaged)) == (2, 1)
    assert "of shape (5,)" in snapshot.damaged[0].problem


def test_a_segment_that_went_away_is_an_error_and_no_wrong_row(
    namespace: Namespace, make_rows: Any, write: Any
) -> None:
    rows = make_rows(3)
    write(namespace, rows)
    snapshot = namespace.snapshot()
    for path in (namespace.path / "seg").iterdir():
        path.unlink()
    with pytest.raises(DamageError, match="removed, damaged or set aside since"):
        snapshot.read(rows.digests)


def test_a_file_whose_times_alone_have_changed_is_checked_and_read(
    namespace: Namespace, make_rows: Any, write: Any
) -> None:
    rows = make_rows(3)
    write(namespace, rows)
    snapshot = namespace.snapshot()
    for path in (namespace.path / "seg").iterdir():
        os.utime(path, (1, 1))
    np.testing.assert_array_equal(snapshot.read(rows.digests), rows.features)


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_of_segments_that_were_exchanged_while_it_was_held_no_row_is_served(
    namespace: Namespace, make_rows: Any, codec: Any
) -> None:
    rows = [make_rows(3, seed=seed) for seed in range(2)]
    for part in rows:
        with namespace.writer({}, codec) as writer:
            for digest, features in zip(part.digests, part.features, strict=True):
                writer.add(digest.tobytes(), 0, features)
    snapshot = namespace.snapshot()
    one, other = (namespace.path / "seg").iterdir()
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    for part in rows:
        with pytest.raises(DamageError, match="damaged or set aside since"):
            snapshot.read(part.digests)


def test_threads_may_share_it(namespace: Namespace, make_rows: Any, write: Any) -> None:
    rows = make_rows(300)
    write(namespace, rows)
    snapshot = namespace.snapshot()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: snapshot.read(rows.digests[i : i + 30]), range(0, 270, 10)))
    assert all((part == rows.features[i * 10 : i * 10 + 30]).all() for i, part in enumerate(found))
