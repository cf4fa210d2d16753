"""Many processes at one store: writers, writers that are killed, readers, compactions, garbage collections."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from featstore.store import Store, compact, verify
from tests.commands import Done, finish
from tests.reliability.campaign import FULL, SMALL, Figures, amount, has_lines, start_program
from tests.reliability.test_kills import digests_of, features, rows
from tests.waiting import until

_SECONDS = 120
"""After so long a process is taken to hang."""


@pytest.mark.parametrize("overlapping", [True, False] if FULL else [True])
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
        store, reported = tmp_path / f"store-{repeat}", tmp_path / f"reported-{repeat}"
        # without locks: featstore takes none, and HDF5 is told to take none
        env = {"ROWS": 24, "BASE_SECONDS": 0.2, "HDF5_USE_FILE_LOCKING": "FALSE"}
        first = start_program("extract", parts[0], *SMALL, "--store", store, env={**env, "REPORTED": reported})
        others = [start_program("extract", part, *SMALL, "--store", store, env=env) for part in parts[1:]]
        processes = [first, *others]
        if repeat % 2:
            until(partial(has_lines, reported), _SECONDS)  # of its first commit
            time.sleep(random.uniform(0, 0.3))
            first.kill()
        ended = [finish(process, _SECONDS) for process in processes]
        if ended[0].code == -signal.SIGKILL:
            killed += 1
            assert verify(Store.open(store)).sound
            told = np.array([list(bytes.fromhex(line)) for line in reported.read_text().split()], np.uint8)
            assert rows(store, told) == len(told) > 0, "a row that the killed one had reported is gone"
            ended[0] = finish(start_program("extract", parts[0], *SMALL, "--store", store, env=env), _SECONDS)
        assert [done.code for done in ended] == [0] * writers, [done.err for done in ended if done.code]
        assert features(store, digests).tobytes() == undisturbed.tobytes()
        assert verify(Store.open(store), read_data=True).sound
    assert killed == repeats // 2
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
    data, unwanted = pictures(600), pictures(640)  # the first 600 of these are the same
    digests, more = digests_of(data), digests_of(unwanted)
    assert finish(start_program("extract", unwanted, *SMALL, "--store", tmp_path / "undisturbed")).code == 0
    undisturbed = features(tmp_path / "undisturbed", digests)
    looks = joined = dropped = repeat = 0
    while repeat < amount(1, 10) or not (joined and dropped):  # on a busy machine a compaction may come too late
        assert repeat < amount(5, 20), f"nothing was joined, or nothing collected, amid writing: {joined}, {dropped}"
        repeat += 1
        store = tmp_path / f"store-{repeat}"
        env = {"ROWS": 8, "BASE_SECONDS": amount(2, 3) / 10 * repeat}  # longer each time
        with ExitStack() as stack:
            writers = [start_program("extract", part, *SMALL, "--store", store, env=env) for part in (data, unwanted)]
            for process in writers:
                stack.callback(process.kill)
            collector = stack.enter_context(_Repeating("store", "gc", "--keep", data, "--store", store, "--json"))
            compactors = [
                stack.enter_context(_Repeating("store", "compact", "--store", store, "--json")) for _ in range(2)
            ]
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
            joins = sum(_joined(said) for compactor in compactors for said in compactor.said)
            amid_writing = [joins, sum(one["rows"] for one in collector.said)]
            assert [finish(process, _SECONDS).code for process in writers] == [0, 0]
        assert [done.err for repeating in (*compactors, collector) for done in repeating.ended if done.code] == []
        joined, dropped = joined + amid_writing[0], dropped + amid_writing[1]
        compact(Store.open(store))
        assert finish(start_program("store", "gc", "--keep", data, "--store", store)).code == 0
        assert features(store, digests).tobytes() == undisturbed.tobytes()
        assert rows(store, more) == len(digests), "what was not to be kept is there still"
        assert verify(Store.open(store), read_data=True).sound
    assert looks
    assert dropped > 0
    figures.keep(
        "looks of a reader beside two writers", looks=looks, compactions_that_joined=joined, rows_collected=dropped
    )


def _joined(said: dict[str, Any]) -> bool:
    """Whether a compaction has made one segment of several."""
    return bool(said["segments"]["after"] < said["segments"]["before"])


class _Repeating:
    """A command that is run again and again in a thread, until the end of the block."""

    def __init__(self, *words: object) -> None:
        self._words = words
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.ended: list[Done] = []

    @property
    def said(self) -> list[dict[str, Any]]:
        """What those that succeeded have said."""
        return [done.json for done in self.ended if done.code == 0]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        env = {"SEGMENT_BYTES": 24 * 24}  # of 24 rows: some are too large to be joined
        while not self._stop.is_set():
            self.ended.append(finish(start_program(*self._words, env=env), _SECONDS))
