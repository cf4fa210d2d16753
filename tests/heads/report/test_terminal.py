from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from featstore.records import Reason
from heads.evaluation.compare import compare
from heads.evaluation.evaluated import Evaluated, Evaluation, Seen
from heads.evaluation.metrics import Measure, Metrics, measure
from heads.evaluation.scores import Score, Trial
from heads.predict import Prediction
from heads.report.terminal import evaluation, leaderboard, predictions, setting
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
    return Result(
        "vgg16",
        "avg",
        "logreg",
        ("0" * 64,),
        choice,
        np.zeros((0, 2)),
        none,
        (),
        np.zeros((0, 32), np.uint8),
        GOOD,
        cost,
        test=BAD,
    )


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
    assert r"[red]\x1b[2J\xff.png" in line
    assert "[/bold]" in line


def evaluated(bundle: str, y: np.ndarray, classes: tuple[str, ...], **changes: Any) -> Evaluated:
    said = np.roll(y, 1)
    metrics = measure(y, np.eye(len(classes))[said], classes)
    plain = Evaluated(bundle, "validation", (), metrics, None, (), None, 10, 10, (), said == y)
    return replace(plain, **changes)


def outcome(*results: Evaluated) -> Evaluation:
    names = [result.bundle for result in results]
    pairs = compare(names, np.stack([result.right for result in results]))
    return Evaluation("photos", "test", True, False, len(results[0].right), 0, {}, 0.9, results, pairs)


def text(found: Evaluation, width: int = 140) -> str:
    return "\n".join(line for part in evaluation(found) for line in shown(part, width))


def test_one_head_is_shown_with_every_measure_and_its_confusion() -> None:
    y = np.array([0, 0, 0, 1, 1])
    lines = text(outcome(evaluated("b/one", y, ("cat", "dog")))).splitlines()
    assert lines[0] == "b/one"
    assert lines[1].split() == ["5", "images"]
    assert lines[2].split()[:2] == ["accuracy", "0.600"]
    assert any(line.split() == ["cat", "3", "0.667", "0.667", "0.667", "2", "1"] for line in lines)
    assert "McNemar" not in " ".join(lines)


def test_what_calibration_and_copies_do_stands_beside() -> None:
    y = np.array([0, 1, 1, 0])
    other = measure(y[:2], np.eye(2)[y[:2]], ("cat", "dog"))
    seen = (Seen("a.png", None, 1.0, exact=True),) * 2
    lines = text(outcome(evaluated("b", y, ("cat", "dog"), uncalibrated=other, seen=seen, without_seen=other)))
    assert "4 images    before calibration    without the 2 seen" in lines


def test_several_heads_have_a_line_each_and_are_compared_with_the_count_said() -> None:
    y = np.array([0, 1, 1, 0, 1])
    lines = text(outcome(*(evaluated(f"b/{name}", y, ("cat", "dog")) for name in "xyz")))
    assert [line.split()[0] for line in lines.splitlines()[1:4]] == ["x", "y", "z"]
    assert "same 5 images; adjusted by Holm for 3 comparisons" in " ".join(lines.split())


def test_of_many_classes_the_commonest_mistakes_are_shown() -> None:
    y = np.repeat(np.arange(12), 2)
    lines = text(outcome(evaluated("b", y, tuple(f"kind {i}" for i in range(12)))))
    assert "most frequent mistakes" in lines
    assert "called kind" not in lines


def test_class_and_bundle_names_are_escaped() -> None:
    lines = text(outcome(evaluated("[red]b\x1b", np.array([0, 1]), ("[bold]c\u202e", "d"))))
    assert r"[red]b\x1b" in lines
    assert r"[bold]c\u202e" in lines
