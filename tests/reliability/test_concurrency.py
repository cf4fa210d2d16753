"""Many processes at one store: writers, writers that are killed, readers, compactions, garbage collections."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from featstore.store import Store, compact, verify
from tests.commands import finish
from tests.reliability.campaign import FULL, SMALL, Figures, amount, start_program
from tests.reliability.test_kills import digests_of, features

_SECONDS = 120
"""After so long a process is taken to hang."""


@pytest.mark.parametrize("overlapping", [False, True], ids=["same images", "overlapping"])
@pytest.mark.parametrize("writers", [2, 4, 8] if FULL else [4])
def test_writers_at_once_make_the_union_of_their_rows(
    writers: int, overlapping: bool, pictures: Callable[[int], Path], tmp_path: Path, figures: Figures
) -> None:
    data, repeats = pictures(600), amount(2, 20)
    files = sorted(data.rglob("*.png"))
    parts = [_part(files, tmp_path / f"part-{n}", n if overlapping else None, writers) for n in range(writers)]
    digests = digests_of(data)
    assert finish(start_program("extract", data, *SMALL, "--store", tmp_path / "undisturbed")).code == 0
    undisturbed = features(tmp_path / "undisturbed", digests)
    killed = 0
    for repeat in range(repeats):
        store = tmp_path / f"store-{repeat}"
        # without locks: featstore takes none, and HDF5 is told to take none
        env = {"ROWS": 24, "BASE_SECONDS": 0.01, "HDF5_USE_FILE_LOCKING": "FALSE"}
        processes = [start_program("extract", part, *SMALL, "--store", store, env=env) for part in parts]
        if repeat % 2:
            time.sleep(random.uniform(0.3, 1.5))
            processes[0].kill()
        ended = [finish(process, _SECONDS) for process in processes]
        if ended[0].code == -signal.SIGKILL:
            killed += 1
            ended[0] = finish(start_program("extract", parts[0], *SMALL, "--store", store, env=env), _SECONDS)
        assert [done.code for done in ended] == [0] * writers, [done.err for done in ended if done.code]
        assert features(store, digests).tobytes() == undisturbed.tobytes()
        assert verify(Store.open(store), read_data=True).sound
    figures.keep(f"{writers} writers at once, {'overlapping' if overlapping else 'the same images'}",
                 runs=repeats, with_one_killed=killed)  # fmt: skip


def _part(files: Sequence[Path], place: Path, number: int | None, of: int) -> Path:
    """All files, or the part ``number``: every image is in two parts at least."""
    for at, file in enumerate(files):
        if number is None or (at - number) % of < 2:
            target = place / file.parent.name
            target.mkdir(parents=True, exist_ok=True)
            os.link(file, target / file.name)
    return place


def test_readers_see_right_rows_while_others_write_compact_and_collect(
    pictures: Callable[[int], Path], tmp_path: Path, figures: Figures
) -> None:
    data = pictures(600)
    digests = digests_of(data)
    assert finish(start_program("extract", data, *SMALL, "--store", tmp_path / "undisturbed")).code == 0
    undisturbed = features(tmp_path / "undisturbed", digests)
    looks = compactions = collections = 0
    for repeat in range(amount(1, 10)):
        store = tmp_path / f"store-{repeat}"
        env = {"ROWS": 8, "BASE_SECONDS": 0.02}
        writers = [start_program("extract", data, *SMALL, "--store", store, env=env) for _ in range(2)]
        collector = _Repeating("store", "gc", "--keep", data, "--store", store)
        compactor = _Repeating("store", "compact", "--store", store)
        seen = np.zeros(len(digests), bool)
        while any(process.poll() is None for process in writers):
            for namespace in Store.open(store).namespaces():
                held = namespace.snapshot()
                found = held.lookup(digests) == 0
                assert held.damaged == ()
                assert not (seen & ~found).any(), "a row that was there is gone"
                seen |= found
                if found.any():
                    assert held.read(digests[found]).tobytes() == undisturbed[found].tobytes()
                looks += 1
        assert [finish(process, _SECONDS).code for process in writers] == [0, 0]
        compactions, collections = compactions + compactor.stop(), collections + collector.stop()
        compact(Store.open(store))
        assert features(store, digests).tobytes() == undisturbed.tobytes()
        assert verify(Store.open(store), read_data=True).sound
    assert looks
    figures.keep(
        "looks of a reader beside two writers", looks=looks, compactions=compactions, garbage_collections=collections
    )


class _Repeating:
    """A command that is run again and again in a thread, until it is stopped."""

    def __init__(self, *words: object) -> None:
        self._words = words
        self._count = 0
        self._failures: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            done = finish(start_program(*self._words), _SECONDS)
            if done.code:
                self._failures.append(done.err)
            self._count += 1

    def stop(self) -> int:
        """How often it ran; every time it must have succeeded."""
        self._stop.set()
        self._thread.join()
        assert self._failures == []
        return self._count
