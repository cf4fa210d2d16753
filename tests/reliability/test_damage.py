"""Files of a store that were changed by anything but featstore."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featstore.errors import DamageError
from featstore.garbage import collect
from featstore.records import Digests
from featstore.spec import Spec
from featstore.store import Snapshot, Store, verify
from tests.commands import good, run
from tests.reliability.campaign import SMALL, Figures, amount, shards
from tests.stubs import Bases, put_in_place

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

    def finds(self, store: Path, damaged: set[str]) -> bool:
        """Whether whoever checks the store, reads its rows or looks them up finds this damage, and no other."""
        space = Store.open(store).namespace(self.spec)
        lazily = Store.open(store).namespace(self.spec).snapshot(lookups_only=True)
        found = verify(Store.open(store), read_data=True).problems, space.snapshot().damaged, lazily.damaged
        return all({one.path.name for one in each} == damaged for each in found)

    def is_right(self, held: Snapshot, damaged: set[str]) -> bool:
        """Whether a snapshot that was taken before the harm gives the rows that are left, and no others."""
        lost = np.array([self.owner[digest.tobytes()] in damaged for digest in self.digests])
        right = held.read(self.digests[~lost]).tobytes() == self.features[~lost].tobytes()
        if not lost.any():
            return right
        try:
            held.read(self.digests[lost])
        except DamageError:
            return right
        return False

    def check(self, store: Path, damaged: set[str], lost: set[str] | None = None) -> None:
        """All damage is found, no wrong row served, and only what was damaged is computed again.

        lost : the segments whose rows are missing, if they had other names.
        """
        assert self.finds(store, damaged)
        names = damaged if lost is None else lost
        namespace = Store.open(store).namespace(self.spec)
        held = namespace.snapshot()
        found = held.lookup(self.digests) == 0
        assert held.read(self.digests[found]).tobytes() == self.features[found].tobytes()
        assert (found == [self.owner[digest.tobytes()] not in names for digest in self.digests]).all()
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


Harm = Callable[[Path, random.Random], bool]
"""Changes a segment; whether any byte is another one now."""


def _flip(path: Path, choose: random.Random) -> bool:
    content = bytearray(path.read_bytes())
    content[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
    path.write_bytes(content)
    return True


def _cut(path: Path, choose: random.Random) -> bool:
    os.truncate(path, choose.randrange(path.stat().st_size))
    return True


def _zero(path: Path, choose: random.Random) -> bool:
    before = path.read_bytes()
    content = bytearray(before)
    size = 2 ** choose.randrange(4, 13)
    start = choose.randrange(len(content)) // size * size
    content[start : start + size] = bytes(len(content[start : start + size]))
    path.write_bytes(content)
    return content != before


def harmed(original: Original, place: Path, harm: Harm, seeds: range) -> tuple[int, int]:
    """How often harm was done to one segment of a copy, and how often nobody found it; what is found is mended."""
    done = missed = 0
    for seed in seeds:
        choose = random.Random(seed)
        store = original.copy(place / "store")
        path = next(store.glob(f"ns/*/seg/{choose.choice(original.segments).name}"))
        held = Store.open(store).namespace(original.spec).snapshot()
        damaged = {path.name} if harm(path, choose) else set()
        if original.finds(store, damaged) and original.is_right(held, damaged):
            original.check(store, damaged)
        else:
            missed += 1
        done += bool(damaged)
    return done, missed


@pytest.mark.parametrize("part", list(shards(amount(20, 1000), 2)), ids=["even", "odd"])
def test_every_flipped_bit_is_found(original: Original, tmp_path: Path, figures: Figures, part: range) -> None:
    flips, missed = harmed(original, tmp_path, _flip, part)
    figures.keep("flipped bits", flips=flips, missed=missed)
    assert (flips, missed) == (len(part), 0)


def test_every_truncation_is_found(original: Original, tmp_path: Path, figures: Figures) -> None:
    count = amount(6, 250)
    truncations, missed = harmed(original, tmp_path, _cut, range(count))
    figures.keep("truncations", truncations=truncations, missed=missed)
    assert (truncations, missed) == (count, 0)


def test_every_zeroed_block_is_found(original: Original, tmp_path: Path, figures: Figures) -> None:
    blocks, missed = harmed(original, tmp_path, _zero, range(amount(6, 250)))
    figures.keep("blocks of zeros", blocks=blocks, missed=missed)
    assert blocks
    assert missed == 0


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


_OTHER_HARM = [_swap, _empty, _foreign, _longer, _folder, _pipe, _device]


@pytest.mark.parametrize("harm", _OTHER_HARM)
def test_other_harm_is_found(original: Original, tmp_path: Path, harm: Callable[[Path, Path], set[str]]) -> None:
    store = original.copy(tmp_path / "store")
    first, second, *_ = sorted(store.glob("ns/*/seg/*.h5"))
    held = Store.open(store).namespace(original.spec).snapshot()
    damaged = harm(first, second)
    assert original.is_right(held, damaged)
    original.check(store, damaged)


def test_a_renamed_segment_is_found(original: Original, tmp_path: Path) -> None:
    store = original.copy(tmp_path / "store")
    first, *_ = sorted(store.glob("ns/*/seg/*.h5"))
    held = Store.open(store).namespace(original.spec).snapshot()
    damaged = _rename(first, first)
    assert original.is_right(held, {first.name})
    original.check(store, damaged, lost={first.name})


def _by_chance(harm: Harm) -> Callable[[Path, Path], set[str]]:
    def do(first: Path, _: Path) -> set[str]:
        seeds = iter(range(100))
        while not harm(first, random.Random(next(seeds))):
            pass
        return {first.name}

    return do


def _rename(first: Path, _: Path) -> set[str]:
    first.rename(first.with_name("0" * 64 + ".h5"))
    return {"0" * 64 + ".h5"}


@pytest.fixture(scope="module")
def extracted(pictures: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 120 rows in four segments, made through the command line."""
    store = tmp_path_factory.mktemp("extracted") / "store"
    with pytest.MonkeyPatch.context() as patch:
        put_in_place(patch)
        patch.setattr("featstore.store.writer.ROWS_PER_COMMIT", 32)
        good("extract", pictures(120), *SMALL, "--store", store)
    return store


