from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from blake3 import blake3

from featstore.errors import DamageError, StorageError
from featstore.spec import Spec
from featstore.store import segment as module
from featstore.store.encode import encode
from featstore.store.rows import Rows, stamp_of
from featstore.store.segment import Segment, open_segment


def saved(data: bytes, folder: Path) -> Path:
    path = folder / f"{blake3(data).hexdigest()}.h5"
    path.write_bytes(data)
    return path


@pytest.fixture
def rows(make_rows: Any) -> Rows:
    """1,000 rows of 2,048 features: eight chunks, the last one not full."""
    made: Rows = make_rows(1000, shape=(2048,))
    return made


@pytest.fixture
def segment(rows: Rows, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Segment:
    """Checked in full, and old enough for its times to be trusted."""
    monkeypatch.setattr(module, "RACY_NS", -(10**18))
    return open_segment(saved(encode(rows, spec, {}), tmp_path), spec)


@pytest.fixture(params=["straight from the file", "by way of HDF5"])
def either(request: pytest.FixtureRequest, segment: Segment, monkeypatch: pytest.MonkeyPatch) -> Segment:
    """The segment, read in either way; the other one is an error."""

    def unwanted(*given: Any) -> None:
        raise AssertionError("this is not the way that was asked for")

    if request.param == "by way of HDF5":
        monkeypatch.setattr(module, "_read_raw", unwanted)
        return replace(segment, direct=None)
    monkeypatch.setattr(module, "_read_chunk", unwanted)
    return segment


def test_it_knows_its_keys_shape_and_size(segment: Segment, rows: Rows) -> None:
    assert (segment.digests == rows.digests).all()
    assert (segment.feature_shape, segment.chunk_rows) == ((2048,), 128)
    assert segment.bytes == segment.path.stat().st_size
    assert segment.name == blake3(segment.path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "kind", ["all", "reversed", "shuffled", "every third", "repeated", "one twice", "one", "none", "shifted"]
)
def test_rows_land_where_they_are_wanted(either: Segment, rows: Rows, kind: str) -> None:
    every = np.arange(1000)
    wanted = {
        "all": every,
        "reversed": every[::-1],
        "shuffled": np.random.default_rng(0).permutation(1000),
        "every third": every[::3],
        "repeated": np.repeat(every[:300], 2),
        "one twice": np.array([0, 0, *every[2:]]),
        "one": every[999:],
        "none": every[:0],
        "shifted": every[5:905],
    }[kind]
    out = np.full((len(wanted) + 2, 2048), -1, np.float32)
    either.read_into(out, np.arange(len(wanted)) + 1, wanted)
    assert rows.features is not None
    assert (out[1:-1] == rows.features[wanted]).all()
    assert (out[[0, -1]] == -1).all()


def test_every_flipped_bit_is_found(make_rows: Any, spec: Spec, tmp_path: Path) -> None:
    data = encode(make_rows(8), spec, {})
    path = saved(data, tmp_path)
    for position in range(0, len(data), 7):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1 << position % 8]) + data[position + 1 :])
        with pytest.raises(DamageError, match="not its name"):
            open_segment(path, spec)


def test_an_old_check_of_the_bytes_counts_no_more(
    segment: Segment, rows: Rows, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FRESH_SECONDS", -1.0)
    old = open_segment(segment.path, spec)
    monkeypatch.setattr(module, "_read_raw", None)  # calling it would be an error
    out = np.empty((1000, 2048), np.float32)
    old.read_into(out, np.arange(1000), np.arange(1000))
    np.testing.assert_array_equal(out, rows.features)


def test_even_unread_a_flipped_bit_never_gives_a_wrong_key_nor_a_wrong_row_by_way_of_hdf5(
    make_rows: Any, spec: Spec, tmp_path: Path
) -> None:
    rows = make_rows(8, rejects=[2])
    data = encode(rows, spec, {})
    path, every, noticed = saved(data, tmp_path), np.arange(8), 0
    for position in range(0, len(data), 5):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1 << position % 8]) + data[position + 1 :])
        out = np.zeros((8, 4), np.float32)
        try:
            segment = replace(open_segment(path, spec, read_data=False), direct=None)
            segment.read_into(out, every, every)
        except DamageError:
            noticed += 1
            continue
        assert (segment.digests == rows.digests).all()
        assert (segment.status == rows.status).all()
        assert (out == rows.features).all()
    assert noticed > 100  # the rest hit space that holds nothing


def test_every_truncation_is_found(make_rows: Any, spec: Spec, tmp_path: Path) -> None:
    data = encode(make_rows(8), spec, {})
    path = saved(data, tmp_path)
    for length in (*range(0, len(data), 61), len(data) - 1):
        path.write_bytes(data[:length])
        for read_data in (True, False):
            with pytest.raises(DamageError):
                open_segment(path, spec, read_data=read_data)


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", b"\x89HDF\r\n\x1a\n", b"\0" * 5000])
def test_other_content_is_found_even_under_its_own_name(spec: Spec, tmp_path: Path, content: bytes) -> None:
    for read_data in (True, False):
        with pytest.raises(DamageError):
            open_segment(saved(content, tmp_path), spec, read_data=read_data)


def test_a_segment_of_another_spec_is_refused(make_rows: Any, spec: Spec, tmp_path: Path) -> None:
    path = saved(encode(make_rows(3), spec, {}), tmp_path)
    with pytest.raises(DamageError, match="another spec"):
        open_segment(path, spec.but(backbone="vgg19"))


def a_loop(path: Path) -> None:
    path.symlink_to(path)


