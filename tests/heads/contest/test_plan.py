from __future__ import annotations

import math

import pytest

from featstore import DatasetOptions, Request
from featstore.errors import InputError
from heads.contest.plan import Contest


def contest(**given: object) -> Contest:
    return Contest("photos", DatasetOptions(), Request("vgg16"), **given)  # type: ignore[arg-type]


def test_the_cheapest_way_comes_first_and_the_dearest_last() -> None:
    names = [way.name for way in contest(views=4).ways]
    assert names == [
        "cached, logreg",
        "cached, dense",
        "cached, 2 views, logreg",
        "cached, 4 views, logreg",
        "cached, 4 views, dense",
        "frozen base, augmented",
        "fine-tuned, maps of 4 views",
        "from scratch",
        "from scratch, augmented",
        "fine-tuned, augmented",
    ]


@pytest.mark.parametrize(("views", "counts"), [(1, []), (2, [2]), (6, [2, 4, 6]), (8, [2, 4, 8])])
def test_the_curve_over_views_goes_by_powers_of_two(views: int, counts: list[int]) -> None:
    ways = [way for way in contest(views=views).ways if way.head == "logreg"]
    assert [way.plan.request.views for way in ways] == [1, *counts]


@pytest.mark.parametrize("minutes", [0.0, -1.0, math.nan, math.inf])
def test_a_budget_that_is_no_time_is_refused(minutes: float) -> None:
    with pytest.raises(InputError, match="no budget"):
        contest(minutes=minutes)


def test_every_network_is_trained_as_asked_for() -> None:
    ways = {
        way.name: way.plan for way in contest(layer="block4_conv1", epochs=3, scratch_epochs=5, augment="flip").ways
    }
    assert ways["fine-tuned, augmented"].layer == ways["fine-tuned, maps of 4 views"].layer == "block4_conv1"
    assert ways["fine-tuned, maps of 4 views"].request.augment == "flip"
    assert [stage.epochs for stage in ways["fine-tuned, augmented"].stages] == [3, 3]
    assert [stage.epochs for stage in ways["from scratch"].stages] == [5]
    assert (ways["from scratch"].augment, ways["from scratch, augmented"].augment) == (None, "flip")
