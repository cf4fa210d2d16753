from __future__ import annotations

import numpy as np

from heads.evaluation.clip import fit_clip


def log_loss(p: np.ndarray, y: np.ndarray, bound: float) -> float:
    return float(-np.log(np.clip(p[np.arange(len(y)), y], bound, 1 - bound)).mean())


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
    assert 0.03 < bound < 0.08
    assert log_loss(p, y, bound) < log_loss(p, y, 1e-7) - 0.4


def test_without_an_error_the_bound_is_what_so_many_images_bear_out() -> None:
    few, many = fit_clip(*problem(50, 0)), fit_clip(*problem(5000, 0))
    assert 0.005 < few < 0.05
    assert many < few / 10


def test_a_head_that_is_never_sure_is_hardly_clipped() -> None:
    p, y = problem(1000, 200, sure=0.8)
    assert fit_clip(p, y) <= 0.2 + 1e-9
