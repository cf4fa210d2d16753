from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featstore.errors import InputError
from heads.evaluation import metrics
from heads.evaluation.metrics import Metrics, measure


def problem(n: int, classes: int, seed: int = 0, skill: float = 1.0):
    random = np.random.default_rng(seed)
    y = random.integers(classes, size=n)
    logits = random.normal(size=(n, classes)) + skill * np.eye(classes)[y]
    p = np.exp(logits)
    return y, p / p.sum(axis=1, keepdims=True), tuple(f"c{i}" for i in range(classes))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 60), st.integers(2, 5), st.integers(0, 1000))
def test_every_value_is_scikit_learns(n: int, classes: int, seed: int) -> None:
    from sklearn import metrics as sk

    y, p, names = problem(n, classes, seed)
    found, said = measure(y, p, names), p.argmax(axis=1)
    everything = list(range(classes))
    assert found.accuracy.value == pytest.approx(sk.accuracy_score(y, said))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found.balanced_accuracy.value == pytest.approx(sk.balanced_accuracy_score(y, said))
        present = np.union1d(y, said)
        assert found.macro_f1.value == pytest.approx(sk.f1_score(y, said, average="macro", labels=present))
    assert found.log_loss.value == pytest.approx(sk.log_loss(y, p, labels=everything))
    assert found.brier.value == pytest.approx(((p - np.eye(classes)[y]) ** 2).sum(axis=1).mean())
    assert (np.array(found.confusion) == sk.confusion_matrix(y, said, labels=everything)).all()
    if len(np.unique(y)) < classes:
        assert found.roc_auc is None
    else:
        scores = p[:, 1] if classes == 2 else p
        auc = sk.roc_auc_score(y, scores, multi_class="ovr", labels=None if classes == 2 else everything)
        assert found.roc_auc.value == pytest.approx(auc)


def test_the_calibration_error_is_the_gap_of_confidence_and_accuracy() -> None:
    p = np.array([[0.9, 0.1]] * 10)
    y = np.array([0] * 6 + [1] * 4)
    assert measure(y, p, ("a", "b")).ece.value == pytest.approx(0.3)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    truth, inside = measure(*problem(40_000, 2, 1)).accuracy.value, 0
    for seed in range(60):
        low, high = measure(*problem(150, 2, 100 + seed)).accuracy.interval
        inside += low <= truth <= high
    assert 52 <= inside <= 60


def test_a_seed_makes_the_intervals_and_another_one_moves_them_a_little() -> None:
    one, same, other = (measure(*problem(200, 3), seed=seed) for seed in (0, 0, 1))
    assert one == same
    assert one.log_loss.interval != other.log_loss.interval
    assert one.log_loss.interval == pytest.approx(other.log_loss.interval, abs=0.05)


def test_no_error_in_a_few_images_is_no_certainty() -> None:
    found = measure(np.array([0, 1] * 5), np.eye(2)[[0, 1] * 5], ("a", "b"))
    assert found.accuracy.value == 1
    assert found.accuracy.interval[0] == pytest.approx(0.722, abs=0.01)


def test_a_probability_of_zero_for_the_truth_costs_much_and_is_finite() -> None:
    found = measure(np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]]), ("a", "b"))
    assert found.log_loss.value == pytest.approx(16.1 / 2, abs=0.1)


def test_one_image_of_one_class_can_be_measured() -> None:
    found = measure(np.array([1]), np.array([[0.2, 0.8]]), ("a", "b"))
    assert (found.accuracy.value, found.roc_auc, found.per_class[0].n) == (1, None, 0)


def test_json_survives_exactly_and_nonsense_is_refused() -> None:
    for classes in (2, 3):
        found = measure(*problem(50, classes))
        assert Metrics.from_json(json.loads(json.dumps(found.to_json()))) == found
    data = found.to_json()
    for broken in (
        {**data, "accuracy": {"value": float("nan"), "interval": [0, 1]}},
        {**data, "confusion": [[1]]},
        {**data, "per_class": [{"name": "a"}]},
        {name: value for name, value in data.items() if name != "brier"},
    ):
        with pytest.raises((KeyError, TypeError, ValueError)):
            Metrics.from_json(broken)


def test_shapes_that_do_not_fit_are_refused() -> None:
    y, p, names = problem(10, 3)
    for answers, said in ((y[:5], p), (y, p[:, :2]), (y[:0], p[:0]), (y - 1, p), (y + 5, p)):
        with pytest.raises(InputError, match="nothing to measure"):
            measure(answers, said, names)


def test_areas_by_pairs_and_by_order_are_the_same() -> None:
    random = np.random.default_rng(0)
    counts = random.integers(0, 4, (50, 300)).astype(np.float64)
    scores = random.integers(0, 40, 300) / 40  # with many ties
    positive = random.random(300) < 0.2
    counts[0, positive] = 0  # a resample without a positive
    by_order = metrics._auc_by_order(counts, scores, positive)
    by_pairs = metrics._auc_by_pairs(counts, scores, np.flatnonzero(positive))
    np.testing.assert_allclose(by_pairs, by_order, rtol=1e-9)
    assert np.isnan(by_pairs[0])
