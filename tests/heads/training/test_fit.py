from __future__ import annotations

import numpy as np
import pytest

from featstore.errors import InputError
from featstore.table import stack_tables
from heads.evaluation.calibration import Calibration, fit_calibration
from heads.kinds.catalog import HEADS
from heads.training.choice import choose, prepare
from heads.training.fit import FittedHead, refit
from tests.heads.conftest import with_views

LOGREG, SVM = HEADS["logreg"], HEADS["linear-svm"]


def fitted(kind, train, validation=None, seed: int = 0) -> FittedHead:
    choice = choose(kind, prepare(train, validation, seed=seed))
    method = "temperature" if kind.tempered else "none"
    return refit(kind, choice, train, fit_calibration(method, choice.logits, choice.columns), seed=seed)


def test_the_last_fit_sees_every_labelled_row_and_remembers_which(table) -> None:
    train = table(60)
    head = fitted(LOGREG, train)
    assert head.fitted_on == ("train",)
    np.testing.assert_array_equal(head.digests, train.digests)
    assert len(head.y) == 60


def test_a_refit_on_train_and_validation_sees_both(table) -> None:
    train, validation = table(60), table(30, split="validation", seed=1)
    choice = choose(LOGREG, prepare(train, validation))
    head = refit(LOGREG, choice, stack_tables(train, validation), Calibration())
    assert head.fitted_on == ("train", "validation")
    assert len(head.digests) == 90


@pytest.mark.parametrize("kind", [LOGREG, SVM], ids=["logreg", "linear-svm"])
def test_the_same_seed_gives_the_same_head(kind, table) -> None:
    one, two = (fitted(kind, table(), seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.head.to_arrays()[0]["weights"], two.head.to_arrays()[0]["weights"])
    assert one.calibration == two.calibration


def test_a_machine_gives_right_probabilities_and_keeps_its_choices(table) -> None:
    train, validation, new = table(300, noise=2.5), table(300, noise=2.5, seed=1), table(900, noise=2.5, seed=2)
    head = fitted(SVM, train, validation)
    assert head.calibration.method == "temperature"
    said = head.probabilities(head.logits(new.X))
    assert (said.argmax(axis=1) == head.labels[head.head.logits(new.X).argmax(axis=1)]).all()
    assert said.max(axis=1).mean() == pytest.approx((said.argmax(axis=1) == new.y).mean(), abs=0.05)


def test_a_class_without_training_images_keeps_its_place_with_no_probability(table) -> None:
    train = table(60)
    head = fitted(LOGREG, train.select(train.y != 1), table(60, split="validation", seed=1))
    assert head.classes == ("class 0", "class 2")
    said = head.probabilities(head.logits(train.X))
    assert said.shape == (60, 3)
    assert (said[:, 1] == 0).all()
    np.testing.assert_allclose(said.sum(axis=1), 1)


def test_a_table_that_lacks_a_class_of_the_choice_is_refused(table) -> None:
    train = table(60)
    choice = choose(LOGREG, prepare(train))
    with pytest.raises(InputError, match="lacks classes"):
        refit(LOGREG, choice, train.select(train.y != 1), Calibration())


def test_the_last_fit_sees_every_view_and_remembers_the_images(table) -> None:
    train = with_views(table(60), 3)
    head, plain = fitted(LOGREG, train), fitted(LOGREG, table(60))
    np.testing.assert_array_equal(head.digests, train.digests[:60])
    np.testing.assert_array_equal(head.y, train.y[:60])
    assert not np.allclose(head.logits(train.X), plain.logits(train.X))
