from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heads.evaluation.clip import UNCLIPPED, clipped, fit_clip


def log_loss(p: np.ndarray, y: np.ndarray, bound: float = UNCLIPPED) -> float:
    of_truth = clipped(p, bound)[np.arange(len(y)), y]
    return float(-np.log(np.maximum(of_truth, UNCLIPPED)).mean())


def problem(n: int, wrong: int, sure: float = 1 - 1e-9) -> tuple[np.ndarray, np.ndarray]:
    said = np.arange(n) % 2
    y = said.copy()
    y[:wrong] = 1 - y[:wrong]
    p = np.full((n, 2), 1 - sure)
    p[np.arange(n), said] = sure
    return p, y


def test_a_head_that_is_too_sure_is_clipped_at_about_its_rate_of_errors() -> None:
    p, y = problem(1000, 50)
    bound = fit_clip(p, y)
    assert 0.045 < bound < 0.055
    assert log_loss(p, y, bound) < log_loss(p, y) - 0.4


def test_without_an_error_nothing_may_be_surer_than_these_images_were() -> None:
    p, y = problem(100, 0, sure=0.99)
    assert 0.009 < fit_clip(p, y) <= 0.01 + 1e-12
    assert fit_clip(*problem(100, 0, sure=1 - 1e-6)) <= 1e-6


def test_a_head_that_is_never_sure_is_hardly_clipped() -> None:
    p, y = problem(1000, 200, sure=0.8)
    assert fit_clip(p, y) <= 0.2 + 1e-9
    np.testing.assert_array_equal(clipped(p, fit_clip(p, y)), p)


@given(
    seed=st.integers(0, 2**31),
    count=st.integers(1, 60),
    classes=st.integers(2, 6),
    sureness=st.floats(0.1, 60),
    skill=st.floats(0, 1),
)
@settings(max_examples=60, deadline=None)
def test_the_fitted_bound_never_worsens_the_log_loss_of_its_rows(
    seed: int, count: int, classes: int, sureness: float, skill: float
) -> None:
    random = np.random.default_rng(seed)
    y = random.integers(classes, size=count)
    logits = sureness * (random.normal(size=(count, classes)) + 2 * skill * np.eye(classes)[y])
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    assert log_loss(p, y, fit_clip(p, y)) <= log_loss(p, y) + 1e-12


@pytest.mark.parametrize("classes", [2, 3, 120])
def test_clipped_rows_are_probabilities_within_the_bound_in_the_same_order(classes: int) -> None:
    random = np.random.default_rng(0)
    p = random.dirichlet(np.full(classes, 0.05), size=200)
    p[0] = np.eye(classes)[1]
    bound = 0.02
    out = clipped(p, bound)
    np.testing.assert_allclose(out.sum(axis=1), 1, rtol=1e-12)
    assert out.max() <= 1 - bound + 1e-12
    assert out.min() >= bound / (classes - 1) - 1e-15
    assert out[0, 1] == pytest.approx(1 - bound)
    np.testing.assert_array_equal(out.argmax(axis=1), p.argmax(axis=1))
    calm = np.full((1, classes), 1 / classes)
    np.testing.assert_allclose(clipped(calm, bound), calm, rtol=1e-12)
