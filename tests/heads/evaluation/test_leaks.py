from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from heads.evaluation import leaks as module
from heads.evaluation.leaks import Leak, find_leaks


@pytest.fixture
def tables(table):
    """Nobody is like anybody: 64 features of pure noise."""
    return {
        "train": table(80, 64, noise=50.0),
        "validation": table(30, 64, noise=50.0, split="validation", seed=1),
        "test": table(30, 64, noise=50.0, split="test", seed=2),
    }


def planted(tables, split: str, row: int, of: int, *, exact: bool, blur: float = 0.1):
    """The tables with row ``row`` of ``split`` being training image ``of``."""
    one, train = tables[split], tables["train"]
    X, digests = one.X.copy(), one.digests.copy()
    X[row] = train.X[of] + blur * train.X.std() * np.random.default_rng(0).normal(size=X.shape[1])
    if exact:
        digests[row] = train.digests[of]
    return {**tables, split: replace(one, X=X, digests=digests)}


def test_images_that_are_all_different_are_no_leaks(tables) -> None:
    assert find_leaks(tables) == ()


def test_an_exact_copy_is_found_whatever_its_features(tables) -> None:
    [leak] = find_leaks(planted(tables, "test", 4, 17, exact=True, blur=3.0))
    train, test = tables["train"], tables["test"]
    assert leak == Leak("test", test.paths[4], "train", train.paths[17], 1.0, True, test.y[4] == train.y[17])


def test_a_near_copy_is_found_and_the_nearest_named(tables) -> None:
    [leak] = find_leaks(planted(tables, "validation", 7, 33, exact=False))
    assert (leak.split, leak.path, leak.original) == ("validation", "validation/1-7.png", "train/0-33.png")
    assert module.THRESHOLD <= leak.cosine < 1
    assert not leak.exact


def test_the_threshold_decides(tables) -> None:
    changed = planted(tables, "test", 0, 0, exact=False, blur=0.6)
    cosine = find_leaks(changed, 0.5)[0].cosine
    assert find_leaks(changed, cosine + 1e-4) == ()
    assert len(find_leaks(changed, cosine - 1e-4)) == 1


def test_in_small_parts_and_from_the_store_the_same_is_found(tables, stored, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = planted(planted(tables, "test", 3, 79, exact=False), "validation", 29, 0, exact=True)
    whole = find_leaks(changed)
    monkeypatch.setattr(module, "_CHUNK_NUMBERS", 64 * 7)
    in_parts = find_leaks({split: replace(table, X=stored(table.X)) for split, table in changed.items()})
    assert [(leak.path, leak.original) for leak in in_parts] == [(leak.path, leak.original) for leak in whole]
    assert len(whole) == 2


def test_without_a_training_split_there_is_nothing_to_leak(tables) -> None:
    assert find_leaks({"test": tables["test"]}) == ()


def test_test_images_are_looked_for_in_validation_too_and_the_nearest_is_named(tables) -> None:
    validation, test = tables["validation"], tables["test"]
    X, digests = test.X.copy(), test.digests.copy()
    X[3], X[5], digests[5] = validation.X[8] + 0.01, tables["train"].X[2], validation.digests[9]
    found = find_leaks({**tables, "test": replace(test, X=X, digests=digests)})
    named = [(leak.path, leak.of, leak.original, leak.exact) for leak in found]
    assert named[0] == (test.paths[3], "validation", validation.paths[8], False)
    assert named[1] == (test.paths[5], "validation", validation.paths[9], True)


def test_of_originals_that_are_equally_like_it_the_first_of_the_earliest_split_is_named(tables) -> None:
    changed = planted(planted(tables, "train", 60, 17, exact=True, blur=0), "validation", 5, 17, exact=True, blur=0)
    changed = planted(changed, "test", 4, 17, exact=False)
    first = changed["train"].X[17]
    first += 1e-4 * (first - changed["test"].X[4])  # as rounding may do: the others are nearer by some last bits
    found = {leak.path: leak.original for leak in find_leaks(changed)}
    assert found[changed["test"].paths[4]] == changed["train"].paths[17]


def test_beyond_a_budget_near_copies_of_a_part_are_looked_for_and_exact_ones_of_all(
    tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tables
    for row in range(30):
        changed = planted(changed, "test", row, row, exact=row == 7)
    assert len(find_leaks(changed)) == 30
    assert list(module.unsearched(changed)) == []
    monkeypatch.setattr(module, "MOST_PRODUCTS", 10 * 80 * 64)
    found = find_leaks(changed)
    assert 10 <= len(found) <= 11
    assert changed["test"].paths[7] in [leak.path for leak in found if leak.exact]
    assert [leak.path for leak in found] == [leak.path for leak in find_leaks(changed)]
    told = list(module.unsearched(changed))
    assert any("near copies in train were looked for of 10 of the 30 images of test" in line for line in told)


def test_memory_does_not_grow_with_the_splits(tables, monkeypatch: pytest.MonkeyPatch) -> None:
    small = tables["train"]
    many = {
        split: replace(
            small,
            X=np.resize(small.X[:, :8], (count, 8)),
            y=np.zeros(count, np.int64),
            digests=np.random.default_rng(count).integers(0, 256, (count, 32), dtype=np.uint8),
            paths=tuple(map(str, range(count))),
            ids=tuple(map(str, range(count))),
            views=np.zeros(count, np.uint16),
        )
        for split, count in (("train", 60_000), ("test", 20_000))
    }
    tracemalloc.start()
    find_leaks(many, threshold=2.0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 300 * 2**20  # of all cosines at once: 4.5 GiB
