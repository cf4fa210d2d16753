"""Every benchmark runs, small, and finds that both of its sides did the same."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.reliability.campaign import takes_long


def run(script: str, *words: object) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / script, *map(str, words), "--json"],
        capture_output=True, text=True, check=False, env=os.environ, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def cases(script: str, *words: object) -> list[str]:
    """The cases of all rows, of which every one has the same result on both sides."""
    rows = run(script, *words)["rows"]
    assert [row["case"] for row in rows if not row["same_result"]] == []
    return [row["case"] for row in rows]


def test_the_store_gives_back_what_was_written() -> None:
    found = cases("store.py", "--rows", "700", "--columns", "16", "--repeats", "1")
    assert len(found) == 6


@takes_long
def test_scale_finds_and_reads_every_row_and_extracts_every_image() -> None:
    found = cases("scale.py", "--rows", "400", "--images", "40", "--repeats", "1")
    assert [case.split()[0] for case in found] == ["opening", "planning", "reading", "peak"]


@takes_long
def test_a_large_store_is_found_whole_before_and_after_a_compaction() -> None:
    found = cases("simulate.py", "--rows", "20000")
    assert len(found) == 10


@takes_long
def test_the_driver_lists_and_extracts_every_image_within_its_memory() -> None:
    assert len(cases("driver.py", "--images", "400", "--engine", "local")) == 8


@pytest.mark.parametrize(
    ("seconds", "peaks", "same"),
    [
        ((25.0, 50.0, 100.0), (200.0, 400.0, 800.0), True),
        ((25.0, 100.0, 400.0), (200.0, 400.0, 800.0), False),
        ((25.0, 50.0, 100.0), (200.0, 300.0, 1000.0), False),
        ((25.0, 50.0, 100.0), (400.0, 800.0, 1600.0), False),
    ],
)
def test_a_driver_that_takes_more_than_it_may_or_grows_faster_than_its_images_is_told(
    monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, ...], peaks: tuple[float, ...], same: bool
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    driver = importlib.import_module("driver")
    counts = (1000, 2000, 4000)
    runs = [driver.Run(*row) for row in zip(counts, counts, (0, 0, 0), seconds, seconds, peaks, strict=True)]
    assert all(row["same_result"] for row in driver._rows("made up", runs[::-1], [*counts[::-1]])) == same
    assert not any(row["same_result"] for row in driver._rows("made up", runs[::-1], [4000, 2000, 999]))


@pytest.mark.real
@takes_long
@pytest.mark.usefixtures("linked_cache")
def test_a_cluster_computes_the_rows_of_one_process(photographs: Path) -> None:
    words = ("--case", "vgg16:64", "--images", "192", "--repeats", "1")
    assert len(cases("engines.py", photographs, *words)) == 1


@pytest.mark.real
@takes_long
@pytest.mark.usefixtures("linked_cache")
def test_a_second_extraction_finds_all_there(few_photographs: Path) -> None:
    assert len(cases("warm.py", few_photographs, "--files", "300", "--others", "300", "--repeats", "1")) == 5


@pytest.mark.real
@takes_long
@pytest.mark.usefixtures("linked_cache")
def test_a_base_computes_the_same_whether_its_graph_was_there_or_not_and_as_keras(few_photographs: Path) -> None:
    assert len(cases("startup.py", few_photographs, "--backbone", "vgg16", "--repeats", "1")) == 2


@pytest.mark.real
@takes_long
@pytest.mark.usefixtures("linked_cache")
def test_the_service_answers_known_and_new_pictures(few_photographs: Path) -> None:
    words = ("--images", "4", "--seconds", "0.2", "--repeats", "1")
    rows = run("serve.py", few_photographs, *words)["rows"]
    assert all(row["same_result"] for row in rows)
    assert [row["asked"] for row in rows if "asked" in row] == [
        "at most 0.01 s", "at least 200 answers/s", "at most 0.15 s", "at least 0.85 of the baseline"
    ]  # fmt: skip
    assert len(rows) == 6


@pytest.mark.real
@takes_long
def test_all_decoders_see_about_the_same(few_photographs: Path) -> None:
    assert len(cases("decode.py", few_photographs, "--repeats", "1")) >= 4


@pytest.mark.real
@pytest.mark.usefixtures("linked_cache")
@takes_long
def test_every_side_of_extraction_computes_the_same_features(few_photographs: Path) -> None:
    rows = run("extract.py", few_photographs, "--case", "vgg16:150", "--images", "8", "--repeats", "1")["rows"]
    found = [row["case"] for row in rows]
    accuracies = [row for row in rows if "accuracy" in row["case"]]  # of 32 images: one more or less is 3 points
    assert all(row["same_result"] for row in rows if row not in accuracies)
    assert all(abs(row["ours"] - row["baseline"]) < 0.1 for row in accuracies)
    for words in (
        "the loop of",
        "image_dataset_from_directory",
        "the base alone",
        "int8",
        "a matrix product",
        "accuracy",
    ):
        assert any(words in case for case in found), words


@pytest.mark.real
@takes_long
@pytest.mark.usefixtures("linked_cache")
def test_any_number_of_images_at_once_gives_about_the_same_rows(few_photographs: Path) -> None:
    words = ("--case", "vgg16:64", "--sizes", "8", "40", "--images", "8", "--repeats", "1")
    assert len(cases("batch.py", few_photographs, *words)) == 2


def test_a_table_takes_the_place_of_the_one_below_its_mark_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    harness = importlib.import_module("harness")
    page = "above\n\n<!-- table: a -->\n\n| old |\n| old |\n\nbelow\n\n| other |\n"
    new = harness.with_text(page, "<!-- table: a -->\n", "| new |")
    assert new == "above\n\n<!-- table: a -->\n\n| new |\n\nbelow\n\n| other |\n"
    assert harness.with_text(new, "<!-- table: a -->\n", "| new |") == new
    assert harness.with_text("<!-- table: a -->\n", "<!-- table: a -->\n", "| new |").endswith("\n\n| new |\n")


def test_what_many_images_need_is_told_of_every_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    needs = importlib.import_module("needs")
    for lines in needs.TABLES.values():
        head, _, *rows = lines()
        assert len(rows) > 4
        assert {line.count("|") for line in (head, *rows)} == {head.count("|")}


def test_rows_that_are_swapped_or_stretched_are_not_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    found = importlib.import_module("cases")
    rows = 100 + np.random.default_rng(0).random((8, 16), np.float32)  # all point nearly one way
    assert found.told_apart(rows, rows)
    assert not found.told_apart(rows[::-1], rows)
    assert found.as_long(rows, rows)
    assert not found.as_long(1.1 * rows, rows)


@pytest.mark.real
@pytest.mark.usefixtures("linked_cache")
@takes_long
def test_backbones_have_a_row_each_and_only_the_best_is_tested(few_photographs: Path) -> None:
    words = ("--backbone", "vgg16:64", "--backbone", "vgg16:96", "--backbone", "nobody", "--heads", "logreg")
    first, second, unknown = run("backbones.py", few_photographs, *words)["rows"]
    assert [first["image_size"], second["image_size"]] == [64, 96]
    assert first["feature_bytes"] == 2048
    assert ("test" in first) != ("test" in second)
    assert "unknown backbone" in unknown["problem"]
