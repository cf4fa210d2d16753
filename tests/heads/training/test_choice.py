from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from featstore.errors import InputError
from heads.kinds.catalog import HEADS
from heads.kinds.linear import LinearHead
from heads.kinds.problem import Curve, Fit, HeadKind, Problem
from heads.training.choice import Choice, choose, prepare
from tests.heads.conftest import with_views

LOGREG = HEADS["logreg"]


def choice_of(kind: HeadKind, *tables: Any, **options: Any) -> Choice:
    return choose(kind, prepare(*tables, **options))


def given(heads: Sequence[LinearHead]) -> HeadKind:
    """A kind whose "fitted" heads are given, for a grid of as many values."""
    grid = tuple({"C": float(i)} for i in range(len(heads)))
    return HeadKind("given", "", grid, lambda problem, grid: tuple(Fit(heads[int(p["C"])], p) for p in grid))


def constant(column: int) -> LinearHead:
    return LinearHead(np.zeros((3, 8)), np.eye(3)[column])


def test_the_value_that_is_best_on_validation_is_chosen(table) -> None:
    validation = replace(table(30, split="validation", seed=1), y=np.array([2] * 20 + [1] * 10))
    choice = choice_of(given([constant(0), constant(1), constant(2)]), table(), validation)
    assert choice.chosen.params == {"C": 2.0}
    assert [round(trial.score.accuracy, 2) for trial in choice.trials] == [0.0, 0.33, 0.67]
    assert choice.on == "validation"
    assert choice.chosen.score.n == 30
    assert (choice.logits.argmax(axis=1) == 2).all()


def test_of_equal_values_the_simplest_is_chosen(table) -> None:
    assert choice_of(given([constant(1)] * 3), table(), table(split="validation", seed=1)).best == 0


def test_without_validation_the_choice_is_by_folds(table) -> None:
    seen = []

    def fit(problem: Problem, grid: Any) -> tuple[Fit, ...]:
        seen.append((len(problem.X), len(problem.held_out.X), len(grid)))
        return LOGREG.fit(problem, grid)

    choice = choice_of(replace(LOGREG, fit=fit), table(60))
    assert choice.on == "5 folds of train"
    assert choice.chosen.score.n == 60
    assert seen == [(48, 12, len(LOGREG.grid))] * 5


def test_a_fold_is_judged_by_a_head_that_never_saw_it(table) -> None:
    train = table(60, noise=0)
    distinct = replace(train, X=train.X + np.arange(60, dtype=np.float32)[:, None])
    judged: list[bytes] = []

    def fit(problem: Problem, grid: Any) -> tuple[Fit, ...]:
        known = {row.tobytes() for row in problem.X}

        class Remembers(LinearHead):
            def logits(self, X):
                assert not {row.tobytes() for row in X} & known
                judged.extend(row.tobytes() for row in X)
                return super().logits(X)

        return tuple(Fit(Remembers(np.zeros((3, 8)), np.zeros(3)), params) for params in grid)

    choice_of(replace(LOGREG, fit=fit, grid=LOGREG.grid[:1]), distinct)
    assert sorted(judged) == sorted(row.tobytes() for row in distinct.X)


def test_folds_are_fewer_where_a_class_is_small(table) -> None:
    train = table(60)
    keep = np.concatenate([np.flatnonzero(train.y != 2), np.flatnonzero(train.y == 2)[:3]])
    assert choice_of(LOGREG, train.select(keep)).on == "3 folds of train"


def test_a_class_of_one_image_cannot_be_chosen_by_folds_but_by_validation(table) -> None:
    train = table(60)
    lonely = train.select(np.concatenate([np.flatnonzero(train.y != 2), np.flatnonzero(train.y == 2)[:1]]))
    with pytest.raises(InputError, match="'class 2' has too few training images"):
        prepare(lonely)
    assert choice_of(LOGREG, lonely, table(30, seed=1)).on == "validation"


def test_a_class_without_training_images_counts_as_errors(table) -> None:
    train = table(60)
    choice = choice_of(LOGREG, train.select(train.y != 1), table(60, split="validation", seed=1))
    assert choice.labels.tolist() == [0, 2]
    assert (choice.columns == -1).sum() == 20
    assert choice.chosen.score.accuracy <= 2 / 3


def test_unlabelled_rows_are_left_out(table) -> None:
    train = table(60)
    more = replace(train, y=np.where(np.arange(60) < 30, train.y, -1))
    validation = table(30, split="validation", seed=1)
    half = choice_of(LOGREG, train.select(np.arange(30)), validation)
    np.testing.assert_array_equal(choice_of(LOGREG, more, validation).logits, half.logits)
    assert choice_of(LOGREG, train, replace(train, y=np.full(60, -1))).on == "5 folds of train"
    some = replace(validation, y=np.where(np.arange(30) % 2, validation.y, -1))
    assert choice_of(LOGREG, train, some).rows.tolist() == list(range(1, 30, 2))


def test_numbers_that_the_folds_found_become_their_median(table) -> None:
    epochs = iter([3, 9, 4, 5, 8])

    def fit(problem: Problem, grid: Any) -> tuple[Fit, ...]:
        found = {"C": 1.0, "epochs": next(epochs)}
        return (Fit(constant(0), found, Curve((1.0,), (0.5,))),)

    kind = HeadKind("epochs", "", ({"C": 1.0},), fit, every_core=True)
    choice = choice_of(kind, table(60))
    assert choice.chosen.params == {"C": 1.0, "epochs": 5}
    assert choice.curve == Curve((1.0,), (0.5,))


