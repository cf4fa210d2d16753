from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from featstore.errors import InputError
from heads.catalog import HEADS, HeadKind
from heads.fit import fit_head
from heads.linear import LinearHead

LOGREG, SVM = HEADS["logreg"], HEADS["linear-svm"]


def no_choice(heads: list[LinearHead]) -> HeadKind:
    """A kind whose "fitted" heads are given, for a grid of as many values."""
    grid = tuple({"C": float(i)} for i in range(len(heads)))
    return HeadKind("given", "", grid, lambda X, y, grid, seed: tuple(heads[int(params["C"])] for params in grid))


def constant(column: int) -> LinearHead:
    return LinearHead(np.zeros((3, 8)), np.eye(3)[column])


def test_the_value_that_is_best_on_validation_is_chosen(table) -> None:
    validation = table(30, split="validation", seed=1)
    validation = replace(validation, y=np.array([2] * 20 + [1] * 10))
    fitted = fit_head(no_choice([constant(0), constant(1), constant(2)]), table(), validation)
    assert fitted.chosen.params == {"C": 2.0}
    assert [round(trial.score.accuracy, 2) for trial in fitted.trials] == [0.0, 0.33, 0.67]
    assert fitted.chosen_on == "validation"
    assert fitted.chosen.score.n == 30


def test_of_equal_values_the_most_strongly_regularised_is_chosen(table) -> None:
    fitted = fit_head(no_choice([constant(1)] * 3), table(), table(split="validation", seed=1))
    assert fitted.chosen.params == {"C": 0.0}


def test_without_validation_the_choice_is_by_folds_and_the_head_sees_all_rows(table) -> None:
    train, seen = table(60), []

    def fit(X, y, grid, seed):
        seen.append((len(X), len(grid)))
        return LOGREG.fit(X, y, grid, seed)

    fitted = fit_head(replace(LOGREG, fit=fit), train)
    assert fitted.chosen_on == "5 folds of train"
    assert fitted.chosen.score.n == 60
    assert seen == [(48, len(LOGREG.grid))] * 5 + [(60, 1)]


def test_a_fold_is_judged_by_a_head_that_never_saw_it(table) -> None:
    train = table(60, noise=0)
    memory: list[set[bytes]] = []

    class Remembers(LinearHead):
        def logits(self, X):
            assert not {row.tobytes() for row in X} & memory[-1]
            return super().logits(X)

    def fit(X, y, grid, seed):
        memory.append({row.tobytes() for row in X})
        return tuple(Remembers(np.zeros((3, 8)), np.zeros(3)) for _ in grid)

    distinct = replace(train, X=train.X + np.arange(60, dtype=np.float32)[:, None])
    fit_head(replace(LOGREG, fit=fit), distinct)
    assert len(memory) == 6


def test_folds_are_fewer_where_a_class_is_small(table) -> None:
    train = table(60)
    keep = np.concatenate([np.flatnonzero(train.y != 2), np.flatnonzero(train.y == 2)[:3]])
    small = replace(train, X=train.X[keep], y=train.y[keep])
    assert fit_head(LOGREG, small).chosen_on == "3 folds of train"


def test_a_class_of_one_image_cannot_be_chosen_by_folds_but_by_validation(table) -> None:
    train = table(60)
    keep = np.concatenate([np.flatnonzero(train.y != 2), np.flatnonzero(train.y == 2)[:1]])
    lonely = replace(train, X=train.X[keep], y=train.y[keep])
    with pytest.raises(InputError, match="'class 2' has a single training image"):
        fit_head(LOGREG, lonely)
    assert fit_head(LOGREG, lonely, table(30, seed=1)).chosen_on == "validation"


@pytest.mark.parametrize("kind", [LOGREG, SVM], ids=["logreg", "linear-svm"])
def test_the_same_seed_gives_the_same_head(kind: HeadKind, table) -> None:
    one, two = (fit_head(kind, table(), seed=3) for _ in range(2))
    assert (one.head.weights == two.head.weights).all()
    assert one.chosen == two.chosen


def test_a_machine_gives_right_probabilities_and_keeps_its_choices(table) -> None:
    train, validation, new = table(300, noise=2.5), table(300, noise=2.5, seed=1), table(900, noise=2.5, seed=2)
    fitted = fit_head(SVM, train, validation)
    plain = fit_head(replace(SVM, tempered=False), train, validation)
    assert fitted.factor != 1
    assert (fitted.predict(new.X) == plain.predict(new.X)).all()
    sure = fitted.head.probabilities(new.X).max(axis=1)
    assert sure.mean() == pytest.approx((fitted.predict(new.X) == new.y).mean(), abs=0.05)


def test_a_class_without_training_images_keeps_its_place(table) -> None:
    train = table(60)
    seen = train.y != 1
    fitted = fit_head(LOGREG, replace(train, X=train.X[seen], y=train.y[seen]), table(60, split="validation", seed=1))
    assert fitted.classes == ("class 0", "class 2")
    assert set(fitted.predict(train.X)) == {0, 2}
    assert fitted.chosen.score.accuracy <= 2 / 3  # the images of class 1 count, as errors


def test_unlabelled_rows_are_left_out(table) -> None:
    train = table(60)
    more = replace(train, y=np.where(np.arange(60) < 30, train.y, -1))
    half = replace(train, X=train.X[:30], y=train.y[:30])
    assert (fit_head(LOGREG, more).head.weights == fit_head(LOGREG, half).head.weights).all()
    unlabelled = replace(train, y=np.full(60, -1))
    assert fit_head(LOGREG, train, unlabelled).chosen_on == "5 folds of train"
    assert fit_head(LOGREG, train).score(unlabelled) is None


def test_one_class_is_refused_by_name(table) -> None:
    with pytest.raises(InputError, match="at least two classes") as caught:
        fit_head(LOGREG, replace(table(), y=np.ones(60, np.int64)))
    assert caught.value.received == "'class 1'"


def test_features_that_are_not_finite_are_refused_with_the_first_image(table) -> None:
    train = table()
    train.X[7, 2] = np.nan
    with pytest.raises(InputError, match="1 images have features that are not finite") as caught:
        fit_head(LOGREG, train)
    assert "train/0-7.png" in str(caught.value)


def test_tables_of_different_specs_are_refused(table, spec) -> None:
    other = replace(table(split="validation"), spec=spec.but(resize="nearest"))
    with pytest.raises(InputError, match="made differently") as caught:
        fit_head(LOGREG, table(), other)
    assert caught.value.where == "resize"


def test_tables_of_different_classes_are_refused(table) -> None:
    other = replace(table(split="validation"), classes=("class 0", "class 1", "dog"))
    with pytest.raises(InputError, match="other classes"):
        fit_head(LOGREG, table(), other)


def test_values_that_did_not_converge_are_not_chosen(table) -> None:
    two = replace(LOGREG, fit=lambda X, y, grid, seed: LOGREG.fit(X, y, grid[:2], seed))
    for validation in (None, table(30, seed=1)):
        assert [trial.params for trial in fit_head(two, table(), validation).trials] == list(LOGREG.grid[:2])


def test_a_thousand_rows_of_512_features_take_seconds_at_most(table) -> None:
    train, validation = table(1000, 512, 2, noise=3), table(200, 512, 2, noise=3, seed=1)
    started = time.perf_counter()
    assert fit_head(LOGREG, train, validation).seconds <= time.perf_counter() - started < 20
