from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from featstore.errors import InputError
from heads.bundles.bundle import CARD_FILE, HEAD_FILE, read_bundle
from heads.bundles.card import Card
from heads.bundles.inventory import describe, find_bundles, strange_files
from heads.kinds.linear import LinearHead
from tests.heads.bundles.make import write_bundle


@pytest.fixture
def two(bundles: Path, card: Card, head: LinearHead) -> list[Path]:
    return sorted(write_bundle(bundles, replace(card, seed=seed), head) for seed in (1, 2))


def test_bundles_are_found_in_a_folder_below_a_sweep_and_by_themselves(bundles: Path, two: list[Path]) -> None:
    (bundles / "notes.txt").touch()
    (bundles / "photos").mkdir()
    (bundles / ".half-written.1a2b").mkdir()
    (bundles / ".half-written.1a2b" / CARD_FILE).touch()
    assert [one.path for one in find_bundles([bundles])] == two
    assert [one.path for one in find_bundles([bundles.parent])] == two
    assert [one.path for one in find_bundles([two[1], bundles])] == [two[1], two[0]]
    assert all(one.problem is None for one in find_bundles([bundles]))


def test_by_default_it_looks_where_train_and_sweep_save(
    bundles: Path, two: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, card: Card, head: LinearHead
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [one.path for one in find_bundles()] == [path.relative_to(tmp_path) for path in two]
    write_bundle(tmp_path / "sweep" / "bundles", card, head)
    assert len(find_bundles()) == 3


def test_with_no_usual_place_there_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_bundles() == ()


def test_a_folder_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, received in (("no", "nothing there"), ("file", "a file")):
        with pytest.raises(InputError, match="no such folder") as caught:
            find_bundles([tmp_path / name])
        assert caught.value.received == received


def test_a_damaged_bundle_is_listed_with_its_problem_beside_the_sound_ones(bundles: Path, two: list[Path]) -> None:
    (two[0] / HEAD_FILE).write_bytes(b"")
    broken, sound = find_bundles([bundles])
    assert (broken.card, sound.problem) == (None, None)
    assert broken.problem == "a file of this bundle was changed after it was written"
    value = broken.to_json()
    assert json.loads(json.dumps(value)) == value
    assert value["head"] is value["classes"] is value["held_out"] is None


def test_what_is_listed_is_what_the_card_says(bundles: Path, two: list[Path], card: Card) -> None:
    value = find_bundles([two[0]])[0].to_json()
    assert json.loads(json.dumps(value)) == value
    assert (value["head"], value["params"], value["pooling"]) == ("logreg", {"C": 0.1}, "avg")
    assert value["classes"] == ["cat", "naïve <b>", "\\xff"]
    assert value["held_out"]["value"] == card.held_out.accuracy.value
    assert value["test"] is None
    assert value["bytes"] == sum(file.stat().st_size for file in two[0].iterdir())


def test_a_description_is_plain_json_and_says_everything(two: list[Path], card: Card) -> None:
    value = describe(read_bundle(two[0]))
    text = json.dumps(value)
    assert json.loads(text) == value
    assert "udcff" not in text
    assert (value["format"], value["calibration"]) == ("linear", {"method": "temperature", "factor": 0.5})
    assert value["features"][0]["spec"]["image_size"] == [96, 96]
    assert value["trained_on"] == {
        "splits": ["train"], "rows": 60, "views": 1, "augmentation": None, "sha256": "1" * 64, "segments": 1,
    }  # fmt: skip
    assert [entry["name"] for entry in value["held_out"]["per_class"]] == ["cat", "naïve <b>", "\\xff"]


def test_files_of_others_in_a_bundle_are_named_and_never_opened(
    two: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (two[0] / "head.pkl").write_bytes(b"")
    opened = []
    original = os.open
    monkeypatch.setattr(os, "open", lambda path, *a, **k: (opened.append(Path(path).name), original(path, *a, **k))[1])
    bundle = read_bundle(two[0])
    assert strange_files(bundle.path) == ("head.pkl",)
    assert describe(bundle)["strange_files"] == ["head.pkl"]
    assert opened
    assert "head.pkl" not in opened
