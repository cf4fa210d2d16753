from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from heads.report.gather import confusions, feature_map, most_confused, reliability, roc_lines, worst_mistakes


def test_reliability_counts_every_image_and_weighs_up_to_the_expected_calibration_error(material: Any) -> None:
    best = material.comparison.best
    after, _ = reliability(best)
    assert after.counts.sum() == len(best.answers)
    gap = np.abs(after.accuracy - after.confidence) @ after.counts / after.counts.sum()
    assert gap == pytest.approx(best.held_out.ece.value)


def test_before_calibration_is_shown_only_where_calibration_changed_something(material: Any) -> None:
    best = material.comparison.best
    logits = best.choice.logits
    plain = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert reliability(replace(best, probabilities=plain))[1] is None
    before = reliability(replace(best, probabilities=np.full_like(plain, 1 / 3)))[1]
    assert before is not None
    assert before.counts.sum() == len(best.answers)


def test_the_mean_roc_curve_comes_first_and_has_the_area_of_the_metrics(material: Any) -> None:
    best = material.comparison.best
    average, *lines = roc_lines(best, material.comparison.classes)
    assert average.auc == pytest.approx(best.held_out.roc_auc.value)
    assert [line.auc for line in lines] == sorted(line.auc for line in lines)
    assert len(roc_lines(best, material.comparison.classes, most=1)) == 2


def test_a_class_without_a_held_out_image_has_no_roc_curve(material: Any) -> None:
    best = material.comparison.best
    answers = np.zeros_like(best.answers)
    assert roc_lines(replace(best, answers=answers), material.comparison.classes) == ()
    answers[:5] = 1
    names = [line.name for line in roc_lines(replace(best, answers=answers), ("a", "b", "c"))]
    assert sorted(names) == ["a", "b", "mean of 2 classes"]


def test_the_commonest_mistakes_come_first_and_name_the_classes_of_a_large_matrix() -> None:
    matrix = [[9, 0, 1, 0], [0, 9, 0, 0], [0, 0, 2, 5], [0, 3, 0, 9]]
    assert confusions(matrix, 2) == [(2, 3, 5), (3, 1, 3)]
    assert confusions([[3, 0], [0, 4]], 5) == []
    assert most_confused(matrix, 3) == [1, 2, 3]
    assert most_confused(matrix, 9) == [0, 1, 2, 3]


def test_the_worst_mistake_gave_its_right_class_the_least(material: Any) -> None:
    best, classes = material.comparison.best, material.comparison.classes
    found = worst_mistakes(best, classes, 100)
    assert len(found) == int((best.probabilities.argmax(axis=1) != best.answers).sum())
    assert [one.of_truth for one in found] == sorted(one.of_truth for one in found)
    row = best.paths.index(found[0].path)
    assert found[0].truth == classes[best.answers[row]]
    assert found[0].said[0] == (classes[best.probabilities[row].argmax()], best.probabilities[row].max())


def test_the_map_is_the_same_each_time_and_rings_every_mistake_but_no_test_image(material: Any) -> None:
    best = material.comparison.best
    one, two = (feature_map(material.tables, best, seed=1) for _ in range(2))
    assert one is not None
    assert two is not None
    np.testing.assert_array_equal(one.places, two.places)
    assert len(one.y) == one.total == 150
    assert one.wrong.sum() == int((best.probabilities.argmax(axis=1) != best.answers).sum())
    without = {split: table for split, table in material.tables.items() if split != "test"}
    np.testing.assert_array_equal(one.places, feature_map(without, best, seed=1).places)


def test_of_many_images_some_are_drawn_by_the_seed(material: Any) -> None:
    drawn = feature_map(material.tables, material.comparison.best, most=40)
    assert (len(drawn.y), len(drawn.places), drawn.total) == (40, 40, 150)


def test_too_few_images_or_constant_features_have_no_map(material: Any) -> None:
    best, train = material.comparison.best, material.tables["train"]
    assert feature_map({"train": train.select(np.arange(5))}, best) is None
    assert feature_map({"train": replace(train, X=np.ones_like(train.X))}, best) is None
