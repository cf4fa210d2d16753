"""Runs that are killed at random moments, through the command line, and started again until all is done."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from featstore.records import Digests
from featstore.store import Store, verify
from tests.commands import finish, start
from tests.reliability.campaign import FULL, SMALL, Figures, amount, start_program

_MOST_LOST = 256
"""Rows that a kill may cost at most."""


@pytest.mark.parametrize("seed", range(amount(1, 2)))
def test_killed_at_any_moment_a_run_loses_little_and_ends_like_an_undisturbed_one(
    pictures: Callable[[int], Path], tmp_path: Path, figures: Figures, seed: int
) -> None:
    random.seed(seed)
    data, wanted = pictures(2000), amount(6, 250)
    digests = digests_of(data)
    computed = tmp_path / "computed"
    started = time.monotonic()
    assert finish(start_program("extract", data, *SMALL, "--store", tmp_path / "undisturbed")).code == 0
    seconds = time.monotonic() - started
    undisturbed = features(tmp_path / "undisturbed", digests)
    kills = Kills()
    while kills.count < wanted:
        store = tmp_path / f"store-{kills.runs}"
        while True:
            computed.write_bytes(b"")
            before = rows(store, digests)
            process = start_program(
                "extract", data, *SMALL, "--store", store, env={"COMPUTED": computed, "BASE_SECONDS": 0.004}
            )
            if not kills.kill(process, random.uniform(0.3, 1.2) * seconds):
                break
            kills.lost(sum(map(int, computed.read_text().split())) - (rows(store, digests) - before))
        assert features(store, digests).tobytes() == undisturbed.tobytes()
        assert verify(Store.open(store), read_data=True).sound
        kills.runs += 1
    assert kills.most_lost <= _MOST_LOST
    figures.keep(
        "kills of an extraction with a stub base", kills=kills.count, runs=kills.runs, most_rows_lost=kills.most_lost
    )


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
    files = sorted((photographs / "validation").rglob("*.jpg"))[:200]
    for file in files:
        target = few / file.parent.name
        target.mkdir(parents=True, exist_ok=True)
        (target / file.name).symlink_to(file)
    digests, wanted = digests_of(few), 25
    words = ("extract", few, "-b", "vgg16", "--image-size", "150")
    started = time.monotonic()
    assert finish(start(*words, "--store", tmp_path / "undisturbed")).code == 0
    seconds = time.monotonic() - started
    undisturbed = features(tmp_path / "undisturbed", digests)
    kills = Kills()
    while kills.count < wanted:
        store = tmp_path / f"store-{kills.runs}"
        while kills.kill(
            start(*words, "--store", store, own_group=True),
            random.uniform(0.1 if kills.count % 2 else 0.6, 1) * seconds,
        ):
            assert verify(Store.open(store), read_data=True).sound
        assert features(store, digests).tobytes() == undisturbed.tobytes()
        kills.runs += 1
    figures.keep("kills of an extraction with VGG16", kills=kills.count, runs=kills.runs)


@dataclass
class Kills:
    """Counts kills, the runs that were brought to an end in spite of them, and the most rows that one has cost."""

    count: int = 0
    runs: int = 0
    most_lost: int = 0

    def kill(self, process: subprocess.Popen[str], after: float) -> bool:
        """Kill the process after so many seconds; False if it was done before. Nothing of it is left then."""
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.kill()
            if (code := finish(process).code) == 0:  # it was done at that very moment
                return False
            assert code == -signal.SIGKILL
            self.count += 1
            assert _is_gone(process.pid)
            return True
        assert finish(process).code == 0
        return False

    def lost(self, rows: int) -> None:
        """Note what a kill has cost."""
        self.most_lost = max(self.most_lost, rows)


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
