from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore.errors import InputError
from featstore.table import Table, join_tables
from heads.bundles.bundle import read_bundle
from heads.bundles.card import Origin
from heads.evaluation.calibration import Calibration
from heads.training.results import TrainingSet, ranked
from heads.training.train import TrainOptions, train


def a_set(tables: Mapping[str, Table], **changes: Any) -> TrainingSet:
    return replace(TrainingSet("vgg16", "avg", (Origin("vgg16", "random:7"),), lambda: tables), **changes)


@pytest.fixture
def tables(table) -> dict[str, Table]:
    return {
        "train": table(90, noise=2.0),
        "validation": table(30, split="validation", seed=1, noise=2.0),
        "test": table(45, split="test", seed=2, noise=2.0),
    }


@pytest.fixture
def training_set(tables) -> TrainingSet:
    return a_set(tables)


def test_every_head_is_fitted_and_saved_and_only_the_best_is_tested(training_set: TrainingSet, bundles: Path) -> None:
    best, other = train([training_set], ["logreg", "linear-svm"], bundles=bundles).results
    assert {best.head, other.head} == {"logreg", "linear-svm"}
    for result in (best, other):
        assert (result.backbone, result.pooling, result.choice.on) == ("vgg16", "avg", "validation")
        assert result.held_out.n == 30
        assert result.bundle.parent == bundles
    assert best.held_out.accuracy.value >= other.held_out.accuracy.value
    assert best.test.n == 45
    assert other.test is None


