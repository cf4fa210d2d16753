from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss

from heads.linear import softmax
from heads.temperature import fit_temperature


def drawn(count: int, classes: int, factor: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn with the probabilities softmax(factor · logits)."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, classes))
    cumulative = softmax(factor * logits).cumsum(axis=1)
    return logits, (random.random((count, 1)) > cumulative).sum(axis=1)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_the_factor_that_made_the_labels_is_found(classes: int, factor: float) -> None:
    logits, y = drawn(20_000, classes, factor)
    assert fit_temperature(logits, y) == pytest.approx(factor, rel=0.1)


def test_probabilities_get_better() -> None:
    logits, y = drawn(500, 3, 5.0)
    factor = fit_temperature(logits, y)
    assert log_loss(y, softmax(factor * logits)) < log_loss(y, softmax(logits))


def test_rows_without_an_error_do_not_make_it_infinitely_sure() -> None:
    logits, y = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([1, 0])
    surest = softmax(fit_temperature(logits, y) * logits).max()
    assert surest == pytest.approx(1 - 1 / 4, abs=1e-3)  # 1 - 1/(N + 2), Platt's smoothing


def test_rows_of_unknown_classes_are_left_out() -> None:
    logits, y = drawn(300, 3, 2.0)
    more = np.vstack([logits, 100 * np.ones((5, 3))])
    assert fit_temperature(more, np.append(y, [-1] * 5)) == fit_temperature(logits, y)


def test_nothing_to_fit_on_changes_nothing() -> None:
    assert fit_temperature(np.zeros((3, 2)), np.array([-1, -1, -1])) == 1.0
