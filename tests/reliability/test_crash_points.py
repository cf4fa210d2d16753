"""Every crash point of a real run: two extractions at once, a compaction and a garbage collection, under strace."""

from __future__ import annotations

import hashlib
import os
import random
import shlex
import shutil
import time
from collections import Counter
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
from featstore.whole import is_unfinished
from tests.commands import finish
from tests.reliability.campaign import (
    FULL,
    PROGRAM,
    SMALL,
    Figures,
    amount,
    deadline,
    program_environment,
    start_program,
)
from tests.reliability.crashes import Call, Disk, lay_out, record

_ROWS_PER_COMMIT = 16
_PICTURES = amount(22, 80) * _ROWS_PER_COMMIT
"""Of each of the two extractions; a quarter of them are the same in both."""

_HANGS_SECONDS = 60
"""After so long with one state a process is taken to hang; the slowest takes about one."""

_FINISHED = amount(4, 1)
"""One of so many kills is followed by a writer that finishes the work."""

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

    def reported(self, calls_done: int) -> set[bytes]:
        """The rows that must be there after so many calls: what was reported, but for what a collection may drop."""
        lines = b"".join(call.data for call in self.calls[:calls_done] if call.name == "report").decode().split()
        rows = {bytes.fromhex(line) for line in lines if line != _COLLECTING}
        return rows - self.dropped if _COLLECTING in lines else rows


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
    """Looks at the stores that crashes leave: ``states`` of them, of which it has ``finished`` some. ``swept`` counts
    what was cleared away then, by the folder in which it lay.
    """

    def __init__(self, recording: Recording, place: Path) -> None:
        self._recording = recording
        self._place = place
        self._pool: dict[bytes, Path] = {}
        self.states = self.finished = 0
        self.swept: Counter[str] = Counter()

    def look(self, state: dict[str, bytes | None], calls_done: int, *, and_finish: bool) -> None:
        """The store opens; what was reported is there; what is there is right; ``and_finish``: it can be finished."""
        self.states += 1
        with deadline(_HANGS_SECONDS, f"state {self.states}, after {calls_done} calls"):
            place = lay_out(state, self._recording.place, self._place, self._pool) / "store"
            found = self._check(place, calls_done)
            if and_finish:
                self._finish(place, found)

    def _check(self, place: Path, calls_done: int) -> np.ndarray:
        """Which rows the store has, bool (N,)."""
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
        lost = self._recording.reported(calls_done) - {digest.tobytes() for digest in self._recording.digests[found]}
        assert not lost, f"{len(lost)} reported rows are lost"
        return found

    def _finish(self, place: Path, found: np.ndarray) -> None:
        """A day later a writer sweeps what was left behind, and adds the rows that are missing."""
        self.finished += 1
        long_ago, store = time.time() - 90_000, Store.open(place)
        folders = store.private_folder, store.scan_folder, store.ledger_folder
        for file in (file for folder in folders for file in folder.glob("*")):
            os.utime(file, (long_ago, long_ago))
        self.swept.update(file.parent.name for file in _unfinished(store))
        with store.namespace(self._recording.spec).writer({}) as writer:
            assert _unfinished(store) == []
            for digest, row in zip(self._recording.digests[~found], self._recording.features[~found], strict=True):
                writer.add(digest.tobytes(), 0, row)
        whole = Store.open(place).namespace(self._recording.spec).snapshot()
        assert whole.read(self._recording.digests).tobytes() == self._recording.features.tobytes()
        assert verify(Store.open(place), read_data=True).sound


def _unfinished(store: Store) -> list[Path]:
    """What a kill has left of files that were being written."""
    derived = (file for folder in (store.scan_folder, store.ledger_folder) for file in folder.glob("*"))
    return [*store.private_folder.glob("*"), *(file for file in derived if is_unfinished(file.name))]


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
            examiner.look(state, number, and_finish=examiner.states % _FINISHED == 0)
            cut += 1
        disk.apply(call)
        if call.name not in ("fsync", "report") and number % step == 0:
            examiner.look(disk.after_a_kill(), number + 1, and_finish=examiner.states % _FINISHED == 0)
    examiner.look(disk.after_a_kill(), len(recording.calls), and_finish=True)
    assert examiner.states >= amount(40, 1000)
    assert examiner.swept["tmp"]
    assert examiner.swept["scan"] or not FULL
    figures.keep("kills between two system calls", states=examiner.states, cut_writes=cut, calls=len(recording.calls),
                 finished=examiner.finished, leftovers_swept=examiner.swept.total())  # fmt: skip


def test_after_a_power_cut_at_any_point_the_store_is_right(
    recording: Recording, tmp_path: Path, figures: Figures
) -> None:
    """At each point once with nothing of what was not forced to the disk, and then with any part of it."""
    examiner, disk, choose = Examiner(recording, tmp_path / "state"), Disk(recording.place), random.Random(0)
    points = range(len(recording.calls) + 1)
    tried = {*choose.sample(points, amount(20, len(points)))}
    looked_at: dict[frozenset[tuple[str, bytes | None]], int] = {}  # with so many rows reported
    for point in points:
        if point:
            disk.apply(recording.calls[point - 1])
        if point not in tried:
            continue
        reported, fresh = len(recording.reported(point)), 0
        for attempt in range(amount(2, 6)):
            state = disk.after_a_power_cut(choose, 0.0 if attempt == 0 else None)
            files = frozenset(state.items())
            if looked_at.get(files) == reported or fresh == 2:
                continue
            looked_at[files], fresh = reported, fresh + 1
            examiner.look(state, point, and_finish=fresh == 1)
    assert len(looked_at) >= amount(25, 2000)
    figures.keep("power cuts that lose any part of what was not forced to the disk",
                 different_states=len(looked_at), looks=examiner.states, finished=examiner.finished)  # fmt: skip
