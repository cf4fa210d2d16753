from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featstore.errors import InputError
from heads.bundle import read_bundle
from heads.card import Origin
from heads.train import TrainingSet, TrainReport, train


@pytest.fixture
def training_set(table) -> TrainingSet:
    tables = {
        "train": table(90, noise=2.0),
        "validation": table(30, split="validation", seed=1, noise=2.0),
        "test": table(45, split="test", seed=2, noise=2.0),
    }
    return TrainingSet(tables, Origin("vgg16", "random:7"))


def test_every_head_is_trained_scored_and_saved(training_set: TrainingSet, bundles: Path) -> None:
    report = train([training_set], ["logreg", "linear-svm"], bundles=bundles)
    assert [result.head for result in report.results] == ["logreg", "linear-svm"]
    for result in report.results:
        assert (result.backbone, result.pooling) == ("vgg16", "avg")
        assert result.validation.n == 30
        assert result.test.n == 45
        assert result.held_out == result.validation
        assert result.bundle.parent == bundles


def test_the_bundle_says_what_the_report_says_and_predicts_the_same(training_set: TrainingSet, bundles: Path) -> None:
    (result,) = train([training_set], ["linear-svm"], bundles=bundles, seed=3).results
    card = read_bundle(result.bundle).card
    assert (card.validation, card.test, card.params, card.seed) == (result.validation, result.test, result.params, 3)
    assert card.origin == Origin("vgg16", "random:7")
    assert card.rows == 90
    assert {"python", "numpy", "scikit-learn"} <= set(card.versions)
    test = training_set.tables["test"]
    again = read_bundle(result.bundle).head.predict(test.X)
    assert (again == test.y).mean() == result.test.accuracy


def test_the_json_is_the_documented_one(training_set: TrainingSet, bundles: Path) -> None:
    (result,) = json.loads(json.dumps(train([training_set], ["logreg"], bundles=bundles).to_json()))["results"]
    assert {"backbone", "pooling", "head", "params", "validation", "test", "seconds", "bundle"} <= set(result)
    assert set(result["test"]) == {"accuracy", "interval", "n"}
    assert Path(result["bundle"]).is_dir()


def test_the_labels_of_the_test_split_cannot_change_what_is_chosen(training_set: TrainingSet) -> None:
    tables = dict(training_set.tables)
    plain = train([training_set], ["logreg", "linear-svm"], bundles=None)
    tables["test"] = replace(tables["test"], y=np.roll(tables["test"].y, 1))
    rolled = train([TrainingSet(tables, training_set.origin)], ["logreg", "linear-svm"], bundles=None)
    for one, two in zip(plain.results, rolled.results, strict=True):
        assert (one.params, one.held_out) == (two.params, two.held_out)
        assert one.test != two.test
    assert [r.head for r in plain.ranked()] == [r.head for r in rolled.ranked()]


def test_training_twice_gives_the_same_bundle(training_set: TrainingSet, bundles: Path) -> None:
    one, two = (train([training_set], ["logreg"], bundles=bundles).results[0].bundle for _ in range(2))
    assert one == two


def test_the_rows_digest_knows_labels_but_not_the_order(training_set: TrainingSet, bundles: Path) -> None:
    def digest(y_shift: int, backwards: bool) -> str:
        table = training_set.tables["train"]
        step = -1 if backwards else 1
        table = replace(table, X=table.X[::step], y=np.roll(table.y, y_shift)[::step], digests=table.digests[::step])
        (result,) = train([TrainingSet({"train": table}, Origin("vgg16"))], ["logreg"], bundles=bundles).results
        return read_bundle(result.bundle).card.rows_digest

    assert digest(0, False) == digest(0, True) != digest(1, False)


def test_without_validation_and_test_the_scores_are_none(training_set: TrainingSet) -> None:
    only = TrainingSet({"train": training_set.train}, training_set.origin)
    (result,) = train([only], ["logreg"], bundles=None).results
    assert (result.validation, result.test, result.bundle) == (None, None, None)
    assert result.chosen_on == "5 folds of train"
    assert result.held_out.n == 90
    assert result.to_json()["validation"] is None


def test_an_unlabelled_test_split_has_no_score(training_set: TrainingSet) -> None:
    test = training_set.tables["test"]
    tables = {**training_set.tables, "test": replace(test, y=np.full(len(test), -1))}
    (result,) = train([TrainingSet(tables, training_set.origin)], ["logreg"], bundles=None).results
    assert result.test is None


def test_without_a_training_image_it_is_said(training_set: TrainingSet) -> None:
    with pytest.raises(InputError, match="no training image"):
        train([TrainingSet({"test": training_set.tables["test"]}, Origin("vgg16"))], ["logreg"], bundles=None)


def test_an_unknown_head_is_refused_before_any_work(training_set: TrainingSet, bundles: Path) -> None:
    with pytest.raises(InputError, match="unknown head"):
        train([training_set], ["logreg", "forest"], bundles=bundles)
    assert not bundles.exists()


def test_a_head_asked_for_twice_is_trained_once(training_set: TrainingSet) -> None:
    assert len(train([training_set], ["logreg", "logreg"], bundles=None).results) == 1


def test_the_ranking_never_looks_at_the_test_score(training_set: TrainingSet) -> None:
    (one,) = train([training_set], ["logreg"], bundles=None).results
    worse = replace(one, held_out=replace(one.held_out, accuracy=0.1), test=replace(one.test, accuracy=1.0))
    assert TrainReport((worse, one)).ranked() == (one, worse)


def test_progress_counts_every_head(training_set: TrainingSet) -> None:
    seen: list[object] = []

    @contextmanager
    def progress(label: str, total: int, unit: str = "images"):
        seen.append((total, unit))
        yield seen.append

    train([training_set, training_set], ["logreg", "linear-svm"], bundles=None, progress=progress)
    assert seen == [(4, "heads"), 1, 1, 1, 1]
