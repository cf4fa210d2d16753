from __future__ import annotations

import numpy as np
import pytest

from featstore.errors import InputError
from heads.kinds.catalog import HEADS, find
from heads.kinds.problem import Problem


@pytest.mark.parametrize("name", ["linear-svm", "Linear_SVM", " LINEAR-svm"])
def test_a_head_is_found_however_it_is_spelled(name: str) -> None:
    assert find(name) is HEADS["linear-svm"]


def test_an_unknown_head_names_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown head 'logrek'") as caught:
        find("logrek")
    assert "did you mean logreg" in str(caught.value)
    assert caught.value.where == "--head"


@pytest.mark.parametrize("name", ["logreg", "linear-svm", "stacking"])
def test_a_grid_goes_from_strong_to_weak_regularisation(name: str) -> None:
    values = [params["C"] for params in HEADS[name].grid]
    assert values == sorted(values)
    assert len(values) == len(set(values)) >= 3


SLOW_LEARNERS = ("linear", "chollet")
"""The tutorials' steps are too few, and too small, for 90 rows."""


@pytest.mark.parametrize("kind", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("classes", [2, 3])
def test_every_head_learns_and_gives_the_same_twice(kind, classes: int, table) -> None:
    train, new = table(90, classes=classes), table(90, classes=classes, seed=1)
    one, two = (kind.fit(Problem(train.X, train.y, (5, 3)), kind.grid) for _ in range(2))
    assert [fit.params for fit in one] == list(kind.grid)
    if kind.name not in SLOW_LEARNERS:
        assert max((fit.head.logits(new.X).argmax(axis=1) == new.y).mean() for fit in one) > 0.9
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first.head.logits(new.X), second.head.logits(new.X))


@pytest.mark.parametrize("kind", HEADS.values(), ids=HEADS)
def test_every_head_comes_back_from_its_arrays(kind, table) -> None:
    train = table(60)
    [fit] = kind.fit(Problem(train.X, train.y, (5, 3)), kind.grid[:1])
    again = type(fit.head).from_arrays(*fit.head.to_arrays())
    np.testing.assert_array_equal(again.logits(train.X), fit.head.logits(train.X))


@pytest.mark.parametrize("kind", HEADS.values(), ids=HEADS)
def test_a_row_does_not_depend_on_its_company(kind, table) -> None:
    """So that an image alone is given the probabilities that it had in training."""
    train, new = table(60, 40), table(90, 40, seed=1)
    [fit] = kind.fit(Problem(train.X, train.y, (20, 20)), kind.grid[:1])
    alone = np.concatenate([fit.head.logits(new.X[i : i + 1]) for i in range(90)])
    np.testing.assert_array_equal(alone, fit.head.logits(new.X))
