from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from featstore.records import Reason
from heads.evaluate import Score
from heads.predict import Prediction
from heads.report import leaderboard, predictions
from heads.train import Result, TrainReport

GOOD, BAD = Score(0.9, (0.85, 0.93), 200), Score(0.5, (0.4, 0.6), 200)


def shown(table: Any, width: int = 140) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.fixture
def result(spec) -> Result:
    return Result("vgg16", "avg", "logreg", {"C": 0.001}, "validation", GOOD, GOOD, BAD, 0.4567, 0.12, None, spec)


def test_the_leaderboard_has_a_line_a_head_best_first(result: Result) -> None:
    worse = replace(result, backbone="xception", held_out=BAD, test=GOOD)
    heading, first, second, caption = shown(leaderboard(TrainReport((worse, result))))
    assert heading.split() == ["features", "head", "setting", "validation", "test", "choose", "s", "fit", "s"]
    assert first.split()[:3] == ["vgg16", "avg", "logreg"]
    assert "C=0.001  0.900 [0.850, 0.930]  0.500 [0.400, 0.600]      0.34   0.12" in first
    assert second.startswith("xception")
    assert "95 % interval" in caption


def test_a_missing_test_split_is_a_dash(result: Result) -> None:
    assert "–" in shown(leaderboard(TrainReport((replace(result, test=None),))))[1]


def test_the_heading_says_what_the_choice_was_made_on(result: Result) -> None:
    folds = replace(result, chosen_on="5 folds of train")
    assert "5 folds of train" in shown(leaderboard(TrainReport((folds,))))[0]


def test_a_terminal_of_80_columns_shows_every_line_whole_without_the_seconds(result: Result) -> None:
    longest = replace(result, backbone="xception", head="linear-svm", chosen_on="5 folds of train")
    heading, line, _ = shown(leaderboard(TrainReport((longest,)), 80), width=80)
    assert line.split()[:3] == ["xception", "avg", "linear-svm"]
    assert line.endswith("0.900 [0.850, 0.930]  0.500 [0.400, 0.600]")
    assert "fit" not in heading


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
