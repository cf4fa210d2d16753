"""Every crash point of a real run: two extractions at once, a compaction and a garbage collection, under strace."""

from __future__ import annotations

import hashlib
import os
import random
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest

from featstore.records import Digests
from featstore.spec import Spec
from featstore.store import Store, verify
from tests.commands import finish
from tests.reliability.campaign import FULL, PROGRAM, SMALL, Figures, amount, program_environment, start_program
from tests.reliability.crashes import Call, Disk, lay_out, record

_ROWS_PER_COMMIT = 16
_PICTURES = amount(22, 80) * _ROWS_PER_COMMIT
"""Of each of the two extractions; a quarter of them are the same in both."""

_COLLECTING = "collecting"
"""What is reported before the garbage collection begins."""


@dataclass(frozen=True)
class Recording:
    """A run: the folder that it made its store in, its calls, its rows as an undisturbed run computed them, and which
    of them the garbage collection drops.
    """

    place: Path
    calls: list[Call]
    spec: Spec
    digests: Digests
    features: np.ndarray
    dropped: frozenset[bytes]


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory, pictures: Callable[[int], Path]) -> Recording:
    if shutil.which("strace") is None:
        pytest.skip("no strace here")
    folder = tmp_path_factory.mktemp("recording")
    place, reported = folder / "place", folder / "reported"
    store = place / "store"
    place.mkdir()
    one, other = _halves(pictures(2 * _PICTURES), folder)
    env = {**program_environment(), "ROWS": str(_ROWS_PER_COMMIT), "REPORTED": str(reported), "BASE_SECONDS": "0.2"}

    def word(*words: object) -> str:
        return shlex.join([*PROGRAM, *map(str, words), "--store", str(store)])

    calls = record(
        f"{word('extract', *SMALL, one)} & {word('extract', *SMALL, other)} & wait %1; wait %2; "
        f"{word('store', 'compact')}; echo {_COLLECTING} >> {reported}; {word('store', 'gc', '--keep', one)}",
        place, env, reported,
    )  # fmt: skip
    undisturbed = folder / "undisturbed"
    for half in (one, other):
        assert finish(start_program("extract", half, *SMALL, "--store", undisturbed)).code == 0
    [namespace] = Store.open(undisturbed).namespaces()
    digests = np.concatenate([segment.digests for segment, _ in namespace.snapshot().parts()])
    digests = np.unique(digests, axis=0)
    kept = set(_digests_of(one))
    dropped = frozenset(d.tobytes() for d in digests) - kept
    return Recording(place, calls, namespace.spec, digests, namespace.snapshot().read(digests), dropped)


def _halves(pictures: Path, folder: Path) -> tuple[Path, Path]:
    """Two datasets of links to the pictures, a quarter of each is in both."""
    files = sorted(pictures.rglob("*.png"))
    Random(0).shuffle(files)
    three = len(files) * 5 // 8
    for name, part in (("one", files[:three]), ("other", files[-three:])):
        for file in part:
            target = folder / name / file.parent.name
            target.mkdir(parents=True, exist_ok=True)
            os.link(file, target / file.name)
    return folder / "one", folder / "other"


def _digests_of(folder: Path) -> Iterator[bytes]:
    for file in folder.rglob("*.png"):
        yield hashlib.sha256(file.read_bytes()).digest()


