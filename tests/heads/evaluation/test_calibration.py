from __future__ import annotations

import json

import numpy as np
import pytest

from heads.evaluation.calibration import Calibration, cross_calibrated, fit_calibration
from heads.kinds.head import softmax


def problem(n: int = 2000, classes: int = 3, factor: float = 4.0, seed: int = 0):
    """Labels drawn from softmax(true), and logits that are ``factor`` times too large."""
    random = np.random.default_rng(seed)
    true = random.normal(size=(n, classes)) * 1.5
    cumulated = softmax(true).cumsum(axis=1)
    y = (random.random((n, 1)) > cumulated).sum(axis=1)
    return true * factor, np.minimum(y, classes - 1)


def log_loss(probabilities, y) -> float:
    return float(-np.log(probabilities[np.arange(len(y)), y]).mean())


@pytest.mark.parametrize("factor", [0.1, 1.0, 5.0])
def test_a_temperature_finds_the_factor_that_the_labels_were_drawn_with(factor: float) -> None:
    logits, y = problem(factor=factor)
    assert fit_calibration("temperature", logits, y).factor == pytest.approx(1 / factor, rel=0.1)


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
@pytest.mark.parametrize("classes", [2, 3])
def test_new_rows_have_better_probabilities_after_it(method, classes: int) -> None:
    found = fit_calibration(method, *problem(classes=classes))
    logits, y = problem(classes=classes, seed=1)
    after = found.probabilities(logits)
    np.testing.assert_allclose(after.sum(axis=1), 1)
    assert (after > 0).all()
    assert log_loss(after, y) < log_loss(softmax(logits), y) - 0.1


def test_a_temperature_changes_no_choice() -> None:
    logits, y = problem()
    found = fit_calibration("temperature", logits, y)
    assert (found.probabilities(logits).argmax(axis=1) == logits.argmax(axis=1)).all()


def test_rows_without_an_error_keep_the_factor_finite() -> None:
    y = np.arange(20) % 2
    found = fit_calibration("temperature", np.eye(2)[y] * 2.0, y)
    assert 0.9 < found.probabilities(np.array([[0.0, 2.0]]))[0, 1] < 1


def test_rows_of_unknown_classes_are_left_out_and_none_at_all_changes_nothing() -> None:
    logits, y = problem(200)
    some = np.where(np.arange(200) < 100, y, -1)
    assert fit_calibration("temperature", logits, some) == fit_calibration("temperature", logits[:100], y[:100])
    for method in ("none", "temperature", "isotonic"):
        assert fit_calibration(method, logits, np.full(200, -1)) == Calibration()


@pytest.mark.parametrize("method", ["none", "temperature", "isotonic"])
def test_json_survives_exactly(method) -> None:
    found = fit_calibration(method, *problem(100))
    assert Calibration.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    "broken",
    [
        {"method": "magic"},
        {"factor": 0},
        {"factor": float("inf")},
        {"curves": [{"x": [0.5, 0.1], "y": [0.1, 0.2]}]},
        {"curves": [{"x": [0.1, 0.5], "y": [0.3, 0.2]}]},
        {"curves": [{"x": [0.1], "y": [0.3, 0.4]}]},
        {"curves": [{"x": [], "y": []}]},
        {"curves": [{"x": [0.1], "y": [float("nan")]}]},
        {"curves": [{"x": [0.1]}]},
    ],
)
def test_nonsense_is_refused(broken) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Calibration.from_json({**Calibration("isotonic").to_json(), **broken})


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_a_row_is_calibrated_without_its_own_answer(method) -> None:
    """Judged by the answers that it was fitted on, an isotonic curve makes even noise look good."""
    logits, _ = problem(60)
    noise = np.random.default_rng(1).integers(3, size=60)
    fitted = fit_calibration(method, logits, noise).probabilities(logits)
    assert log_loss(cross_calibrated(method, logits, noise), noise) > max(log_loss(fitted, noise), np.log(3) - 0.02)


def test_without_a_method_or_enough_rows_nothing_is_changed() -> None:
    logits, y = problem(40)
    np.testing.assert_array_equal(cross_calibrated("none", logits, y), softmax(logits))
    np.testing.assert_array_equal(cross_calibrated("isotonic", logits[:3], y[:3]), softmax(logits[:3]))
