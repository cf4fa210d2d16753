from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featstore.errors import InputError, ReadOnlyError
from featstore.records import Reason
from heads.predict import Prediction
from heads.report.sheets import check_target, predictions_csv, to_csv, write_sheet


def prediction(**changes: Any) -> Prediction:
    plain = Prediction("a.png", "cat", ("cat", "dog", "cow"), (0.7, 0.1, 0.2), Reason.OK, True)
    return replace(plain, **changes)


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_a_line_has_the_likeliest_classes_best_first() -> None:
    [line] = read(predictions_csv([prediction()], top=2))
    assert line == {
        **{"path": "a.png", "label": "cat", "probability": "0.7", "label_2": "cow", "probability_2": "0.2"},
        **{"cached": "true", "rejected": ""},
    }


def test_more_than_all_classes_are_all_classes_and_no_number_is_rounded() -> None:
    thirds = (1 / 3, 0.1 + 0.2, 1 / 3)
    [line] = read(predictions_csv([prediction(probabilities=thirds)], top=9))
    assert {float(line[name]) for name in ("probability", "probability_2", "probability_3")} == set(thirds)
    assert "label_4" not in line


def test_a_rejected_image_has_a_line_with_its_reason() -> None:
    bad = prediction(label=None, probabilities=(), reason=Reason.TRUNCATED, from_cache=False)
    [line] = read(predictions_csv([bad], top=1))
    assert line == {"path": "a.png", "label": "", "probability": "", "cached": "false", "rejected": "truncated"}


def test_quotes_newlines_and_commas_in_names_survive() -> None:
    path, name = 'a "b",\nc\r.png', 'cat, "big"\n'
    [line] = read(predictions_csv([prediction(path=path, label=name, classes=(name, "dog", "cow"))]))
    assert (line["path"], line["label"]) == (path, name)


@given(st.lists(st.lists(st.text('a",;\r\n\t= '), min_size=2, max_size=2), max_size=5))
def test_whatever_is_written_is_read_again(rows: list[list[str]]) -> None:
    assert list(csv.reader(io.StringIO(to_csv(rows), newline=""))) == rows


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula_and_a_path_still_names_its_file(start: str) -> None:
    odd = prediction(path=f"{start}cmd.png", label=f"{start}cat", classes=(f"{start}cat", "dog", "cow"))
    [line] = read(predictions_csv([odd]))
    assert line["path"] == f"./{start}cmd.png"
    assert line["label"] == f"'{start}cat"


def test_a_name_that_is_no_utf8_can_be_written(tmp_path: Path) -> None:
    write_sheet(predictions_csv([prediction(path="odd-\udcff.png")]), tmp_path / "x.csv")
    assert "odd-\\xff.png" in (tmp_path / "x.csv").read_text(encoding="utf-8")


def test_no_predictions_are_a_header() -> None:
    assert predictions_csv([], top=1) == "path,label,probability,cached,rejected\n"


def test_a_file_that_is_there_is_left_alone_unless_forced(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("mine")
    with pytest.raises(InputError, match="--force"):
        write_sheet("yours", file)
    assert file.read_text() == "mine"
    write_sheet("yours", file, force=True)
    assert file.read_text() == "yours"
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


@pytest.mark.parametrize("place", ["/dev/null", ".", "none/x.csv"])
def test_places_that_can_hold_no_file_are_refused_even_when_forced(place: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        check_target(tmp_path / place, force=True)


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(ReadOnlyError):
        write_sheet("words", tmp_path / "x.csv")
    assert list(tmp_path.iterdir()) == []