def test_kinds_on_the_same_rows_share_one_problem(table) -> None:
    judging = prepare(table(60))
    assert judging.problem(2) is judging.problem(2)
    alone = replace(judging, kept=False)
    assert alone.problem(2) is not alone.problem(2)
    np.testing.assert_array_equal(choose(LOGREG, judging).logits, choose(LOGREG, alone).logits)


def test_one_class_is_refused_by_name(table) -> None:
    with pytest.raises(InputError, match="at least two classes") as caught:
        prepare(replace(table(), y=np.ones(60, np.int64)))
    assert caught.value.received == "'class 1'"


def test_features_that_are_not_finite_are_refused_with_the_first_image(table) -> None:
    train = table()
    train.X[7, 2] = np.nan
    with pytest.raises(InputError, match="1 images have features that are not finite") as caught:
        prepare(train)
    assert "train/0-7.png" in str(caught.value)


def test_tables_of_different_specs_are_refused(table, spec) -> None:
    other = replace(table(split="validation"), specs=(spec.but(resize="nearest"),))
    with pytest.raises(InputError, match="made differently") as caught:
        prepare(table(), other)
    assert caught.value.where == "resize"


def test_tables_of_different_classes_are_refused(table) -> None:
    other = replace(table(split="validation"), classes=("class 0", "class 1", "dog"))
    with pytest.raises(InputError, match="other classes"):
        prepare(table(), other)


def test_values_that_did_not_converge_are_not_chosen(table) -> None:
    two = replace(LOGREG, fit=lambda problem, grid: LOGREG.fit(problem, grid[:2]))
    for validation in (None, table(30, seed=1)):
        assert [trial.params for trial in choice_of(two, table(), validation).trials] == list(LOGREG.grid[:2])


def test_balanced_problems_weigh_rare_classes_up(table) -> None:
    train = table(60)
    rare = train.select(np.flatnonzero((train.y != 2) | (np.arange(60) < 9)))
    problem = prepare(rare, table(30, seed=1), balanced=True).problem(0)
    sums = np.bincount(problem.y, problem.row_weights)
    np.testing.assert_allclose(sums, sums.mean())


def test_copies_of_an_image_are_in_one_fold(table) -> None:
    """Else a fold is judged by images that it was fitted on: with every image twice, neighbours would know all."""
    one = table(60, noise=6.0)
    twice = one.select(np.repeat(np.arange(60), 2))
    digests = [digest.tobytes() for digest in twice.digests]
    judging = prepare(twice)
    held = np.concatenate([places for _, places in judging.rounds])
    np.testing.assert_array_equal(np.sort(held), np.arange(120))
    for number, (_, places) in enumerate(judging.rounds):
        fitted_on = set(range(120)) - set(places.tolist())
        assert len(judging.problem(number).y) == len(fitted_on)
        assert not {digests[i] for i in places} & {digests[i] for i in fitted_on}
    once, again = (choice_of(HEADS["knn"], t).chosen.score.accuracy for t in (one, twice))
    assert again <= once + 0.1


def test_augmented_views_are_fitted_on_and_never_judged_on(table) -> None:
    train = with_views(table(60), 3)
    seen: list[Problem] = []

    def fit(problem: Problem, grid: Any) -> tuple[Fit, ...]:
        seen.append(problem)
        return LOGREG.fit(problem, grid)

    choice = choice_of(replace(LOGREG, fit=fit, grid=LOGREG.grid[:2]), train)
    assert {(len(problem.y), len(problem.held_out.columns)) for problem in seen if problem.held_out} == {(144, 12)}
    assert sorted(choice.rows.tolist()) == list(range(60))
    assert (train.views[choice.rows] == 0).all()
    np.testing.assert_array_equal(choice.columns, train.y[choice.rows])


def test_views_of_an_image_are_in_one_fold(table) -> None:
    """Else neighbours would find each image among its own views."""
    train = with_views(replace(table(60), y=np.random.default_rng(0).integers(0, 3, 60)), 4)
    assert choice_of(HEADS["knn"], train).chosen.score.accuracy < 0.6


def test_a_class_whose_images_are_all_copies_is_too_few_for_folds(table) -> None:
    one = table(60)
    rows = np.concatenate([np.flatnonzero(one.y != 1), np.repeat(np.flatnonzero(one.y == 1)[:1], 5)])
    with pytest.raises(InputError, match="'class 1' has too few"):
        prepare(one.select(rows))


def test_folds_of_a_table_in_the_store_stay_there(table, stored) -> None:
    seen = []

    def fit(problem: Problem, grid: Any) -> tuple[Fit, ...]:
        seen.append((problem.X, problem.held_out.X))
        return tuple(Fit(constant(0), params) for params in grid)

    one = table(60)
    kind = HeadKind("given", "", ({"C": 1.0},), LOGREG.fit, stream=fit)
    choice = choose(kind, prepare(replace(one, X=stored(one.X))))
    assert all(isinstance(X, stored) and isinstance(held, stored) for X, held in seen)
    assert sum(len(held) for _, held in seen) == len(choice.logits) == 60
