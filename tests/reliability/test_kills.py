"""Runs that are killed at random moments, through the command line, and started again until all is done."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest

from featstore.records import Digests
from featstore.store import Store, verify
from tests.commands import finish
from tests.reliability.campaign import FULL, SMALL, Figures, amount, start_program

_MOST_LOST = 255
"""Rows of each base that a kill may cost at most: 191 that wait for their commit, and two batches that are computed."""


@pytest.mark.parametrize(("bases", "seed"), [(1, 0), (2, 0)])
def test_killed_at_any_moment_a_run_loses_little_and_ends_like_an_undisturbed_one(
    pictures: Callable[[int], Path], tmp_path: Path, figures: Figures, bases: int, seed: int
) -> None:
    random.seed(seed)
    names = ("-b", "vgg16", "-b", "vgg19")[: 2 * bases]
    words = (pictures(amount(640, 2000)), *names, *SMALL)
    kills = kill_again_and_again(words, tmp_path, amount(2, 250), {"BASE_SECONDS": amount(5, 2) / 100 / bases})
    figures.keep(f"kills of an extraction with {('a stub base', 'two stub bases')[bases - 1]}", **asdict(kills))


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
    there were ``wanted`` kills, a quarter of them and one at least amid computing. Every store must end like that of an
    undisturbed run.
    """
    folder, *_ = words
    assert isinstance(folder, Path)
    digests, computed = digests_of(folder), place / "computed"
    started = time.monotonic()
    assert finish(start_program("extract", *words, "--store", place / "undisturbed", env=env)).code == 0
    seconds = time.monotonic() - started
    undisturbed = features_by_base(place / "undisturbed", digests)
    kills = Kills()
    while kills.kills < wanted or kills.amid_computing < -(-wanted // 4):
        assert kills.kills < 4 * wanted, f"the base is hardly ever met: {kills}"
        store = place / f"store-{kills.runs}"
        while True:
            computed.write_bytes(b"")
            before = rows_by_base(store, digests)
            process = start_program("extract", *words, "--store", store, env={**env, "COMPUTED": computed})
            if not kills.kill(process, random.uniform(0.3, 1.2) * seconds):
                break
            now = rows_by_base(store, digests)
            assert before <= now, "rows that were there are gone"
            kills.note(_batches(computed), now - before)
            if store.exists():
                assert verify(Store.open(store)).sound
        assert features_by_base(store, digests) == undisturbed
        assert verify(Store.open(store), read_data=True).sound
        kills.runs += 1
    assert 0 < kills.most_rows_of_a_base_lost <= _MOST_LOST
    return kills


def _batches(computed: Path) -> Counter[str]:
    """Name of a base → images of the batches that it began."""
    found: Counter[str] = Counter()
    for line in computed.read_text().splitlines():
        name, images = line.split()
        found[name] += int(images)
    return found


@dataclass
class Kills:
    """Counts kills, those that came amid computing and so cost rows, the runs that were brought to an end in spite of
    them, and the most rows of one base that one kill has cost.
    """

    kills: int = 0
    amid_computing: int = 0
    runs: int = 0
    most_rows_of_a_base_lost: int = 0

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

    def note(self, computed: Counter[str], kept: Counter[str]) -> None:
        """Note how many rows of each base a killed run had begun to compute, and how many of them are in the store."""
        lost = max((computed[name] - kept[name] for name in computed), default=0)
        self.amid_computing += lost > 0
        self.most_rows_of_a_base_lost = max(self.most_rows_of_a_base_lost, lost)


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


def rows_by_base(store: Path, digests: Digests) -> Counter[str]:
    """:func:`rows`, of each base."""
    spaces = Store.open(store).namespaces()
    return Counter({one.spec.backbone: int((one.snapshot().lookup(digests) == 0).sum()) for one in spaces})


def features_by_base(store: Path, digests: Digests) -> dict[str, bytes]:
    """The bytes of the features of all of these, of each base."""
    spaces = Store.open(store).namespaces()
    return {one.spec.backbone: one.snapshot().read(digests).tobytes() for one in spaces}


def features(store: Path, digests: Digests) -> np.ndarray:
    """Those of all of these, from the only namespace of the store."""
    [namespace] = Store.open(store).namespaces()
    return np.asarray(namespace.snapshot().read(digests))
