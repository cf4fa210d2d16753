"""Files of a store that were changed by anything but featstore."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featstore.garbage import collect
from featstore.records import Digests
from featstore.spec import Spec
from featstore.store import Store, verify
from tests.commands import good
from tests.reliability.campaign import SMALL, Figures, amount, shards
from tests.stubs import Bases

_ROWS = 240
_A_SEGMENT = 24


class Original:
    """A store of ten segments that stays as it was; copies of it are damaged. Half of the copies are compressed."""

    def __init__(self, place: Path, codec: str) -> None:
        self.path = place
        self.spec = Spec("vgg16", "ab" * 32, "block5_pool", (150, 150))
        random_numbers = np.random.default_rng(0)
        self.digests: Digests = random_numbers.integers(0, 256, (_ROWS, 32), dtype=np.uint8)
        self.features = random_numbers.random((_ROWS, 16), dtype=np.float32).round(1)
        with Store.open(place).namespace(self.spec).writer({}, codec) as writer:  # type: ignore[arg-type]
            for number, (digest, row) in enumerate(zip(self.digests, self.features, strict=True)):
                writer.add(digest.tobytes(), 0, row)
                if (number + 1) % _A_SEGMENT == 0:
                    writer.flush()
        self.segments = sorted(place.glob("ns/*/seg/*.h5"))
        self.content = {path.name: path.read_bytes() for path in self.segments}
        self.owner = {
            digest.tobytes(): segment.path.name
            for segment, _ in Store.open(place).namespace(self.spec).snapshot().parts()
            for digest in segment.digests
        }

    def copy(self, place: Path) -> Path:
        """Another store with the same files (its own, so that they can be changed)."""
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.path, place)
        return place

    def check(self, store: Path, damaged: set[str], lost: set[str] | None = None) -> None:
        """All damage is found, no wrong row served, and only what was damaged is computed again.

        lost : the segments whose rows are missing, if they had other names.
        """
        names = damaged if lost is None else lost
        report = verify(Store.open(store), read_data=True)
        assert {problem.path.name for problem in report.problems} == damaged
        namespace = Store.open(store).namespace(self.spec)
        held = namespace.snapshot()
        assert {damage.path.name for damage in held.damaged} == damaged
        found = held.lookup(self.digests) == 0
        assert held.read(self.digests[found]).tobytes() == self.features[found].tobytes()
        assert (found == [self.owner[digest.tobytes()] not in names for digest in self.digests]).all()
        lazily = Store.open(store).namespace(self.spec).snapshot(lookups_only=True)
        assert {damage.path.name for damage in lazily.damaged} == damaged
        with namespace.writer({}) as writer:
            for digest, row in zip(self.digests[~found], self.features[~found], strict=True):
                writer.add(digest.tobytes(), 0, row)
        assert {path.name for path in store.glob("ns/*/quarantine/*")} == damaged
        again = Store.open(store)
        assert verify(again, read_data=True).sound
        assert again.namespace(self.spec).snapshot().read(self.digests).tobytes() == self.features.tobytes()
        collect(again)
        assert not list(store.glob("ns/*/quarantine/*"))


@pytest.fixture(scope="module", params=["none", "zstd"])
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Original:
    return Original(tmp_path_factory.mktemp("original") / "store", request.param)


def victim(original: Original, store: Path, choose: random.Random) -> Path:
    return next(store.glob(f"ns/*/seg/{choose.choice(original.segments).name}"))


@pytest.mark.parametrize("part", list(shards(amount(20, 1000), 2)), ids=["even", "odd"])
def test_every_flipped_bit_is_found(original: Original, tmp_path: Path, figures: Figures, part: range) -> None:
    for seed in part:
        choose = random.Random(seed)
        store = original.copy(tmp_path / "store")
        path = victim(original, store, choose)
        content = bytearray(path.read_bytes())
        content[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
        path.write_bytes(content)
        original.check(store, {path.name})
    figures.keep("flipped bits", flips=len(part), missed=0)


def test_every_truncation_is_found(original: Original, tmp_path: Path, figures: Figures) -> None:
    count = amount(6, 250)
    for seed in range(count):
        choose = random.Random(seed)
        store = original.copy(tmp_path / "store")
        path = victim(original, store, choose)
        os.truncate(path, choose.randrange(path.stat().st_size))
        original.check(store, {path.name})
    figures.keep("truncations", truncations=count, missed=0)


def test_every_zeroed_block_is_found(original: Original, tmp_path: Path, figures: Figures) -> None:
    count = tried = amount(6, 250)
    for seed in range(count):
        choose = random.Random(seed)
        store = original.copy(tmp_path / "store")
        path = victim(original, store, choose)
        content = bytearray(path.read_bytes())
        size = 2 ** choose.randrange(4, 13)
        start = choose.randrange(len(content)) // size * size
        before = bytes(content)
        content[start : start + size] = bytes(len(content[start : start + size]))
        path.write_bytes(content)
        tried -= before == bytes(content)
        original.check(store, set() if before == bytes(content) else {path.name})
    assert tried
    figures.keep("blocks of zeros", blocks=tried, missed=0)


def _swap(first: Path, second: Path) -> set[str]:
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    return {first.name, second.name}


def _empty(first: Path, _: Path) -> set[str]:
    first.write_bytes(b"")
    return {first.name}


def _foreign(first: Path, _: Path) -> set[str]:
    first.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(1000))
    return {first.name}


def _longer(first: Path, _: Path) -> set[str]:
    with first.open("ab") as file:
        file.write(b"\0")
    return {first.name}


def _folder(first: Path, _: Path) -> set[str]:
    first.unlink()
    first.mkdir()
    return {first.name}


def _pipe(first: Path, _: Path) -> set[str]:
    first.unlink()
    os.mkfifo(first)
    return {first.name}


def _device(first: Path, _: Path) -> set[str]:
    first.unlink()
    first.symlink_to("/dev/zero")
    return {first.name}


@pytest.mark.parametrize("harm", [_swap, _empty, _foreign, _longer, _folder, _pipe, _device])
def test_other_harm_is_found(original: Original, tmp_path: Path, harm: Callable[[Path, Path], set[str]]) -> None:
    store = original.copy(tmp_path / "store")
    first, second, *_ = sorted(store.glob("ns/*/seg/*.h5"))
    original.check(store, harm(first, second))


def test_a_renamed_segment_is_found(original: Original, tmp_path: Path) -> None:
    store = original.copy(tmp_path / "store")
    first, *_ = sorted(store.glob("ns/*/seg/*.h5"))
    first.rename(first.with_name("0" * 64 + ".h5"))
    original.check(store, {"0" * 64 + ".h5"}, lost={first.name})


def test_the_command_line_computes_only_the_rows_of_a_damaged_segment(
    pictures: Callable[[int], Path], tmp_path: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featstore.store.writer.ROWS_PER_COMMIT", 32)
    data, store = pictures(120), tmp_path / "store"
    good("extract", data, *SMALL, "--store", store)
    path = sorted(store.glob("ns/*/seg/*.h5"))[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    found = good("extract", data, *SMALL, "--store", store, "--json").json
    assert (found["specs"][0]["computed"], found["specs"][0]["hits"]) in ((32, 88), (24, 96))
    assert good("extract", data, *SMALL, "--store", store, "--json").json["specs"][0]["computed"] == 0
    assert bases.computed == 120 + found["specs"][0]["computed"]
