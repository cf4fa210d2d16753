from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from heads.bundles.bundle import Bundle, read_bundle
from heads.service.details import MOST_CLASSES, MOST_MISTAKES, about, details


@pytest.fixture
def bundle(trained_once: Path) -> Bundle:
    [path] = (trained_once / "bundles").iterdir()
    return read_bundle(path)


def always_wrong(bundle: Bundle) -> Bundle:
    return replace(bundle, judged=replace(bundle.judged, said=1 - bundle.judged.truth))


def test_a_line_of_the_leaderboard_says_what_the_card_says(bundle: Bundle) -> None:
    line = about("its name", bundle)
    assert (line.name, line.backbone, line.head, line.classes) == ("its name", "vgg16", "logreg", ["cats", "dogs"])
    assert line.held_out_accuracy == bundle.card.held_out.accuracy.value
    assert bundle.card.test is not None
    assert line.test_accuracy == bundle.card.test.accuracy.value
    assert about("x", replace(bundle, card=replace(bundle.card, test=None))).test_accuracy is None


def test_the_bins_of_reliability_are_those_of_the_calibration_error(bundle: Bundle) -> None:
    found = details("x", bundle)
    assert sum(found.reliability.counts) == bundle.card.held_out.n
    gap = np.abs(np.subtract(found.reliability.confidence, found.reliability.accuracy))
    error = found.held_out["ece"]["value"]
    assert np.average(gap, weights=found.reliability.counts) == pytest.approx(error, abs=1e-6)


def test_mistakes_are_told_the_worst_first_and_counted(bundle: Bundle) -> None:
    found = details("x", always_wrong(bundle))
    assert found.all_mistakes == len(found.mistakes) == bundle.card.held_out.n
    assert [one.of_truth for one in found.mistakes] == sorted(one.of_truth for one in found.mistakes)
    assert all(one.truth != one.said for one in found.mistakes)


def test_of_very_many_mistakes_the_worst_are_told(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heads.service.details.MOST_MISTAKES", 5)
    wrong = always_wrong(bundle)
    found = details("x", wrong)
    assert (len(found.mistakes), found.all_mistakes) == (5, bundle.card.held_out.n)
    assert found.mistakes[0].of_truth == wrong.judged.of_truth.min()
    assert MOST_MISTAKES > 5


def test_of_many_classes_those_that_are_confused_most_are_told(bundle: Bundle) -> None:
    count = MOST_CLASSES + 3
    confusion = np.diag(np.full(count, 9))
    confusion[4, 7] = 5
    metrics = bundle.card.held_out
    classes = tuple(replace(metrics.per_class[0], name=f"class {i}") for i in range(count))
    card = replace(
        bundle.card, held_out=replace(metrics, per_class=classes, confusion=tuple(map(tuple, confusion.tolist())))
    )
    found = details("x", replace(bundle, card=card)).confusion
    assert (len(found.classes), found.more_classes) == (MOST_CLASSES, 3)
    at = found.classes.index("class 4"), found.classes.index("class 7")
    assert found.counts[at[0]][at[1]] == 5


def test_names_that_are_no_text_can_be_written(bundle: Bundle) -> None:
    metrics = bundle.card.held_out
    odd = tuple(replace(one, name="\udcff" + one.name) for one in metrics.per_class)
    card = replace(bundle.card, classes=("\udcffa", "b"), held_out=replace(metrics, per_class=odd))
    changed = replace(bundle, card=card)
    about("x", changed).model_dump_json()
    assert "\\xff" in details("x", changed).model_dump_json()
