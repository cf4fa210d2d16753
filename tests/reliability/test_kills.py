"""Runs that are killed at random moments, through the command line, and started again until all is done."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest

from featstore.records import Digests
from featstore.store import Store, verify
from tests.commands import finish
from tests.reliability.campaign import FULL, SMALL, Figures, amount, start_program

_MOST_LOST = 256
"""Rows that a kill may cost at most."""


@pytest.mark.parametrize("seed", range(amount(1, 2)))
def test_killed_at_any_moment_a_run_loses_little_and_ends_like_an_undisturbed_one(
    pictures: Callable[[int], Path], tmp_path: Path, figures: Figures, seed: int
) -> None:
    random.seed(seed)
    words = (pictures(2000), *SMALL)
    kills = kill_again_and_again(words, tmp_path, amount(4, 250), {"BASE_SECONDS": 0.02})
    figures.keep("kills of an extraction with a stub base", **asdict(kills))


@pytest.mark.real
@pytest.mark.skipif(
    not FULL, reason="part of the whole campaign: benchmarks/reliability.py; test_faults.py kills one, too"
)
@pytest.mark.parametrize("seed", range(2))
def test_killed_with_a_real_base_a_run_ends_like_an_undisturbed_one(
    photographs: Path, tmp_path: Path, figures: Figures, seed: int
) -> None:
    random.seed(seed)
    few = tmp_path / "few"
    for file in sorted((photographs / "train").rglob("*.jpg"))[:400]:
        target = few / file.parent.name
        target.mkdir(parents=True, exist_ok=True)
        (target / file.name).symlink_to(file)
    words = (few, "-b", "vgg16", "--image-size", "150")
    kills = kill_again_and_again(words, tmp_path, 25, {"REAL": 1})
    figures.keep("kills of an extraction with VGG16", **asdict(kills))


def kill_again_and_again(words: Sequence[object], place: Path, wanted: int, env: Mapping[str, object]) -> Kills:
    """Kill ``extract WORDS`` at random moments and start it again until it is done, in one store after the other, until
    there were ``wanted`` kills. Every store must end like that of an undisturbed run.
    """
    folder, *_ = words
    assert isinstance(folder, Path)
    digests, computed = digests_of(folder), place / "computed"
    started = time.monotonic()
    assert finish(start_program("extract", *words, "--store", place / "undisturbed", env=env)).code == 0
    seconds = time.monotonic() - started
    undisturbed = features(place / "undisturbed", digests)
    kills = Kills()
    while kills.kills < wanted:
        store = place / f"store-{kills.runs}"
        while True:
            computed.write_bytes(b"")
            before = rows(store, digests)
            process = start_program("extract", *words, "--store", store, env={**env, "COMPUTED": computed})
            if not kills.kill(process, random.uniform(0.3, 1.2) * seconds):
                break
            kills.note(sum(map(int, computed.read_text().split())), rows(store, digests) - before)
            if store.exists():
                assert verify(Store.open(store)).sound
        assert features(store, digests).tobytes() == undisturbed.tobytes()
        assert verify(Store.open(store), read_data=True).sound
        kills.runs += 1
    assert kills.most_rows_lost <= _MOST_LOST
    if FULL:  # of a few kills all may come too early
        assert kills.amid_computing >= kills.kills // 4
        assert kills.most_rows_lost > 0
    return kills


@dataclass
class Kills:
    """Counts kills, those that came while the base was computing, the runs that were brought to an end in spite of
    them, and the most rows that one has cost.
    """

    kills: int = 0
    amid_computing: int = 0
    runs: int = 0
    most_rows_lost: int = 0

    def kill(self, process: subprocess.Popen[str], after: float) -> bool:
        """Kill the process after so many seconds; False if it was done before. Nothing of it is left then."""
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.kill()
            if (code := finish(process).code) == 0:  # it was done at that very moment
                return False
            assert code == -signal.SIGKILL
            self.kills += 1
            assert _is_gone(process.pid)
            return True
        assert finish(process).code == 0
        return False

    def note(self, computed: int, kept: int) -> None:
        """Note how many rows a killed run had begun to compute, and how many of them are in the store."""
        self.amid_computing += computed > 0
        self.most_rows_lost = max(self.most_rows_lost, computed - kept)


def _is_gone(group: int, seconds: float = 5.0) -> bool:
    """Whether nobody of a process group lives on; what was ending at that moment may take its time to be reaped."""
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def digests_of(folder: Path) -> Digests:
    """Of all files in the folder, uint8 (N, 32), by path."""
    found = [hashlib.sha256(file.read_bytes()).digest() for file in sorted(folder.rglob("*.*g"))]
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, 32)


def rows(store: Path, digests: Digests) -> int:
    """How many of these have features in the store."""
    return sum(int((one.snapshot().lookup(digests) == 0).sum()) for one in Store.open(store).namespaces())


def features(store: Path, digests: Digests) -> np.ndarray:
    """Those of all of these, from the only namespace of the store."""
    [namespace] = Store.open(store).namespaces()
    return np.asarray(namespace.snapshot().read(digests))
