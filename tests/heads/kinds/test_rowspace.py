from __future__ import annotations

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

import heads.kinds.rowspace
from heads.kinds.rowspace import RowSpace


def rows(n: int, d: int, seed: int = 0) -> np.ndarray:
    return (5 + 3 * np.random.default_rng(seed).normal(size=(n, d))).astype(np.float32)


@pytest.mark.parametrize("shape", [(20, 5), (20, 70)], ids=["tall", "wide"])
def test_coordinates_keep_every_product_of_standardised_rows(shape, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads.kinds.rowspace, "_CHUNK_NUMBERS", 160)  # several parts
    monkeypatch.setattr(heads.kinds.rowspace, "_BLOCK", 16)
    X = rows(*shape)
    Z = StandardScaler().fit_transform(X.astype(np.float64))
    space = RowSpace(X)
    np.testing.assert_allclose(space.coordinates @ space.coordinates.T, Z @ Z.T, atol=1e-5)
    assert space.coordinates.shape[1] <= min(shape)


@pytest.mark.parametrize("shape", [(20, 5), (20, 70)], ids=["tall", "wide"])
def test_lifted_weights_decide_alike_and_have_the_least_norm(shape) -> None:
    X = rows(*shape)
    space = RowSpace(X)
    random = np.random.default_rng(1)
    weights, bias = random.normal(size=(2, space.coordinates.shape[1])), random.normal(size=2)
    lifted, shift = space.lift(weights, bias)
    np.testing.assert_allclose(X @ lifted.T + shift, space.coordinates @ weights.T + bias, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(lifted * space.scale, axis=1), np.linalg.norm(weights, axis=1), rtol=1e-6)


def test_a_column_that_never_changes_counts_nothing() -> None:
    X = rows(20, 4)
    X[:, 2] = 0.1
    space = RowSpace(X)
    rest = RowSpace(np.delete(X, 2, axis=1)).coordinates
    assert space.scale[2] == 1
    np.testing.assert_allclose(space.coordinates @ space.coordinates.T, rest @ rest.T, atol=1e-12)


def test_a_tall_tables_coordinates_are_orthogonal_and_a_wide_ones_are_not_called_so() -> None:
    tall, wide = RowSpace(rows(40, 6)), RowSpace(rows(20, 70))
    np.testing.assert_allclose(tall.coordinates.T @ tall.coordinates, np.diag(tall.squares), atol=1e-9)
    assert not wide.squares.any()


def test_rows_that_others_span_add_no_coordinate() -> None:
    X = rows(20, 70)
    X[15:] = X[:5]
    space = RowSpace(X)
    assert space.coordinates.shape == (20, 14)  # fifteen rows, less the mean that was taken off
    np.testing.assert_allclose(space.coordinates[15:], space.coordinates[:5], atol=1e-5)
    np.testing.assert_allclose(space.coordinates @ space.coordinates.T, space.gram, atol=1e-8)


@pytest.mark.parametrize("shape", [(4, 3), (4, 9)], ids=["tall", "wide"])
def test_rows_that_are_all_the_same_lie_at_the_origin(shape) -> None:
    space = RowSpace(np.full(shape, 0.1, np.float32))
    assert abs(space.coordinates).max(initial=0) < 1e-7
    weights, bias = space.lift(np.ones((2, space.coordinates.shape[1])), np.array([1.0, 2.0]))
    np.testing.assert_allclose(space.X @ weights.T + bias, [[1.0, 2.0]] * 4, atol=1e-6)


def test_deviations_are_numpys_whatever_the_size_of_the_numbers() -> None:
    X = rows(50, 6) * np.array([1e-6, 1, 1e6, 1, 1, 1], np.float32) + np.array([0, 1e4, 0, 0, 0, 0], np.float32)
    space = RowSpace(X)
    np.testing.assert_allclose(space.mean, X.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(space.scale, X.std(axis=0, dtype=np.float64), rtol=1e-9)


def test_the_rows_are_not_written_over() -> None:
    X = rows(10, 30)
    before = X.copy()
    RowSpace(X).lift(np.ones((1, 9)), np.zeros(1))
    assert (before == X).all()
