from __future__ import annotations

import errno
import os
from typing import Any

import numpy as np
import pytest

from featstore.errors import InputError, NoSpaceError, StorageError
from featstore.records import Reason
from featstore.store import Namespace, Writer
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
    [np.full(3, np.nan), np.array([1, np.inf, 0]), np.ones(()), np.ones((2, 2)), np.ones((1, 1, 1, 1))],
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