def a_link_below_a_file(path: Path) -> None:
    path.symlink_to(f"{__file__}/x")


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to("nothing")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, a_loop, a_link_below_a_file, a_link_to_nothing])
def test_what_is_not_a_file_is_damage_and_never_waits(spec: Spec, tmp_path: Path, make: Any) -> None:
    path = tmp_path / f"{'0' * 64}.h5"
    make(path)
    with pytest.raises(DamageError, match="not a regular file"):
        open_segment(path, spec)


def test_a_file_larger_than_any_segment_is_not_read(spec: Spec, tmp_path: Path) -> None:
    path = tmp_path / f"{'0' * 64}.h5"
    path.touch()
    os.truncate(path, 2**40)  # a hole, which costs nothing on the disk and hours to read
    with pytest.raises(DamageError, match="no segment has more than"):
        open_segment(path, spec)


def test_what_goes_while_hdf5_opens_it_is_gone(segment: Segment, spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compaction removes files at any moment; a removed one is looked for elsewhere, a damaged one is set aside."""

    def removed(path: Path, *words: Any, **options: Any) -> Any:
        path.unlink()
        raise OSError("Unable to synchronously open file (can't retrieve stat info for file)")  # as HDF5 said once

    monkeypatch.setattr(module.h5py, "File", removed)
    with pytest.raises(FileNotFoundError):
        open_segment(segment.path, spec)


def test_what_is_gone_is_simply_gone(spec: Spec, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_segment(tmp_path / f"{'0' * 64}.h5", spec)


def test_damage_after_opening_is_noticed_when_the_rows_are_read(rows: Rows, spec: Spec, tmp_path: Path) -> None:
    segment = open_segment(saved(encode(rows, spec, {}), tmp_path), spec)
    assert segment.direct is None, "just written: it can be written again within one tick of the clock"
    content = bytearray(segment.path.read_bytes())
    content[len(content) // 2] ^= 1
    segment.path.write_bytes(content)
    segment = replace(segment, stamp=stamp_of(segment.path.stat()))  # as a sector that rots changes no time
    out = np.empty((1000, 2048), np.float32)
    with pytest.raises(DamageError, match="HDF5 cannot read it"):
        segment.read_into(out, np.arange(1000), np.arange(1000))
    with pytest.raises(DamageError):
        segment.check_features()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *((code, DamageError) for code in (errno.EIO, errno.EUCLEAN, errno.EBADMSG, errno.ELOOP, errno.ENODATA)),
        *((code, StorageError) for code in (errno.EMFILE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ENODEV, errno.ENXIO)),
        *((code, StorageError) for code in (errno.EHOSTDOWN, errno.ECONNRESET, errno.ESTALE, errno.EREMOTEIO)),
    ],
)
def test_only_what_speaks_against_the_file_is_damage(
    segment: Segment, spec: Spec, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(h5py, "File", fail)
        with pytest.raises(kind):
            open_segment(segment.path, spec)
    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(kind):
        open_segment(segment.path, spec)


@pytest.mark.parametrize("call", ["os.open", "os.readv", "h5py.File"])
def test_an_io_error_that_passes_is_no_damage(
    segment: Segment, spec: Spec, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    where, name = {"os": os, "h5py": h5py}[call.split(".")[0]], call.split(".")[1]
    real, calls = getattr(where, name), []

    def once(*given: Any, **options: Any) -> Any:
        calls.append(given)
        if len(calls) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*given, **options)

    monkeypatch.setattr(where, name, once)
    assert len(open_segment(segment.path, spec).digests) == 1000
    assert len(calls) > 1


def test_reading_takes_no_lock(segment: Segment, spec: Spec) -> None:
    import fcntl

    with open(segment.path, "rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert len(open_segment(segment.path, spec).digests) == 1000


def test_a_file_that_has_changed_since_it_was_checked_is_not_the_one_that_was(
    segment: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_read_raw", None)  # calling it would be an error
    os.utime(segment.path, (1, 1))
    with pytest.raises(FileNotFoundError, match="changed since it was checked"):
        segment.read_into(np.empty((1000, 2048), np.float32), np.arange(1000), np.arange(1000))
    with pytest.raises(FileNotFoundError, match="changed since it was checked"):
        segment.check_features()


def test_a_pipe_in_the_place_of_a_file_that_was_checked_makes_no_reader_wait(segment: Segment) -> None:
    segment.path.unlink()
    os.mkfifo(segment.path)
    with pytest.raises(FileNotFoundError, match="changed since it was checked"):
        segment.check_features()


def test_a_file_that_is_exchanged_between_its_check_and_its_opening_is_noticed(
    segment: Segment, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, other = module.h5py.File, segment.path.with_suffix(".other")
    other.write_bytes(segment.path.read_bytes())

    def late(*given: Any, **options: Any) -> Any:
        os.replace(other, segment.path)
        return real(*given, **options)

    monkeypatch.setattr(module.h5py, "File", late)
    with pytest.raises(FileNotFoundError, match="changed since it was checked"):
        open_segment(segment.path, spec)


def test_a_lazy_look_takes_features_as_they_are_on_the_disk(
    segment: Segment, rows: Rows, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "name_of_file", None)  # calling it would be an error
    lazy = open_segment(segment.path, spec, read_data=False)
    monkeypatch.setattr(module, "_hdf5", None)
    out = np.empty((1000, 2048), np.float32)
    lazy.read_into(out, np.arange(1000), np.arange(1000))
    np.testing.assert_array_equal(out, rows.features)


def test_a_file_that_is_cut_off_while_it_is_read_is_damage(segment: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "preadv", lambda *given: 0)
    out = np.empty((1, 2048), np.float32)
    with pytest.raises(DamageError, match="shorter than it was"):
        segment.read_into(out, np.array([0]), np.array([7]))
