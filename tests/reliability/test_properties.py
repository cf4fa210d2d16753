"""The store as a state machine: whatever is done to it in whatever order, it serves what a dictionary would."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import ClassVar

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from featstore.errors import DamageError
from featstore.records import Digests, Reason
from featstore.spec import Spec
from featstore.store import Namespace, Snapshot, Store, compact, verify
from tests.reliability.campaign import amount, run_machine
from tests.reliability.faulty import FaultyDisk

IMAGES = 24
"""So many images exist; each has a digest and features of its own, and some are rejects."""

_SPEC = Spec("vgg16", "ab" * 32, "block5_pool", (150, 150))
_IMAGES = st.sets(st.integers(0, IMAGES - 1), min_size=1)


def digest(image: int) -> bytes:
    return np.random.default_rng(image).bytes(32)


def features(image: int) -> np.ndarray | None:
    """None if the image is broken."""
    return None if image % 5 == 4 else np.random.default_rng(1000 + image).random(8, np.float32)


def digests(images: Iterable[int]) -> Digests:
    return np.frombuffer(b"".join(map(digest, images)), np.uint8).reshape(-1, 32)


class Killed(BaseException):
    """The process died here."""


class Dying(FaultyDisk):
    """A disk on which the process dies in the ``at``-th call, and does nothing more."""

    def _fail(self, first: object, name: str) -> None:
        del first, name
        raise Killed


class StoreMachine(RuleBasedStateMachine):
    """``certain`` images have rows for sure; ``possible`` ones may have: what was being written when a process died.
    ``happened`` counts what was done to stores that had something to lose, in all runs together.
    """

    happened: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.path = self.place / "store"
        self.certain: set[int] = set()
        self.possible: set[int] = set()
        self.copies = 0
        self.held: Snapshot | None = None

    def teardown(self) -> None:
        shutil.rmtree(self.place)

    @property
    def namespace(self) -> Namespace:
        """As a new process sees it."""
        return Store.open(self.path).namespace(_SPEC)

    @initialize()
    def nothing_is_there_at_first(self) -> None:
        assert not Store.open(self.path).exists

    @rule(images=_IMAGES, commit=st.integers(1, 8), codec=st.sampled_from(["none", "zstd"]))
    def extract(self, images: set[int], commit: int, codec: str) -> None:
        self._write(sorted(images), commit, codec)
        self.certain |= images
        self.held = self.namespace.snapshot()

    @rule(images=_IMAGES, commit=st.integers(1, 8), at=st.integers(0, 60))
    def extract_and_be_killed(self, images: set[int], commit: int, at: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            Dying(patch, self.path, at=at)
            try:
                self._write(sorted(images), commit, "none")
            except Killed:
                self.possible |= images
                self.happened["kills amid an extraction"] += 1
            else:
                self.certain |= images

    def _write(self, images: list[int], commit: int, codec: str) -> None:
        writer = self.namespace.writer({}, codec)  # type: ignore[arg-type]
        held = self.namespace.snapshot().lookup(digests(images))
        for number, (image, status) in enumerate(zip(images, held, strict=True)):
            if status >= 0:
                continue
            row = features(image)
            if row is None:
                writer.reject(digest(image), 0, Reason.CORRUPT)
            else:
                writer.add(digest(image), 0, row)
            if number % commit == 0:
                writer.flush()
        writer.close()

    @rule(copied=st.booleans())
    def take_it_elsewhere(self, copied: bool) -> None:
        self.copies += 1
        source, self.path = self.path, self.place / f"copy-{self.copies}"
        if not source.exists():
            return
        if copied:
            shutil.copytree(source, self.path)
        else:
            source.rename(self.path)
        self.happened["copies" if copied else "moves"] += bool(self.certain)

    @rule(seed=st.integers(0, 2**32 - 1))  # not st.randoms: what is chosen from differs from run to run
    def damage_a_segment(self, seed: int) -> None:
        choice = Random(seed)
        segments = sorted(self.path.glob("ns/*/seg/*.h5"))
        if not segments:
            return
        path = choice.choice(segments)
        held = self.namespace.snapshot()
        [owner] = [segment for segment, _ in held.parts() if segment.path == path] or [None]
        content = bytearray(path.read_bytes())
        content[choice.randrange(len(content))] ^= 1 << choice.randrange(8)
        path.write_bytes(content)
        if owner is not None:
            lost = {image for image in range(IMAGES) if digest(image) in {d.tobytes() for d in owner.digests}}
            self.happened["damages"] += bool(lost)
            self.certain -= lost
            self.possible |= lost  # another segment may hold them too
        self.verify_it()

    @rule()
    def compact_it(self) -> None:
        done = compact(Store.open(self.path))
        self.happened["compactions that joined segments"] += done.segments_after < done.segments_before

    @rule(at=st.integers(0, 60))
    def compact_and_be_killed(self, at: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            Dying(patch, self.path, at=at)
            try:
                compact(Store.open(self.path))
            except Killed:
                self.happened["kills amid a compaction"] += 1

    @rule(kept=_IMAGES)
    def collect(self, kept: set[int]) -> None:
        wanted = {digest(image) for image in kept}
        compact(Store.open(self.path), wanted=lambda found: np.array([d.tobytes() in wanted for d in found], bool))
        self.happened["collections of certain rows"] += not self.certain <= kept
        self.certain &= kept
        self.possible &= kept

    @rule()
    def verify_it(self) -> None:
        if Store.open(self.path).exists:
            segments = self.path.glob("ns/*/seg/*.h5")
            wrong = {path.name for path in segments if blake3(path.read_bytes()).hexdigest() != path.stem}
            assert {problem.path.name for problem in verify(Store.open(self.path), read_data=True).problems} == wrong
            assert {damage.path.name for damage in self.namespace.snapshot().damaged} == wrong
            self.happened["checks that found damage"] += bool(wrong)

    @rule()
    def leave_the_derived_files_behind(self) -> None:
        shutil.rmtree(self.path / "scan", ignore_errors=True)

    @invariant()
    def it_serves_what_a_dictionary_would(self) -> None:
        everything = range(IMAGES)
        for lookups_only in (False, True):
            held = self.namespace.snapshot(lookups_only=lookups_only)
            status = held.lookup(digests(everything))
            there = {image for image in everything if status[image] >= 0}
            assert self.certain <= there <= self.certain | self.possible
            for image in there:
                row = features(image)
                assert status[image] == (Reason.CORRUPT if row is None else Reason.OK)
                if row is not None and not lookups_only:
                    assert held.read(digests([image]))[0].tobytes() == row.tobytes()

    @invariant()
    def what_was_held_before_serves_nothing_wrong(self) -> None:
        if self.held is None:
            return
        for image in np.flatnonzero(self.held.lookup(digests(range(IMAGES))) == 0).tolist():
            try:
                found = self.held.read(digests([image]))[0].tobytes()
            except DamageError:
                self.happened["refusals of a held snapshot"] += 1
            else:
                assert found == features(image).tobytes()
                self.happened["reads of a held snapshot"] += 1


def test_the_store_is_a_dictionary() -> None:
    names = (
        "kills amid an extraction", "kills amid a compaction", "copies", "moves", "damages",
        "checks that found damage", "compactions that joined segments", "collections of certain rows",
        "reads of a held snapshot", "refusals of a held snapshot",
    )  # fmt: skip
    run_machine(StoreMachine, StoreMachine.happened, names, amount(15, 500), amount(15, 40))
