from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from featstore.catalog import find
from featstore.errors import DamageError, NoSpaceError, ReadOnlyError
from featstore.weights import Base, Layer, cache, list_weights, read_tensors, tensor_digest, verify_weights

TENSORS = [np.arange(12, dtype=np.float32).reshape(3, 4), np.ones(4, np.float32), np.array(7, np.float32)]


@pytest.fixture
def cached(private_cache: Path) -> Base:
    base = Base(find("vgg16"), "random:0", tensor_digest(TENSORS), (Layer("block5_pool", 512),), Path(), "a test")
    return cache.write("vgg16.random-0", base, TENSORS)


def test_what_was_written_is_read_back(cached: Base) -> None:
    assert cache.read_card("vgg16.random-0") == cached
    found = read_tensors(cached)
    assert [(t.shape, t.tolist()) for t in found] == [(t.shape, t.tolist()) for t in TENSORS]


def test_an_unknown_key_is_none_and_creates_nothing(private_cache: Path) -> None:
    assert cache.read_card("vgg16.imagenet") is None
    assert list_weights() == ()
    assert verify_weights() == ()
    assert not private_cache.exists()


def test_it_is_listed_with_its_size(cached: Base) -> None:
    assert list_weights() == (cached,)
    listed = cached.to_json()
    assert listed["bytes"] == cached.tensors.stat().st_size > 64
    assert (listed["backbone"], listed["origin"], listed["digest"]) == ("vgg16", "random:0", cached.digest)


def test_nothing_temporary_is_left(cached: Base) -> None:
    assert sorted(p.suffix for p in cached.tensors.parent.iterdir()) == [".json", ".npz"]


def test_what_a_killed_run_left_a_day_ago_is_swept_at_the_next_write(cached: Base) -> None:
    old, young = (cached.tensors.parent / name for name in (".old.tmp", ".young.tmp"))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, times=(time.time() - 90_000,) * 2)
    cache.write("vgg16.random-0", cached, TENSORS)
    assert not old.exists()
    assert young.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"version": 1}', '{"version": 1, "backbone": 3}'])
def test_a_broken_card_counts_as_missing_and_is_reported(text: str, cached: Base) -> None:
    card = cached.tensors.parent / "vgg16.random-0.json"
    card.write_text(text)
    assert cache.read_card("vgg16.random-0") is None
    assert "card cannot be read" in str(verify_weights()[0].problem)


def test_a_card_of_a_future_version_counts_as_missing(cached: Base) -> None:
    card = cached.tensors.parent / "vgg16.random-0.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"version": 99}))
    assert cache.read_card("vgg16.random-0") is None


def test_a_card_cannot_point_outside_of_the_cache(cached: Base, tmp_path: Path) -> None:
    card = cached.tensors.parent / "vgg16.random-0.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"file": f"../../{cached.tensors.name}"}))
    found = cache.read_card("vgg16.random-0")
    assert found is not None
    assert found.tensors.parent == cached.tensors.parent


def test_truncated_tensors_count_as_missing(cached: Base) -> None:
    os.truncate(cached.tensors, 50)
    assert cache.read_card("vgg16.random-0") is None
    with pytest.raises(DamageError, match="weights pull vgg16 --weights random:0"):
        read_tensors(cached)


def test_every_flipped_byte_is_found_or_harmless(cached: Base) -> None:
    good = cached.tensors.read_bytes()
    for position in range(0, len(good), 7):
        bad = bytearray(good)
        bad[position] ^= 0x40
        cached.tensors.write_bytes(bad)
        try:
            tensors = read_tensors(cached)
        except DamageError:
            continue
        assert tensor_digest(tensors) == cached.digest


def test_verify_reads_every_byte(cached: Base) -> None:
    card = cached.tensors.parent / "vgg16.random-0.json"
    assert verify_weights()[0].to_json() == {"name": "vgg16.random-0", "path": str(card), "problem": None}
    np.savez(cached.tensors, **{"0000": TENSORS[0] + 1, "0001": TENSORS[1], "0002": TENSORS[2]})
    assert "digest" in str(verify_weights()[0].problem)


def test_pickled_arrays_are_never_loaded(cached: Base) -> None:
    np.savez(cached.tensors, **{"0000": np.array([print], dtype=object)})
    with pytest.raises(DamageError, match="allow_pickle=False"):
        read_tensors(cached)


def _fail(number: int) -> object:
    def failing(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    return failing


@pytest.mark.parametrize(("number", "kind"), [(28, NoSpaceError), (30, ReadOnlyError)])
def test_a_disk_that_cannot_be_written_is_a_typed_error_and_leaves_nothing(
    number: int, kind: type[Exception], cached: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(cached.tensors.parent.iterdir())
    monkeypatch.setattr(os, "fsync", _fail(number))
    with pytest.raises(kind, match="keep weights in the cache"):
        cache.write("vgg16.random-1", cached, TENSORS)
    assert sorted(cached.tensors.parent.iterdir()) == before
