from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from heads.bundles.card import Origin
from heads.training.results import TrainingSet
from heads.training.train import TrainOptions, train


@pytest.fixture
def tables(table):
    """Hard to tell apart, so that a planted copy with its own label changes a score."""
    return {
        "train": table(90, 40, noise=4.0),
        "validation": table(60, 40, split="validation", seed=1, noise=4.0),
        "test": table(60, 40, split="test", seed=2, noise=4.0),
    }


def compared(tables, bundles: Path | None = None, heads: tuple[str, ...] = ("logreg", "ridge"), **options):
    one = TrainingSet("vgg16", "avg", (Origin("vgg16"),), lambda: tables)
    return train([one], heads, bundles=bundles, options=TrainOptions(**options))


def leaking(tables, split: str, count: int):
    """The first ``count`` images of ``split`` are copies of training images, but for a little noise."""
    one, known = tables[split], tables["train"]
    X, y = one.X.copy(), one.y.copy()
    X[:count] = known.X[:count] + 1e-3
    y[:count] = known.y[:count]
    return {**tables, split: replace(one, X=X, y=y)}


def test_a_planted_leak_is_listed_and_the_scores_differ_with_and_without(tables, bundles: Path) -> None:
    done = compared(leaking(tables, "test", 30), bundles)
    assert {leak.path for leak in done.leaks} == {f"test/2-{i}.png" for i in range(30)}
    best = done.best
    rest = best.test_variants.without_leaks
    assert (best.test.n, rest.n) == (60, 30)
    assert best.test.accuracy.value > rest.accuracy.value
    assert best.held_out_variants.without_leaks is None
    [note] = [note for note in done.notes if "also stand in an earlier split" in note]
    assert "30 test images" in note
    assert f"accuracy {best.test.accuracy.value:.3f} with them, {rest.accuracy.value:.3f} without" in note


def test_a_leak_into_validation_is_told_from_one_into_test(tables) -> None:
    best = compared(leaking(tables, "validation", 20)).best
    assert best.held_out_variants.without_leaks.n == 40
    assert best.held_out_variants.without_leaks.accuracy.value < best.held_out.accuracy.value


def test_without_leaks_there_is_no_second_score(tables, bundles: Path) -> None:
    done = compared(tables, bundles)
    assert done.leaks == ()
    assert done.best.test_variants.without_leaks is None


def test_before_and_after_calibration_are_both_there(tables, bundles: Path) -> None:
    done = compared(tables, bundles, ("linear-svm",), calibrate="temperature")
    best = done.best
    for after, variants in ((best.held_out, best.held_out_variants), (best.test, best.test_variants)):
        assert variants.uncalibrated.accuracy.value == after.accuracy.value, "a temperature changes no choice"
        assert variants.uncalibrated.log_loss.value != after.log_loss.value
    words = f"from {best.held_out_variants.uncalibrated.log_loss.value:.4f} to {best.held_out.log_loss.value:.4f}"
    assert any("calibration took the log loss" in note and words in note for note in done.notes)
    plain = compared(tables, bundles, ("logreg",), calibrate="none").best
    assert plain.held_out_variants.uncalibrated == plain.held_out


def test_the_best_is_compared_with_every_other_and_the_count_is_said(tables) -> None:
    done = compared(tables, heads=("logreg", "ridge", "knn"))
    assert [pair.first for pair in done.pairs] == [done.best.name] * 2
    assert {pair.second for pair in done.pairs} == {result.name for result in done.results[1:]}
    right = [(r.probabilities.argmax(axis=1) == r.answers) for r in done.results]
    assert done.pairs[0].only_first == int((right[0] & ~right[1]).sum())
    as_good = sum(pair.adjusted >= 0.05 for pair in done.pairs) or "none"
    assert any(f"{as_good} of the 2 other heads" in note and "3 pairs" in note for note in done.notes)


def test_the_json_holds_all_of_it(tables, bundles: Path) -> None:
    value = compared(leaking(tables, "test", 5), bundles).to_json()
    assert len(value["leaks"]) == 5
    assert set(value["results"][0]["test_variants"]) == {"uncalibrated", "without_leaks"}
    assert value["results"][1]["test_variants"] is None
    assert set(value["pairs"][0]) == {"first", "second", "only_first", "only_second", "p", "adjusted"}


def test_no_score_is_nan(tables) -> None:
    assert all(np.isfinite(result.held_out.log_loss.value) for result in compared(tables).results)


def test_a_line_tells_of_the_settings_that_were_chosen_between(tables) -> None:
    best = compared(tables, heads=("knn",)).best
    assert set(best.varied) == {"k", "weights"}
    one = replace(best.choice, trials=best.choice.trials[:1], best=0)
    assert replace(best, choice=one).varied == one.chosen.params
    same = replace(one, trials=(replace(one.chosen, params={"a": 1, "b": 2, "c": 3}),))
    assert replace(best, choice=same).varied == {}
