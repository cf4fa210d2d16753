from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featstore.errors import InputError
from heads.evaluation.scores import Score, accuracy


def right(correct: int, n: int) -> Score:
    return accuracy(np.zeros(n, np.int64), np.array([0] * correct + [1] * (n - correct)))


def test_wilsons_interval_is_the_textbooks() -> None:
    # p = 0.9, n = 10: (p + z²/2n ± z·√(p(1-p)/n + z²/4n²)) / (1 + z²/n) with z = 1.96
    score = right(9, 10)
    assert score.accuracy == 0.9
    assert score.interval == pytest.approx((0.5958, 0.9821), abs=1e-4)


@given(st.integers(1, 300), st.data())
def test_the_interval_holds_the_accuracy_and_stays_within_0_and_1(n: int, data: st.DataObject) -> None:
    score = right(data.draw(st.integers(0, n)), n)
    low, high = score.interval
    assert 0 <= low <= score.accuracy + 1e-12
    assert score.accuracy - 1e-12 <= high <= 1


def test_no_error_on_few_images_is_not_certainty() -> None:
    assert right(5, 5).interval[0] < 0.6


def test_a_prediction_of_no_class_is_wrong() -> None:
    assert accuracy(np.array([0, 1]), np.array([0, -1])).accuracy == 0.5


@pytest.mark.parametrize(("y", "predicted"), [([], []), ([0, 1], [0])], ids=["nothing", "lengths differ"])
def test_what_cannot_be_scored_is_refused(y: list[int], predicted: list[int]) -> None:
    with pytest.raises(InputError, match="nothing to score"):
        accuracy(np.array(y, np.int64), np.array(predicted, np.int64))


def test_a_score_survives_json() -> None:
    score = right(7, 9)
    assert Score.from_json(json.loads(json.dumps(score.to_json()))) == score
    assert set(score.to_json()) == {"accuracy", "interval", "n"}
