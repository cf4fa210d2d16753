from __future__ import annotations

import pytest

from featstore.errors import InputError
from heads.catalog import HEADS, find


@pytest.mark.parametrize("name", ["linear-svm", "Linear_SVM", " LINEAR-svm"])
def test_a_head_is_found_however_it_is_spelled(name: str) -> None:
    assert find(name) is HEADS["linear-svm"]


def test_an_unknown_head_names_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown head 'logrek'") as caught:
        find("logrek")
    assert "did you mean logreg" in str(caught.value)
    assert caught.value.where == "--head"


@pytest.mark.parametrize("kind", HEADS.values(), ids=HEADS)
def test_a_grid_goes_from_strong_to_weak_regularisation(kind) -> None:
    values = [params["C"] for params in kind.grid]
    assert values == sorted(values)
    assert len(values) == len(set(values)) >= 3


@pytest.mark.parametrize("kind", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("classes", [2, 3])
def test_every_head_learns_and_gives_the_same_twice(kind, classes: int, table) -> None:
    train, new = table(90, classes=classes), table(90, classes=classes, seed=1)
    heads = kind.fit(train.X, train.y, kind.grid, 0)
    assert len(heads) == len(kind.grid)
    assert max((head.predict(new.X) == new.y).mean() for head in heads) > 0.9
    again = kind.fit(train.X, train.y, kind.grid, 0)
    assert all((one.weights == two.weights).all() for one, two in zip(heads, again, strict=True))
