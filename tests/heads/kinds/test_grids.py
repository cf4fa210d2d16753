from __future__ import annotations

import pytest

from featstore.errors import InputError
from heads.kinds import grids
from heads.kinds.catalog import HEADS
from heads.kinds.grids import kinds_of


def grid_of(head: str, *words: str):
    [kind] = kinds_of([head], words)
    return kind.grid


@pytest.mark.parametrize("kind", HEADS.values(), ids=HEADS)
def test_a_kinds_own_grid_is_every_combination_of_its_values(kind) -> None:
    """So that speaking of one hyperparameter leaves the others as they were."""
    name = next(iter(kind.grid[0]))
    usual = list(dict.fromkeys(params[name] for params in kind.grid))
    words = ",".join("x".join(map(str, v)) or "none" if isinstance(v, tuple) else str(v) for v in usual)
    again = grid_of(kind.name, f"{kind.name}.{name}={words}")
    assert sorted(map(str, again)) == sorted(map(str, kind.grid))


def test_without_words_the_kinds_are_the_catalogues_each_once() -> None:
    assert kinds_of(["ridge", "logreg", "ridge"]) == [HEADS["ridge"], HEADS["logreg"]]


def test_values_regularise_ever_less_however_they_were_typed() -> None:
    assert [p["C"] for p in grid_of("logreg", "logreg.C=1,0.01,3")] == [0.01, 1.0, 3.0]
    assert [p["alpha"] for p in grid_of("ridge", "ridge.alpha=1,100,10")] == [100.0, 10.0, 1.0]


def test_several_hyperparameters_make_a_product() -> None:
    found = grid_of("dense", "dense.hidden=64,256x64,none", "dense.dropout=0.5", "dense.learning_rate=0.001")
    assert [params["hidden"] for params in found] == [(64,), (256, 64), ()]
    assert {(params["dropout"], params["learning_rate"], params["epochs"]) for params in found} == {(0.5, 0.001, 40)}


def test_names_are_as_loose_as_the_heads_are() -> None:
    assert [p["C"] for p in grid_of("linear-svm", " Linear_SVM.C = 0.5 ")] == [0.5]


@pytest.mark.parametrize(
    "words",
    [
        *("logreg.C", "C=1", "logreg=1", "logreg.C=", "=", ""),
        *("logreg.C=0", "logreg.C=-1", "logreg.C=inf", "logreg.C=nan", "logreg.C=one", "logreg.C=1,,2"),
        *("lda.shrinkage=1", "knn.k=0", "knn.k=1.5", "knn.weights=heavy", "dense.hidden=0", "dense.hidden=8x-1"),
        *("dense.dropout=1", "dense.optimizer=sgd", "dense.standardise=maybe", "dense.epochs=0", "dense.batch_size=0"),
    ],
)
def test_what_cannot_be_is_one_message(words: str) -> None:
    with pytest.raises(InputError) as caught:
        kinds_of(["logreg", "lda", "knn", "dense"], [words])
    assert caught.value.where == "--grid"
    assert caught.value.expected


def test_an_unknown_name_has_its_nearest_and_a_head_that_was_not_asked_for_is_said() -> None:
    with pytest.raises(InputError, match="did you mean dropout"):
        kinds_of(["dense"], ["dense.dropuot=0.1"])
    with pytest.raises(InputError, match="knn is not among the heads"):
        kinds_of(["logreg"], ["knn.k=3"])
    with pytest.raises(InputError, match="unknown head"):
        kinds_of(["logreg"], ["forest.depth=3"])


def test_every_hyperparameter_of_the_catalogue_says_what_it_may_be() -> None:
    assert {name for kind in HEADS.values() for name in kind.grid[0]} == set(grids._POSSIBLE)
