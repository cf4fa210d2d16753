from __future__ import annotations

import numpy as np
import pytest

from featstore import shuffling
from heads.kinds import blocks
from heads.kinds.blocks import Rows, moments

X = np.random.default_rng(0).normal(5, 3, (203, 8)).astype(np.float32)
Y = np.arange(203) // 70  # a class after another, as folders are


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_BLOCK_NUMBERS", 8 * 45)
    monkeypatch.setattr(blocks, "READ_NUMBERS", 8 * 45)
    monkeypatch.setattr(shuffling, "_RUNS", 4)


def dealt(rows: Rows, seed: int = 0) -> list:
    return list(rows.blocks(np.random.default_rng(seed)))


@pytest.mark.parametrize("in_store", [False, True], ids=["memory", "store"])
def test_every_row_comes_once_an_epoch_in_mixed_blocks_of_bounded_size(in_store: bool, stored, small: None) -> None:
    rows = Rows(stored(X) if in_store else X, Y, None, None, np.asarray)
    found = dealt(rows)
    np.testing.assert_array_equal(np.sort(np.concatenate([chosen for chosen, _, _ in found])), np.arange(203))
    for chosen, features, y in found:
        assert len(chosen) <= 45
        assert len(np.unique(y)) > 1
        np.testing.assert_array_equal(features, X[chosen])
        np.testing.assert_array_equal(y, Y[chosen])
    assert not np.array_equal(found[0][0], dealt(rows, seed=1)[0][0])


@pytest.mark.parametrize("in_store", [False, True], ids=["memory", "store"])
def test_only_rows_in_the_store_are_read_in_ascending_runs_of_neighbours(in_store: bool, stored, small: None) -> None:
    for chosen, _, _ in dealt(Rows(stored(X) if in_store else X, Y, None, None, np.asarray)):
        steps = np.diff(chosen)
        assert (steps > 0).all()
        assert ((steps > 1).sum() <= 4) == in_store


def test_a_table_that_fits_is_read_and_made_a_tensor_once(stored) -> None:
    made = []
    rows = Rows(stored(X), Y, None, None, lambda part: made.append(part) or part)
    for seed in range(3):
        [(chosen, _, _)] = dealt(rows, seed)
        np.testing.assert_array_equal(chosen, np.arange(203))
    assert len(made) == 1


@pytest.mark.parametrize("in_store", [False, True], ids=["memory", "store"])
def test_the_moments_are_numpys_and_standardise(in_store: bool, stored, small: None) -> None:
    constant = np.concatenate([X[:, :7], np.full((203, 1), 0.1, np.float32)], axis=1)
    given = stored(constant) if in_store else constant
    mean, scale = moments(given)
    np.testing.assert_allclose(mean, constant.mean(axis=0, dtype=np.float64))
    np.testing.assert_allclose(scale[:7], constant[:, :7].std(axis=0, dtype=np.float64))
    assert scale[7] == 1
    features = np.concatenate([part for _, part, _ in dealt(Rows(given, Y, mean, scale, np.asarray))])
    assert features.dtype == np.float32
    np.testing.assert_allclose(features[:, :7].std(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-5)
