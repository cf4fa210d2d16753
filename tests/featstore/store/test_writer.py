from __future__ import annotations

import errno
import itertools
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featstore.errors import InputError, NoSpaceError, StorageError
from featstore.records import Reason
from featstore.spec import Spec
from featstore.store import Namespace, Place, Rows, Writer
from featstore.store import writer as module


@pytest.fixture
def writer(namespace: Namespace) -> Writer:
    return namespace.writer({"featstore": "test"})


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def fill(writer: Writer, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        writer.add(digest(number), 0, np.full(3, number, np.float32))


def stored(namespace: Namespace) -> int:
    return namespace.snapshot().rows


def full_disk(patch: pytest.MonkeyPatch, code: int = errno.ENOSPC) -> None:
    def write(*_: Any) -> int:
        raise OSError(code, os.strerror(code))

    patch.setattr(os, "write", write)


def test_192_rows_are_committed_at_once(writer: Writer, namespace: Namespace) -> None:
    fill(writer, 191)
    assert (writer.committed, writer.pending, stored(namespace)) == (0, 191, 0)
    fill(writer, 1, start=191)
    assert (writer.committed, writer.pending, stored(namespace)) == (192, 0, 192)


def test_large_rows_are_committed_earlier(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BYTES_PER_COMMIT", 5 * 12)
    fill(writer, 4)
    assert writer.committed == 0
    fill(writer, 1, start=4)
    assert writer.committed == 5
    fill(writer, 4, start=5)
    assert writer.committed == 5


def kinds(namespace: Namespace) -> list[tuple[int, bool]]:
    """Of each segment the number of its rows, and whether there are features."""
    parts = namespace.snapshot().parts()
    return sorted((len(segment.digests), segment.feature_shape is not None) for segment, _ in parts)


def test_rejects_before_large_rows_are_a_segment_without_features(
    writer: Writer, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BYTES_PER_COMMIT", 5 * 12)
    for number in range(100):
        writer.reject(digest(number), 0, Reason.CORRUPT)
    assert writer.committed == 0
    fill(writer, 1, start=100)
    assert (writer.committed, writer.pending) == (100, 1)
    writer.reject(digest(101), 0, Reason.CORRUPT)
    writer.close()
    assert kinds(namespace) == [(2, True), (100, False)]


def test_rejects_beside_large_rows_count_as_what_they_take(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BYTES_PER_COMMIT", 5 * 12)
    fill(writer, 1)
    for number in range(1, 5):
        assert writer.committed == 0
        writer.reject(digest(number), 0, Reason.CORRUPT)
    assert writer.committed == 5


def test_rejects_of_small_rows_are_beside_features(writer: Writer, namespace: Namespace) -> None:
    for number in range(100):
        writer.reject(digest(number), 0, Reason.CORRUPT)
    fill(writer, 100, start=100)
    writer.close()
    assert kinds(namespace) == [(8, True), (192, True)]


@settings(max_examples=60, deadline=None)
@given(
    features=st.lists(st.booleans(), min_size=1, max_size=60),
    failures=st.sets(st.integers(0, 12)),
    room=st.integers(1, 80),
)
def test_no_segment_is_larger_than_a_batch_or_a_row_whatever_comes_and_fails(
    features: list[bool], failures: set[int], room: int
) -> None:
    made: list[Rows] = []
    attempts = itertools.count()

    def commit(_: Place, rows: Any, *__: Any) -> None:
        if next(attempts) in failures:
            raise StorageError("no")
        made.append(rows)

    writer = Writer(Spec("vgg16", "ab" * 32, "block5_pool", (150, 150)), Path("seg"), Place(Path("store")), {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featstore.store.encode.encode", lambda rows, *_: rows)
        patch.setattr(Place, "commit", commit)
        patch.setattr(module, "BYTES_PER_COMMIT", room)
        patch.setattr(module, "ROWS_PER_COMMIT", 7)
        for number, good in enumerate(features):
            with suppress(StorageError):
                if good:
                    fill(writer, 1, start=number)
                else:
                    writer.reject(digest(number), 0, Reason.CORRUPT)
        while writer.pending:
            with suppress(StorageError):
                writer.flush()
    assert all(len(rows) <= 7 for rows in made)
    assert all(rows.features is None or rows.features.nbytes <= room or len(rows) == 1 for rows in made)
    numbers = [int.from_bytes(one.tobytes(), "big") for rows in made for one in rows.digests]
    assert (numbers, writer.committed) == (list(range(len(features))), len(features))
    assert [status == 0 for rows in made for status in rows.status] == features


def test_a_row_that_no_reader_would_take_is_refused(writer: Writer) -> None:
    with pytest.raises(InputError, match="too large for a store") as caught:
        writer.add(digest(0), 0, np.broadcast_to(np.float32(0), (2**14, 2**12, 2)))
    assert "at most 256 MiB" in str(caught.value)
    assert "to do:" in str(caught.value)
    assert writer.pending == 0


def test_rows_wait_five_seconds_at_most(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    fill(writer, 1)
    now[0] = 104.9
    fill(writer, 1, start=1)
    assert writer.committed == 0
    now[0] = 105.0
    fill(writer, 1, start=2)
    assert writer.committed == 3
    now[0] = 109.0
    fill(writer, 1, start=3)
    assert writer.committed == 3  # counted from the first row that waits


def test_the_end_of_the_block_commits_the_rest(writer: Writer, namespace: Namespace) -> None:
    with writer:
        fill(writer, 3)
    assert writer.committed == stored(namespace) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupt_commits_what_is_complete(
    writer: Writer, namespace: Namespace, error: type[BaseException]
) -> None:
    fill(writer, 3)
    with pytest.raises(error), writer:
        raise error
    assert stored(namespace) == 3


def test_nothing_added_writes_nothing(writer: Writer, namespace: Namespace) -> None:
    with writer:
        pass
    assert writer.flush() == 0
    assert list((namespace.path / "seg").iterdir()) == []


def test_the_callers_array_may_be_used_again(writer: Writer, namespace: Namespace) -> None:
    row = np.ones(3, np.float32)
    with writer:
        writer.add(digest(0), 0, row)
        row[:] = 9
    assert (namespace.snapshot().read(np.zeros((1, 32), np.uint8)) == 1).all()


def test_rejects_are_rows_with_a_reason(writer: Writer, namespace: Namespace) -> None:
    with writer:
        writer.reject(digest(0), 0, Reason.TRUNCATED)
        writer.add(digest(1), 0, np.ones(3, np.float32))
    digests = np.frombuffer(digest(0) + digest(1) + digest(2), np.uint8).reshape(3, 32)
    assert namespace.snapshot().lookup(digests).tolist() == [Reason.TRUNCATED, 0, -1]


def test_rejects_alone_make_a_segment_without_features(writer: Writer, namespace: Namespace) -> None:
    with writer:
        writer.reject(digest(0), 0, Reason.CORRUPT)
    snapshot = namespace.snapshot()
    assert (snapshot.rows, snapshot.rejects, snapshot.feature_shape, snapshot.damaged) == (1, 1, None, ())


def test_features_outrank_an_earlier_reject(namespace: Namespace) -> None:
    for number in range(5):  # whichever of the two segments has the smaller name
        key = np.frombuffer(digest(number), np.uint8).reshape(1, 32)
        with namespace.writer({}) as writer:
            writer.reject(digest(number), 0, Reason.TRUNCATED)
        assert namespace.snapshot().lookup(key).tolist() == [Reason.TRUNCATED]
        with namespace.writer({}) as writer:
            fill(writer, 1, start=number)
        assert namespace.snapshot().lookup(key).tolist() == [0]


@pytest.mark.parametrize("reason", [Reason.OK, Reason.UNREADABLE])
def test_what_is_never_stored_is_no_reason(writer: Writer, reason: Reason) -> None:
    with pytest.raises(InputError, match="reason"):
        writer.reject(digest(0), 0, reason)


@pytest.mark.parametrize(
    "features",
    [np.full(3, np.nan), np.array([1, np.inf, 0]), np.ones(()), np.ones(0), np.ones((2, 2)), np.ones((1, 1, 1, 1))],
)
def test_what_is_no_row_is_refused(writer: Writer, features: Any) -> None:
    with pytest.raises(InputError):
        writer.add(digest(0), 0, features)
    assert writer.pending == 0


def test_a_number_too_large_for_the_stored_dtype_is_refused(store: Any, spec: Any) -> None:
    half = store.namespace(spec.but(dtype="float16")).writer({})
    with pytest.raises(InputError, match="not finite in float16"):
        half.add(digest(0), 0, np.full(3, 1e6, np.float32))


def test_rows_of_two_shapes_are_refused(writer: Writer) -> None:
    fill(writer, 1)
    with pytest.raises(InputError, match="wrong shape"):
        writer.add(digest(1), 0, np.ones(4, np.float32))


@pytest.mark.parametrize(("key", "view"), [(b"short", 0), (digest(0), -1), (digest(0), 65536)])
def test_what_does_not_name_a_row_is_refused(writer: Writer, key: bytes, view: int) -> None:
    with pytest.raises(InputError, match="name a row"):
        writer.add(key, view, np.ones(3, np.float32))


def test_a_full_disk_loses_only_what_was_not_reported(
    writer: Writer, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(writer, 192)
    with monkeypatch.context() as patch:
        full_disk(patch)
        with pytest.raises(NoSpaceError), writer:
            fill(writer, 192, start=192)
    assert writer.committed == stored(namespace) == 192
    assert writer.pending == 192


def test_with_room_again_the_waiting_rows_are_written(
    writer: Writer, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(writer, 3)
    with monkeypatch.context() as patch:
        full_disk(patch)
        with pytest.raises(NoSpaceError):
            writer.flush()
    assert writer.flush() == stored(namespace) == 3


def test_a_second_error_does_not_hide_the_first(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    full_disk(monkeypatch, errno.EIO)
    fill(writer, 1)
    with pytest.raises(KeyError, match="first") as caught, writer:
        raise KeyError("first")
    assert "could not be committed" in caught.value.__notes__[0]


def test_closing_tells_of_a_failure_once(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    full_disk(monkeypatch, errno.EIO)
    fill(writer, 1)
    with pytest.raises(StorageError):
        writer.close()
    writer.close()


def test_the_same_row_twice_is_harmless(namespace: Namespace) -> None:
    for _ in range(2):
        with namespace.writer({"run": "same"}) as writer:
            fill(writer, 5)
    assert stored(namespace) == 5  # the same bytes, the same name, the same file
