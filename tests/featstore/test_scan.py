from __future__ import annotations

import hashlib
import os
import struct
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featstore import scan as module
from featstore.dataset import Dataset, open_dataset
from featstore.dataset.sources import FolderSource
from featstore.progress import Advance
from featstore.records import Reason, Stamp
from featstore.scan import StatCache, digest_all, hash_dataset, known_digests

OLD = Stamp(3, 1_000, 2_000, 2**64 - 1)
DIGEST = bytes(range(31)) + b"\0"


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Four images of two contents, untouched long enough to be trusted."""
    folder = tmp_path / "data"
    for path, content in {"a/1.jpg": b"one", "a/2.jpg": b"two", "b/1.jpg": b"one", "b/caf\udce9.jpg": b"three"}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return open_dataset(folder)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute has passed since the files were written."""
    now = time.time_ns
    monkeypatch.setattr(module.time, "time_ns", lambda: now() + 60_000_000_000)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that are read, as they are read."""
    paths: list[str] = []
    read = FolderSource.read
    monkeypatch.setattr(FolderSource, "read", lambda self, path, limit: paths.append(path) or read(self, path, limit))
    return paths


def sha(content: bytes) -> list[int]:
    return list(hashlib.sha256(content).digest())


def cache_of(data: Dataset, tmp_path: Path) -> StatCache:
    return StatCache.load(tmp_path / "scan", data.source.location)


class TestDigests:
    def test_every_image_gets_the_sha256_of_its_bytes(self, data: Dataset) -> None:
        found = hash_dataset(data, StatCache())
        assert found.values.tolist() == [sha(b"one"), sha(b"two"), sha(b"one"), sha(b"three")]
        assert found.values.dtype == np.uint8
        assert found.known.all()
        assert found.rejects == {}

    def test_nothing_is_known_without_reading_at_first(self, data: Dataset, reads: list[str]) -> None:
        found = known_digests(data, StatCache())
        assert not found.known.any()
        assert not found.values.any()
        assert reads == []

    @pytest.mark.usefixtures("later")
    def test_a_second_scan_reads_nothing(self, data: Dataset, tmp_path: Path, reads: list[str]) -> None:
        first = digest_all(data, tmp_path / "scan")
        assert len(reads) == 4
        again = digest_all(data, tmp_path / "scan")
        assert len(reads) == 4
        assert (again.values == first.values).all()
        assert known_digests(data, cache_of(data, tmp_path)).known.all()

    @pytest.mark.usefixtures("later")
    def test_rehash_reads_everything(self, data: Dataset, tmp_path: Path, reads: list[str]) -> None:
        digest_all(data, tmp_path / "scan")
        assert digest_all(data, tmp_path / "scan", rehash=True).known.all()
        assert len(reads) == 8

    @pytest.mark.usefixtures("later")
    def test_a_changed_file_is_read_again(self, data: Dataset, tmp_path: Path, reads: list[str]) -> None:
        digest_all(data, tmp_path / "scan")
        reads.clear()
        file = Path(data.source.location) / "a/2.jpg"
        times = file.stat().st_mtime_ns
        file.write_bytes(b"TWO")
        os.utime(file, ns=(times, times))  # as some copying programs do; the change time tells
        assert digest_all(data, tmp_path / "scan").values[1].tolist() == sha(b"TWO")
        assert reads == ["a/2.jpg"]

    def test_a_file_changed_just_now_is_never_trusted(self, data: Dataset, tmp_path: Path, reads: list[str]) -> None:
        for _ in range(2):
            digest_all(data, tmp_path / "scan")
        assert len(reads) == 8

    @pytest.mark.usefixtures("later")
    def test_only_what_is_asked_for_is_read(self, data: Dataset, reads: list[str]) -> None:
        only = np.array([True, False, False, True])
        found = hash_dataset(data, StatCache(), only=only)
        assert found.known.tolist() == only.tolist()
        assert len(reads) == 2

    def test_what_cannot_be_read_is_rejected_and_the_rest_goes_on(
        self, data: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = Path(data.source.location)
        (folder / "a/1.jpg").unlink()
        (folder / "b/1.jpg").unlink()
        os.mkfifo(folder / "b/1.jpg")
        monkeypatch.setattr(module, "MAX_FILE_BYTES", 4)
        found = hash_dataset(data, StatCache())
        assert found.known.tolist() == [False, True, False, False]
        assert {i: reject.reason for i, reject in found.rejects.items()} == {
            0: Reason.UNREADABLE,
            2: Reason.UNREADABLE,
            3: Reason.FILE_TOO_LARGE,
        }
        assert not found.values[0].any()

    def test_too_large_files_are_known_without_reading(self, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_FILE_BYTES", 2)
        assert [r.reason for r in known_digests(data, StatCache()).rejects.values()] == [Reason.FILE_TOO_LARGE] * 4

    def test_progress_counts_every_file_that_is_read(self, data: Dataset) -> None:
        seen: list[object] = []

        @contextmanager
        def progress(label: str, total: int, unit: str = "images") -> Iterator[Advance]:
            seen.append((label, total, unit))
            yield seen.append

        hash_dataset(data, StatCache(), progress=progress)
        assert seen == [("reading", 4, "images"), 1, 1, 1, 1]

    @pytest.mark.usefixtures("later")
    def test_what_was_read_before_an_interrupt_is_kept(
        self, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_CHUNK", 1)

        @contextmanager
        def interrupting(label: str, total: int, unit: str = "images") -> Iterator[Advance]:
            steps = iter([None, None])

            def advance(_count: int) -> None:
                if next(steps, "over") == "over":
                    raise KeyboardInterrupt

            yield advance

        with pytest.raises(KeyboardInterrupt):
            digest_all(data, tmp_path / "scan", progress=interrupting)
        assert known_digests(data, cache_of(data, tmp_path)).known.sum() == 3


def many_members(count: int, *, long: bool) -> bytes:
    """A zip that lists so many members, all of them the same; ``long``: its list is that of a 64-bit end alone."""
    one = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
    members = (one + b"a") * count
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 3, 3, 0 if long else len(members), 0, 0)
    if not long:
        return members + end
    long_end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(members), 0)
    return members + long_end + struct.pack("<4sLQL", b"PK\6\7", 0, len(members), 1) + end


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


class TestStatCache:
    def test_what_is_saved_is_loaded(self, tmp_path: Path) -> None:
        cache = StatCache.load(tmp_path, "/data")
        paths = ["a.jpg", "caf\udce9.jpg", "line\nbreak", "日本.png"]
        for path in paths:
            cache.put(path, OLD, DIGEST)
        cache.save()
        again = StatCache.load(tmp_path, "/data")
        assert [again.get(path, OLD) for path in paths] == [DIGEST] * 4
        assert again.get("other", OLD) is None
        assert StatCache.load(tmp_path, "/elsewhere").get("a.jpg", OLD) is None
        assert [f.name for f in tmp_path.iterdir()] == [hashlib.sha256(b"/data").hexdigest() + ".npz"]

    @pytest.mark.parametrize("field", ["size", "mtime_ns", "ctime_ns", "inode"])
    def test_any_other_stamp_is_unknown(self, field: str) -> None:
        cache = StatCache()
        cache.put("a", OLD, DIGEST)
        assert cache.get("a", OLD) == DIGEST
        assert cache.get("a", replace(OLD, **{field: getattr(OLD, field) - 1})) is None

    @pytest.mark.parametrize("field", ["mtime_ns", "ctime_ns"])
    @pytest.mark.parametrize(("age", "trusted"), [(10.0, True), (1.0, False), (-100.0, False)])
    def test_two_seconds_decide_what_is_trusted(self, field: str, age: float, trusted: bool) -> None:
        cache = StatCache()
        stamp = replace(OLD, **{field: time.time_ns() - int(age * 1e9)})
        cache.put("a", stamp, DIGEST)
        assert (cache.get("a", stamp) is not None) is trusted

    @pytest.mark.parametrize("field", ["mtime_ns", "ctime_ns"])
    @pytest.mark.parametrize("time_ns", [2**63, -(2**63) - 1])
    def test_a_time_that_no_entry_holds_is_never_known(self, field: str, time_ns: int) -> None:
        cache = StatCache()
        cache.put("a", OLD, DIGEST)
        stamp = replace(OLD, **{field: time_ns})
        assert cache.get("a", stamp) is None
        cache.put("a", stamp, DIGEST)
        assert cache.get("a", stamp) is None
        assert cache.get("a", OLD) is None

    def test_a_young_file_drives_out_what_was_known(self) -> None:
        cache = StatCache()
        cache.put("a", OLD, DIGEST)
        cache.put("a", replace(OLD, mtime_ns=time.time_ns()), bytes(32))
        assert cache.get("a", OLD) is None

    @pytest.mark.parametrize("damage", ["empty", "text", "half", "flipped", "pickle", "foreign", "short"])
    def test_a_damaged_cache_is_an_empty_one_and_mends(self, damage: str, tmp_path: Path) -> None:
        cache = StatCache.load(tmp_path, "/data")
        cache.put("a", OLD, DIGEST)
        cache.save()
        (file,) = tmp_path.iterdir()
        good = file.read_bytes()
        if damage == "pickle":
            np.savez(file, entries=np.array([{}], dtype=object), paths=np.zeros(1, np.uint8), version=1)
        elif damage == "foreign":
            np.savez(file, other=np.zeros(3))
        elif damage == "short":
            np.savez(file, entries=np.zeros(2, module._ENTRY), paths=np.frombuffer(b"a\0", np.uint8), version=1)
        else:
            file.write_bytes(
                {"empty": b"", "text": b"text", "half": good[: len(good) // 2]}.get(
                    damage, good[:90] + b"\xff" * 30 + good[120:]
                )
            )
        cache = StatCache.load(tmp_path, "/data")
        assert cache.get("a", OLD) is None
        cache.put("a", OLD, DIGEST)
        cache.save()
        assert StatCache.load(tmp_path, "/data").get("a", OLD) == DIGEST

    def test_a_planted_pickle_is_not_run(self, tmp_path: Path) -> None:
        file = tmp_path / f"{hashlib.sha256(b'/data').hexdigest()}.npz"
        np.savez(file, entries=np.array([Planted(tmp_path / "run")], dtype=object), paths=np.zeros(1), version=1)
        StatCache.load(tmp_path, "/data")
        assert [f.name for f in tmp_path.iterdir()] == [file.name]

    @pytest.mark.parametrize("bomb", ["arrays", "members", "members of a 64-bit zip"])
    def test_a_bomb_is_an_empty_cache_at_little_cost(self, bomb: str, tmp_path: Path) -> None:
        file = tmp_path / f"{hashlib.sha256(b'/data').hexdigest()}.npz"
        if bomb == "arrays":
            entries, paths = np.zeros(2**19, module._ENTRY), np.zeros(2**19 + 1, np.uint8)
            np.savez_compressed(file, entries=entries, paths=paths, version=1)
            del entries, paths
        else:
            file.write_bytes(many_members(100_000, long="64" in bomb))
        tracemalloc.start()
        cache = StatCache.load(tmp_path, "/data")
        lost, (_, most) = module.lost_caches(tmp_path), tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 2**21
        assert lost == [file]
        cache.put("a", OLD, DIGEST)
        cache.save()
        assert StatCache.load(tmp_path, "/data").get("a", OLD) == DIGEST

    def test_a_cache_larger_than_it_can_be_is_not_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        cache = StatCache.load(tmp_path, "/data")
        cache.put("a", OLD, DIGEST)
        cache.save()
        (file,) = tmp_path.iterdir()
        for limit, known in ((file.stat().st_size, DIGEST), (file.stat().st_size - 1, None)):
            monkeypatch.setattr(module, "MAX_CACHE_BYTES", limit)
            assert StatCache.load(tmp_path, "/data").get("a", OLD) == known

    def test_a_place_that_cannot_be_written_is_no_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        cache = StatCache.load(tmp_path / "file" / "scan", "/data")
        cache.put("a", OLD, DIGEST)
        cache.save()

    def test_a_failed_save_leaves_the_old_cache_and_no_rubbish(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = StatCache.load(tmp_path, "/data")
        cache.put("a", OLD, DIGEST)
        cache.save()
        cache.put("b", OLD, DIGEST)

        def full(*_args: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as broken:
            broken.setattr(os, "replace", full)
            cache.save()
        assert len(list(tmp_path.iterdir())) == 1
        assert StatCache.load(tmp_path, "/data").get("b", OLD) is None
        cache.save()
        assert StatCache.load(tmp_path, "/data").get("b", OLD) == DIGEST

    def test_nothing_is_written_if_nothing_was_learned(self, tmp_path: Path) -> None:
        StatCache.load(tmp_path / "scan", "/data").save()
        assert list(tmp_path.iterdir()) == []

    def test_a_hundred_thousand_entries_take_a_moment(self, tmp_path: Path) -> None:
        cache = StatCache.load(tmp_path, "/data")
        for i in range(100_000):
            cache.put(f"train/cats/{i}.jpg", OLD, DIGEST)
        started = time.perf_counter()
        cache.save()
        again = StatCache.load(tmp_path, "/data")
        assert again.get("train/cats/99999.jpg", OLD) == DIGEST
        assert time.perf_counter() - started < 30  # seconds; 0.4 on an idle machine


def test_known_files_finds_each_digest_where_it_was_last_seen(data: Dataset, later: None, tmp_path: Path) -> None:
    digest_all(data, tmp_path / "scan")
    root = Path(data.source.location)
    (root / "a" / "2.jpg").unlink()
    (tmp_path / "scan" / f"{'0' * 64}.npz").write_bytes(b"not a cache")
    found = module.known_files(tmp_path / "scan")
    assert set(found) == {hashlib.sha256(content).digest() for content in (b"one", b"three")}
    assert found[hashlib.sha256(b"three").digest()] == root / "b" / "caf\udce9.jpg"


def test_known_files_of_a_store_that_is_not_there_is_nothing(tmp_path: Path) -> None:
    assert module.known_files(tmp_path / "nowhere") == {}
