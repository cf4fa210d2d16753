"""Full disks of every size, and one failing system call at a time."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from featstore.store import Store, verify
from featstore.store.writer import Writer
from tests.commands import finish, good, run
from tests.pictures import class_folders, png
from tests.reliability.campaign import FULL, SMALL, Figures, amount, start_program
from tests.reliability.faulty import FaultyDisk
from tests.reliability.test_kills import digests_of, features, rows
from tests.stubs import Bases


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """``tmpfs(size)`` mounts an empty file system of that many bytes; the one before is gone then."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(size: int) -> Path:
        unmount()
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "featstore-test", str(place)]
        if shutil.which("mount") is None or subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("mounting is not permitted here")
        return place

    def unmount() -> None:
        while os.path.ismount(place):
            subprocess.run(["umount", "-l", str(place)], check=True)

    yield mount
    unmount()


def test_a_disk_of_any_size_that_fills_up_costs_nothing_but_time(
    tmp_path: Path,
    pictures: Callable[[int], Path],
    tmpfs: Callable[[int], Path],
    figures: Figures,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    data, env = pictures(400), {"ROWS": 3}  # more segments than the largest of the disks has pages
    digests = digests_of(data)
    assert finish(start_program("extract", data, *SMALL, "--store", tmp_path / "undisturbed", env=env)).code == 0
    undisturbed = features(tmp_path / "undisturbed", digests)
    few = class_folders(tmp_path / "few")
    trained = finish(
        start_program(
            "train", few, *SMALL, "--head", "logreg", "--out", tmp_path / "out", "--store", tmp_path / "t", "--json"
        )
    )
    bundle = trained.json["results"][0]["bundle"]
    (tmp_path / "new.png").write_bytes(png(seed=10_000))
    there = ("--store", tmp_path / "disk" / "store", "--json")
    sizes = range(1, 101) if FULL else (40,)
    kept = 0
    for pages in sizes:
        place = tmpfs(pages * os.sysconf("SC_PAGE_SIZE"))
        store = place / "store"
        done = finish(start_program("extract", data, *SMALL, "--store", store, env=env))
        assert done.code == 4, (done.code, done.err)
        assert "No space left" in done.message
        assert "to do:" in done.message
        _fill(place)
        [predicted] = finish(start_program("predict", bundle, tmp_path / "new.png", *there)).json["predictions"]
        assert predicted["label"]
        verified = finish(start_program("store", "verify", "--read-data", *there)).json
        assert verified["sound"]
        listed = finish(start_program("store", "ls", *there)).json["namespaces"]
        assert sum(one["rows"] for one in listed) == verified["rows"] == rows(store, digests)
        kept += verified["rows"] > 0
        assert finish(start_program("store", "gc", *there)).code == 0
        (place / "filler").unlink()
        subprocess.run(["mount", "-o", "remount,size=16m", str(place)], check=True)
        assert finish(start_program("extract", data, *SMALL, "--store", store, env=env)).code == 0
        assert features(store, digests).tobytes() == undisturbed.tobytes()
        assert verify(Store.open(store), read_data=True).sound
    assert kept, "nothing was ever there that could have been lost"
    figures.keep("sizes of a small disk, all of which filled up", sizes=len(sizes), with_rows=kept)


def _fill(place: Path) -> None:
    """Take what room there is left."""
    with (place / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(1 << 16))


@pytest.mark.parametrize(
    "code", [errno.EIO, errno.EDQUOT, errno.EFBIG] if FULL else [errno.EDQUOT], ids=errno.errorcode.get
)
def test_any_failing_system_call_is_an_error_that_can_be_mended_and_loses_nothing(
    code: int, pictures: Callable[[int], Path], tmp_path: Path, bases: Bases, figures: Figures
) -> None:
    data = pictures(120)
    digests = digests_of(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featstore.store.writer.ROWS_PER_COMMIT", 32)
        store = tmp_path / "undisturbed"
        with pytest.MonkeyPatch.context() as counting:
            disk = FaultyDisk(counting, store)
            good("extract", data, *SMALL, "--store", store)
        undisturbed = features(store, digests)
        tried = refused = kept = 0
        for name in ("write", "fsync", "link", "open"):
            for number in range(0, disk.counts[name], amount(4, 1)):
                store = tmp_path / f"{name}-{number}"
                reported: list[bytes] = []
                with pytest.MonkeyPatch.context() as failing:
                    failing.setattr(Writer, "flush", _reporting(reported))
                    fault = FaultyDisk(failing, store, name, number, code)
                    done = run("extract", data, *SMALL, "--store", store)
                assert fault.failed
                assert done.code in (0, 1, 4), (name, number, done.err)
                assert "Traceback" not in done.err
                assert "a fault in featstore itself" not in done.err
                tried, refused = tried + 1, refused + (done.code != 0)
                if done.code:
                    kept += bool(reported)
                    assert "to do:" in done.message, (name, number, done.err)
                    assert done.code == (4 if code == errno.EDQUOT else 1), (name, number, done.err)
                if (store / "FORMAT").exists():
                    assert verify(Store.open(store), read_data=True).sound
                expected = digests if done.code == 0 else np.frombuffer(b"".join(reported), np.uint8).reshape(-1, 32)
                assert rows(store, expected) == len(expected), (name, number, "rows that were reported are lost")
                assert not list(store.glob("ns/*/quarantine/*")), (name, number)
                good("extract", data, *SMALL, "--store", store)
                assert np.array_equal(features(store, digests), undisturbed), (name, number)
    assert bases.computed
    assert kept, "no run had reported a row before it failed"
    figures.keep(f"one failing call at a time: {errno.errorcode[code]}",
                 calls=tried, ended_the_run=refused, after_rows_were_reported=kept)  # fmt: skip


def _reporting(reported: list[bytes]) -> Callable[[Writer], int]:
    """A writer's ``flush`` that notes the digests of what is safe once it has returned."""
    real = Writer.flush

    def flush(self: Writer) -> int:
        digests = [digest for digest, *_ in self._pending]
        done = real(self)
        reported.extend(digests)
        return done

    return flush