def test_splits_too_large_to_search_whole_are_told(training_set: TrainingSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heads.evaluation.leaks.MOST_PRODUCTS", 90 * 8 * 20)
    notes = " ".join(train([training_set], ["logreg"], bundles=None).notes)
    assert "near copies in train were looked for of 20 of the 30 images of validation" in notes
    assert "near copies in train were looked for of 20 of the 45 images of test" in notes


def test_the_test_split_is_scored_exactly_once(
    training_set: TrainingSet, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import heads.training.train

    scored = []
    real = heads.training.train.score_on_test
    monkeypatch.setattr(
        heads.training.train, "score_on_test", lambda *args, **rest: scored.append(args) or real(*args, **rest)
    )
    train([training_set], ["logreg", "linear-svm"], bundles=bundles)
    assert len(scored) == 1


def test_a_sweep_fits_and_saves_the_best_head_alone(training_set: TrainingSet, bundles: Path) -> None:
    options = TrainOptions(fit_all=False)
    best, *others = train([training_set], ["logreg", "linear-svm"], bundles=bundles, options=options).results
    assert best.test is not None
    assert [path.name for path in bundles.iterdir()] == [best.bundle.name]
    assert all(other.bundle is None and other.cost.fit_seconds is None for other in others)


def test_the_bundle_says_what_the_report_says_and_predicts_the_same(
    tables, training_set: TrainingSet, bundles: Path
) -> None:
    (result,) = train([training_set], ["linear-svm"], bundles=bundles, options=TrainOptions(seed=3)).results
    bundle = read_bundle(result.bundle)
    card = bundle.card
    assert (card.held_out, card.test, card.params) == (result.held_out, result.test, result.choice.chosen.params)
    assert (card.origins, card.widths, card.seed, card.rows) == ((Origin("vgg16", "random:7"),), (8,), 3, 90)
    assert {"python", "numpy", "scikit-learn"} <= set(card.versions)
    test = tables["test"]
    assert (bundle.probabilities(test.X).argmax(axis=1) == test.y).mean() == result.test.accuracy.value


def test_the_labels_of_the_test_split_cannot_change_what_is_chosen(tables, bundles: Path) -> None:
    heads = ["logreg", "linear-svm", "ridge", "knn"]
    plain = train([a_set(tables)], heads, bundles=bundles).results
    permuted = {**tables, "test": replace(tables["test"], y=np.random.default_rng(0).permutation(tables["test"].y))}
    other = train([a_set(permuted)], heads, bundles=bundles).results
    assert [r.head for r in plain] == [r.head for r in other]
    for one, two in zip(plain, other, strict=True):
        assert (one.choice.chosen, one.held_out) == (two.choice.chosen, two.held_out)
    assert plain[0].test != other[0].test


def test_a_refit_on_train_and_validation_is_recorded(training_set: TrainingSet, bundles: Path) -> None:
    (one,) = train(
        [training_set], ["logreg"], bundles=bundles, options=TrainOptions(refit_on="train+validation")
    ).results
    (two,) = train([training_set], ["logreg"], bundles=bundles).results
    assert read_bundle(one.bundle).card.fitted_on == ("train", "validation")
    assert read_bundle(one.bundle).card.rows == 120
    assert one.held_out == two.held_out


def test_a_class_that_comes_in_with_validation_leaves_the_head_uncalibrated(tables, bundles: Path) -> None:
    few = {**tables, "train": tables["train"].select(tables["train"].y < 2)}
    options = TrainOptions(refit_on="train+validation", calibrate="temperature")
    found = train([a_set(few)], ["linear-svm"], bundles=bundles, options=options)
    assert read_bundle(found.best.bundle).card.calibration == Calibration()
    assert any("is not calibrated" in note for note in found.notes)
    whole = train([a_set(tables)], ["linear-svm"], bundles=bundles, options=options)
    assert not any("is not calibrated" in note for note in whole.notes)


def test_training_twice_gives_the_same_head(training_set: TrainingSet, bundles: Path) -> None:
    one, two = (train([training_set], ["logreg"], bundles=bundles).results[0].bundle for _ in range(2))
    assert (one / "head.npz").read_bytes() == (two / "head.npz").read_bytes()


def test_the_rows_digest_knows_labels_but_not_the_order(tables, bundles: Path) -> None:
    def digest(y_shift: int, backwards: bool) -> str:
        table, step = tables["train"], -1 if backwards else 1
        table = replace(table, X=table.X[::step], y=np.roll(table.y, y_shift)[::step], digests=table.digests[::step])
        (result,) = train([a_set({"train": table})], ["logreg"], bundles=bundles).results
        return read_bundle(result.bundle).card.rows_digest

    assert digest(0, False) == digest(0, True) != digest(1, False)


def test_without_validation_and_test_there_are_folds_and_no_test_score(tables, bundles: Path) -> None:
    (result,) = train([a_set({"train": tables["train"]})], ["logreg"], bundles=bundles).results
    assert (result.test, result.choice.on, result.held_out.n) == (None, "5 folds of train", 90)
    unlabelled = replace(tables["test"], y=np.full(45, -1))
    (result,) = train([a_set({**tables, "test": unlabelled})], ["logreg"], bundles=bundles).results
    assert result.test is None


def test_an_interrupted_comparison_goes_on_where_it_stopped(
    training_set: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import heads.training.train

    real, made = heads.training.train.choose, []

    def choose(kind, judging):
        if kind.name == "ridge" and len(made) == 2:
            raise KeyboardInterrupt
        made.append(kind.name)
        return real(kind, judging)

    monkeypatch.setattr(heads.training.train, "choose", choose)
    names, journal = ["logreg", "linear-svm", "ridge"], tmp_path / "choices"
    with pytest.raises(KeyboardInterrupt):
        train([training_set], names, bundles=None, journal=journal)
    made.append("-")
    resumed = train([training_set], names, bundles=None, journal=journal)
    assert made == ["logreg", "linear-svm", "-", "ridge"]
    monkeypatch.setattr(heads.training.train, "choose", real)
    fresh = train([training_set], names, bundles=None)
    assert [(r.head, r.held_out) for r in resumed.results] == [(r.head, r.held_out) for r in fresh.results]


def test_what_a_head_cannot_be_fitted_on_is_left_out_with_a_sentence(tables, training_set: TrainingSet) -> None:
    done = train([training_set], ["logreg", "stacking"], bundles=None)
    assert [result.head for result in done.results] == ["logreg"]
    assert any("stacking on vgg16 avg was left out" in note for note in done.notes)
    with pytest.raises(InputError, match="no head was trained"):
        train([training_set], ["stacking"], bundles=None)
    two = a_set({split: join_tables([table, table]) for split, table in tables.items()}, backbone="vgg16+vgg16")
    assert [r.head for r in train([two], ["stacking"], bundles=None).results] == ["stacking"]


def test_balanced_weights_change_the_head(table) -> None:
    train_table = table(90, noise=3.0)
    rare = train_table.select(np.flatnonzero((train_table.y != 2) | (np.arange(90) < 12)))
    tables = {"train": rare, "validation": table(60, split="validation", seed=1, noise=3.0)}
    plain, balanced = (
        train([a_set(tables)], ["logreg"], bundles=None, options=TrainOptions(balanced=b)).results[0]
        for b in (False, True)
    )
    assert balanced.held_out.per_class[2].recall > plain.held_out.per_class[2].recall


def test_the_calibration_asked_for_is_used(training_set: TrainingSet, bundles: Path) -> None:
    for method in ("none", "temperature", "isotonic"):
        options = TrainOptions(calibrate=method)
        (result,) = train([training_set], ["logreg"], bundles=bundles, options=options).results
        assert read_bundle(result.bundle).card.calibration.method == method


def test_the_json_is_the_documented_one(training_set: TrainingSet, bundles: Path) -> None:
    document = json.loads(json.dumps(train([training_set], ["logreg"], bundles=bundles).to_json()))
    (result,) = document["results"]
    assert {"backbone", "pooling", "head", "params", "held_out", "test", "fit_seconds", "bundle"} <= set(result)
    assert set(result["test"]["accuracy"]) == {"value", "interval"}
    assert Path(result["bundle"]).is_dir()


def test_the_notes_say_how_many_were_compared_on_what_and_that_the_test_is_touched_once(
    tables, training_set: TrainingSet, bundles: Path
) -> None:
    notes = " ".join(train([training_set], ["logreg"], bundles=bundles).notes)
    assert "compared on validation (30 images)" in notes
    assert "scored once" in notes
    alone = a_set({"train": tables["train"]})
    options = TrainOptions(refit_on="train+validation")
    notes = " ".join(train([alone], ["logreg"], bundles=bundles, options=options).notes)
    assert "refitted on train; no test image was scored" in notes


def test_without_a_training_image_it_is_said(tables) -> None:
    with pytest.raises(InputError, match="no training image"):
        train([a_set({"test": tables["test"]})], ["logreg"], bundles=None)


def test_an_unknown_head_is_refused_before_any_work(training_set: TrainingSet, bundles: Path) -> None:
    with pytest.raises(InputError, match="unknown head"):
        train([training_set], ["logreg", "forest"], bundles=bundles)
    assert not bundles.exists()


def test_a_head_asked_for_twice_is_trained_once(training_set: TrainingSet) -> None:
    assert len(train([training_set], ["logreg", "logreg"], bundles=None).results) == 1


def test_the_ranking_looks_at_the_held_out_score_and_never_at_the_test(
    training_set: TrainingSet, bundles: Path
) -> None:
    (one,) = train([training_set], ["logreg"], bundles=bundles).results
    worse = replace(one, held_out=replace(one.held_out, accuracy=replace(one.held_out.accuracy, value=0.1)))
    assert ranked([worse, replace(one, test=None)])[1] is worse


def test_progress_counts_every_head(training_set: TrainingSet) -> None:
    seen: dict[tuple[str, int, str], list[int]] = {}

    @contextmanager
    def progress(label: str, total: int, unit: str = "images"):
        yield seen.setdefault((label, total, unit), []).append

    train([training_set, training_set], ["logreg", "linear-svm"], bundles=None, progress=progress)
    assert {label: sum(steps) for label, steps in seen.items()} == {
        ("choosing", 4, "heads"): 4,
        ("looking for copies", 3, "splits"): 3,
    }


def test_values_that_were_asked_for_are_tried_in_place_of_the_usual_ones(training_set: TrainingSet) -> None:
    options = TrainOptions(grids=("logreg.C=0.5,0.02",))
    one, other = train([training_set], ["logreg", "ridge"], bundles=None, options=options).results
    tried = {result.head: [trial.params for trial in result.choice.trials] for result in (one, other)}
    assert tried["logreg"] == [{"C": 0.02}, {"C": 0.5}]
    assert len(tried["ridge"]) == 7


def test_a_table_longer_than_a_kind_is_meant_for_is_left_out_with_a_sentence(
    training_set: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    import heads.kinds.catalog

    short = replace(heads.kinds.catalog.HEADS["knn"], longest=50)
    monkeypatch.setitem(heads.kinds.catalog.HEADS, "knn", short)
    done = train([training_set], ["knn", "logreg"], bundles=None)
    assert [result.head for result in done.results] == ["logreg"]
    assert "knn on vgg16 avg was left out: 90 images are more than 50" in done.notes


def test_heads_that_stop_early_are_said_to_have_chosen_more(training_set: TrainingSet) -> None:
    grid = ("dense.epochs=2", "dense.learning_rate=0.01", "dense.dropout=0.5", "dense.hidden=4")
    done = train([training_set], ["dense"], bundles=None, options=TrainOptions(grids=grid))
    assert any("number of epochs on the same images" in note for note in done.notes)
    assert not any("epochs" in note for note in train([training_set], ["ridge"], bundles=None).notes)