@pytest.mark.parametrize(
    "harm",
    [_by_chance(_flip), _by_chance(_cut), _by_chance(_zero), _rename, *_OTHER_HARM],
    ids=["flip", "cut", "zero", "rename", *(harm.__name__.strip("_") for harm in _OTHER_HARM)],
)
def test_the_command_line_computes_only_the_rows_of_a_damaged_segment(
    harm: Callable[[Path, Path], set[str]],
    extracted: Path,
    pictures: Callable[[int], Path],
    tmp_path: Path,
    bases: Bases,
) -> None:
    store, words = tmp_path / "store", ("extract", pictures(120), *SMALL, "--store", tmp_path / "store", "--json")
    shutil.copytree(extracted, store)
    [before] = Store.open(extracted).namespaces()
    held = before.snapshot()
    digests_of = {segment.path.name: segment.digests for segment, _ in held.parts()}
    first, second, *_ = sorted(store.glob("ns/*/seg/*.h5"))
    damaged = harm(first, second)
    lost = sum(len(digests_of[name]) for name in (damaged if damaged & {*digests_of} else {first.name}))
    assert 24 <= lost <= 64
    checked = run("store", "verify", "--read-data", "--store", store, "--json")
    assert checked.code == 1
    assert {Path(problem["path"]).name for problem in checked.json["problems"]} == damaged
    mended = good(*words).json
    assert (mended["specs"][0]["computed"], mended["specs"][0]["hits"]) == (lost, 120 - lost)
    assert mended["store"]["quarantined"] == len(damaged)
    assert {path.name for path in store.glob("ns/*/quarantine/*")} == damaged
    assert good(*words).json["specs"][0]["computed"] == 0
    assert bases.computed == lost
    everything = np.concatenate([*digests_of.values()])
    [after] = Store.open(store).namespaces()
    assert after.snapshot().read(everything).tobytes() == held.read(everything).tobytes()
    assert good("store", "verify", "--read-data", "--store", store, "--json").json["sound"]