class Examiner:
    """Looks at the stores that crashes leave."""

    def __init__(self, recording: Recording, place: Path) -> None:
        self._recording = recording
        self._place = place
        self._pool: dict[bytes, Path] = {}
        self.states = 0

    def look(self, state: dict[str, bytes | None], calls_done: int, *, thoroughly: bool = False) -> None:
        """The store opens; what was reported is there; what is there is right; ``thoroughly``: it can be finished."""
        self.states += 1
        place = lay_out(state, self._recording.place, self._place, self._pool) / "store"
        store, found = Store.open(place), np.zeros(len(self._recording.digests), bool)
        assert verify(store, read_data=True).sound
        for namespace in store.namespaces():  # none before the first row
            assert namespace.spec == self._recording.spec
            held = namespace.snapshot()
            assert held.damaged == ()
            status = held.lookup(self._recording.digests)
            assert set(status.tolist()) <= {-1, 0}
            found = status == 0
            if found.any():
                rows = held.read(self._recording.digests[found])
                assert rows.tobytes() == self._recording.features[found].tobytes()
            there = {digest.tobytes() for segment, _ in held.parts() for digest in segment.digests}
            assert there == {digest.tobytes() for digest in self._recording.digests[found]}, "rows that nobody made"
        there = {digest.tobytes() for digest in self._recording.digests[found]}
        lost = self._reported(calls_done) - there
        assert not lost, f"{len(lost)} reported rows are lost"
        if thoroughly:
            self._finish(place, found)

    def _reported(self, calls_done: int) -> set[bytes]:
        calls = self._recording.calls[:calls_done]
        lines = b"".join(call.data for call in calls if call.name == "report").decode().split()
        rows = {bytes.fromhex(line) for line in lines if line != _COLLECTING}
        return rows - self._recording.dropped if _COLLECTING in lines else rows

    def _finish(self, place: Path, found: np.ndarray) -> None:
        long_ago = time.time() - 90_000
        for leftover in (place / "tmp").glob("*"):
            os.utime(leftover, (long_ago, long_ago))
        with Store.open(place).namespace(self._recording.spec).writer({}) as writer:
            assert list((place / "tmp").iterdir()) == []
            for digest, row in zip(self._recording.digests[~found], self._recording.features[~found], strict=True):
                writer.add(digest.tobytes(), 0, row)
        whole = Store.open(place).namespace(self._recording.spec).snapshot()
        assert whole.read(self._recording.digests).tobytes() == self._recording.features.tobytes()
        assert verify(Store.open(place), read_data=True).sound


def test_the_recorded_run_is_a_real_one(recording: Recording) -> None:
    names = [call.name for call in recording.calls]
    assert names.count("report") >= 40
    assert names.count("link") >= 40
    collecting = next(n for n, call in enumerate(recording.calls) if call.data.startswith(_COLLECTING.encode()))
    removed = [n for n, call in enumerate(recording.calls) if call.name == "unlink" and "/seg/" in call.paths[0]]
    assert removed[0] < collecting < removed[-1], "neither compaction nor collection has removed a segment"
    assert recording.dropped
    writers = [call.process for call in recording.calls[: removed[0]] if call.name == "report"]
    assert len(set(writers)) == 2
    assert sum(one != other for one, other in pairwise(writers)) >= 4, "the two writers took no turns"
    disk = Disk(recording.place)
    for call in recording.calls:
        disk.apply(call)
    on_disk = {str(path): None if path.is_dir() else path.read_bytes() for path in recording.place.rglob("*")}
    on_disk[str(recording.place)] = None
    assert disk.after_a_kill() == on_disk, "the model of the disk is wrong"


def test_after_a_kill_at_any_point_the_store_is_right(recording: Recording, tmp_path: Path, figures: Figures) -> None:
    examiner, disk, step = Examiner(recording, tmp_path / "state"), Disk(recording.place), amount(8, 1)
    cut = 0
    for number, call in enumerate(recording.calls):
        if call.name == "write" and number % step == 0:
            state = disk.after_a_kill()
            state[call.paths[0]] = (state[call.paths[0]] or b"")[: call.at] + call.data[: len(call.data) // 2]
            examiner.look(state, number, thoroughly=number % (16 * step) == 0)
            cut += 1
        disk.apply(call)
        if call.name not in ("fsync", "report") and number % step == 0:
            examiner.look(disk.after_a_kill(), number + 1, thoroughly=number % (16 * step) == 0)
    examiner.look(disk.after_a_kill(), len(recording.calls), thoroughly=True)
    assert examiner.states >= amount(40, 1000)
    figures.keep("kills between two system calls", states=examiner.states, cut_writes=cut, calls=len(recording.calls))


@pytest.mark.parametrize("seed", range(amount(1, 4)))
def test_after_a_power_cut_at_any_point_the_store_is_right(
    recording: Recording, tmp_path: Path, figures: Figures, seed: int
) -> None:
    examiner, choose = Examiner(recording, tmp_path / "state"), random.Random(seed)
    points = sorted(choose.choices(range(len(recording.calls) + 1), k=amount(40, 600)))
    disk, done = Disk(recording.place), 0
    for number, point in enumerate(points):
        for call in recording.calls[done:point]:
            disk.apply(call)
        done = point
        examiner.look(disk.after_a_power_cut(choose), point, thoroughly=number % (4 if not FULL else 16) == 0)
    figures.keep("power cuts that lose any part of what was not forced to the disk", states=examiner.states)
