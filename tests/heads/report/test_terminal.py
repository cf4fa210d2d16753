from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from featstore.records import Reason
from heads.evaluation.metrics import Measure, Metrics
from heads.evaluation.scores import Score, Trial
from heads.predict import Prediction
from heads.report.terminal import leaderboard, predictions, setting
from heads.training.choice import Choice
from heads.training.results import Comparison, Cost, Result


def metrics(accuracy: float, low: float, high: float) -> Metrics:
    one = Measure(0.5, (0.4, 0.6))
    return Metrics(200, Measure(accuracy, (low, high)), one, one, one, one, one, one, ((1, 0), (0, 1)), ())


GOOD, BAD = metrics(0.9, 0.85, 0.93), metrics(0.5, 0.4, 0.6)


def shown(table: Any, width: int = 140) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.fixture
def result() -> Result:
    none = np.zeros(0, np.int64)
    trials = (Trial({"C": 0.001}, Score(0.9, (0.85, 0.93), 200)),)
    choice = Choice("logreg", trials, 0, "validation", np.zeros((0, 2)), none, none, none, None, 0.34)
    cost = Cost(1000, None, 0.34, 0.12)
    return Result("vgg16", "avg", "logreg", ("0" * 64,), choice, np.zeros((0, 2)), none, (), GOOD, cost, test=BAD)


def board(*results: Result) -> Comparison:
    return Comparison(results, ("cat", "dog"))


def test_the_leaderboard_has_a_line_a_head_in_the_order_of_the_ranking(result: Result) -> None:
    worse = replace(result, backbone="xception", held_out=BAD, test=None)
    heading, first, second, *caption = shown(leaderboard(board(result, worse)))
    assert heading.split() == ["features", "head", "setting", "validation", "test", "choose", "s", "fit", "s"]
    assert first.split()[:3] == ["vgg16", "avg", "logreg"]
    assert "C=0.001  0.900 [0.850, 0.930]  0.500 [0.400, 0.600]      0.34   0.12" in first
    assert second.startswith("xception")
    assert "–" in second
    assert "95 % interval" in " ".join(caption)


def test_a_long_board_says_how_many_follow(result: Result) -> None:
    lines = shown(leaderboard(board(*[result] * 5), most=3))
    assert len([line for line in lines if line.startswith("vgg16")]) == 3
    assert "2 more heads follow" in " ".join(lines)


def test_the_heading_says_what_the_choice_was_made_on(result: Result) -> None:
    folds = replace(result, choice=replace(result.choice, on="5 folds of train"))
    assert "5 folds of train" in shown(leaderboard(board(folds)))[0]


def test_a_terminal_of_80_columns_shows_every_line_whole_without_the_seconds(result: Result) -> None:
    longest = replace(
        result, backbone="xception", head="linear-svm", choice=replace(result.choice, on="5 folds of train")
    )
    heading, line, *_ = shown(leaderboard(board(longest), 80), width=80)
    assert line.split()[:3] == ["xception", "avg", "linear-svm"]
    assert line.endswith("0.900 [0.850, 0.930]  0.500 [0.400, 0.600]")
    assert "fit" not in heading


def test_settings_are_short_words() -> None:
    words = setting({"C": 0.00010, "hidden": (256, 64), "optimizer": "adam", "shrink": True})
    assert words == "C=0.0001, hidden=256x64, optimizer=adam, shrink=True"
    assert setting({"hidden": ()}) == "hidden=none"


def prediction(**changes: Any) -> Prediction:
    plain = Prediction("a.png", "cat", ("cat", "dog", "cow"), (0.7, 0.1, 0.2), Reason.OK, True)
    return replace(plain, **changes)


def test_predictions_show_the_best_class_and_the_next() -> None:
    line = shown(predictions([prediction()]))[1]
    assert line.split() == ["a.png", "cat", "0.700", "cow", "0.200,", "dog", "0.100", "cached"]
    assert "dog" not in shown(predictions([prediction(from_cache=False)], top=2))[1]


def test_a_rejected_image_says_why() -> None:
    line = shown(predictions([prediction(label=None, probabilities=(), reason=Reason.TRUNCATED)]))[1]
    assert line.split() == ["a.png", "rejected:", "truncated"]


def test_names_are_neither_markup_nor_control_codes() -> None:
    odd = prediction(path="[red]\x1b[2J\udcff.png", label="[/bold]", classes=("[/bold]", "b", "c"))
    line = shown(predictions([odd]))[1]
    assert r"[red]\x1b[2J\udcff.png" in line
    assert "[/bold]" in line
