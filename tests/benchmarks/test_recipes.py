"""The tutorials' experiments: what is taken of a dataset, how little of it, and how the rows are kept."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from featstore import Store, open_dataset
from featstore.scan import digest_all
from tests.conftest import ROOT
from tests.pictures import class_folders, png
from tests.reliability.campaign import takes_long

SCRIPT = ROOT / "benchmarks" / "recipes.py"


@pytest.fixture(scope="module")
def recipes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recipes", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["recipes"] = module
    spec.loader.exec_module(module)
    return module


def kaggle(root: Path, count: int, contest: int = 0) -> Path:
    """Kaggle's layout: train/cat.N.png and dog.N.png, and test1/N.png without labels."""
    for folder in ("train", "test1")[: 1 + bool(contest)]:
        (root / folder).mkdir(parents=True)
    for number in range(2 * count):
        name = f"{('cat', 'dog')[number % 2]}.{number // 2}.png"
        (root / "train" / name).write_bytes(png(number))
    for number in range(contest):
        (root / "test1" / f"{number + 1}.png").write_bytes(png(10_000 + number))
    return root


def test_every_recipe_of_the_tutorials_is_there(recipes: ModuleType) -> None:
    assert list(recipes.RECIPES) == [
        "keras-guide-xception", "resnet50-stack", "chollet-vgg16", "chollet-r-vgg16", "kaggle-vgg16",
    ]  # fmt: skip


def test_the_part_of_a_dataset_has_the_same_share_of_every_split_and_class(recipes: ModuleType, tmp_path: Path) -> None:
    dataset = open_dataset(class_folders(tmp_path / "data", count=8))
    part = recipes.part_of(dataset, Store.open(tmp_path / "store"), 0.5)
    assert len(part) == len(dataset) // 2
    pairs = np.unique(np.stack([part.splits, part.labels]), axis=1, return_counts=True)[1]
    assert pairs.tolist() == [4] * 6


def test_kaggles_recipe_takes_the_first_of_each_class_and_splits_them_two_to_one(
    recipes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "_KAGGLE", 60)
    dataset = recipes.of_kaggle(open_dataset(kaggle(tmp_path / "data", count=70, contest=3)))
    assert sorted(dataset.paths) == sorted(f"train/{name}.{i}.png" for name in ("cat", "dog") for i in range(60))
    splits = dataset.split_of(digest_all(dataset, tmp_path / "scan").values)
    assert set(splits.tolist()) == {0, 1}
    assert 0.55 < (splits == 0).mean() < 0.8


def test_a_plan_keeps_at_least_one_epoch_of_each_stage(recipes: ModuleType) -> None:
    plan = recipes.RECIPES["chollet-vgg16"][2].what
    few = recipes.scaled(plan, 0.1)
    assert (few.epochs, few.tuning_epochs) == (3, 10)
    few = recipes.scaled(plan, 0.001)
    assert (few.epochs, few.tuning_epochs) == (1, 1)


def _row(recipe: str, accuracy: float) -> dict[str, Any]:
    found = {"accuracy": accuracy, "interval": [accuracy - 0.1, accuracy + 0.05]}
    published = {"validation": "0.903", "test": ""}
    about = {"recipe": recipe, "case": "a head", "published": published, "train_images": 1000}
    return {**about, "validation_images": 200, "validation": found, "trained": "as published", "seconds": 12.3}


def test_saved_rows_replace_those_of_the_same_recipe_and_keep_the_others(recipes: ModuleType, tmp_path: Path) -> None:
    results, docs = tmp_path / "recipes.json", tmp_path / "recipes.md"
    docs.write_text(f"# Recipes\n\n{recipes._TABLE}\nold table\n")
    recipes.save([_row("kaggle-vgg16", 0.9), _row("chollet-vgg16", 0.8)], {"benchmark": "recipes"}, results, docs)
    recipes.save([_row("kaggle-vgg16", 0.85)], {"benchmark": "recipes"}, results, docs)
    kept = json.loads(results.read_text())["rows"]
    assert [(row["recipe"], row["validation"]["accuracy"]) for row in kept] == [
        ("chollet-vgg16", 0.8), ("kaggle-vgg16", 0.85),
    ]  # fmt: skip
    assert "old table" not in docs.read_text()
    assert docs.read_text().startswith("# Recipes\n")
    line = "| kaggle-vgg16 | a head | 0.903 | 0.850 [0.750, 0.900] | – | – | 1,000 + 200 | as published | 12 |"
    assert line in docs.read_text().splitlines()


def test_an_experiment_that_cannot_be_run_says_why_in_its_row(recipes: ModuleType) -> None:
    row = {**_row("resnet50-stack", 0.5), "problem": "the weights cannot be had"}
    del row["validation"]
    assert "| left out: the weights cannot be had | – |" in recipes.table([row])


def _run(data: Path, out: Path, *more: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, SCRIPT, data, "--out", out, "--json", *more],
        capture_output=True, text=True, check=False, env=os.environ, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["rows"]


@pytest.mark.real
@takes_long
@pytest.mark.usefixtures("linked_cache")
def test_chollets_recipe_runs_on_photographs(few_photographs: Path, tmp_path: Path) -> None:
    cached, frozen, tuned = _run(few_photographs, tmp_path / "out", "--recipe", "chollet-vgg16", "--epoch-scale", "0")
    assert cached["trained"] == "as published"
    assert (frozen["trained"], tuned["trained"]) == ("1 of 30 epochs", "2 of 130 epochs")
    assert all(row["validation"]["interval"][0] <= row["validation"]["accuracy"] for row in (cached, frozen, tuned))
    assert ["test" in row for row in (cached, frozen, tuned)] == [False, False, True]
    assert (cached["train_images"], cached["validation_images"]) == (32, 16)


@takes_long
@pytest.mark.usefixtures("own_cache")
def test_the_resnet_stack_runs_with_any_weights(recipes: ModuleType, tmp_path: Path) -> None:
    place = recipes.Place(
        class_folders(tmp_path / "data", ("train", "validation"), count=2), Store.open(tmp_path / "store"),
        tmp_path / "out", weights="random:0",
    )  # fmt: skip
    whole, stack, tuned = recipes.RECIPES["resnet50-stack"]
    dataset = open_dataset(place.data)
    seen = recipes.run(whole, dataset, place)["trained"]
    assert [len(one.split(": ")[1].split(", ")) for one in seen.split("; ")] == [5, 5]
    assert recipes.run(stack, dataset, place)["trained"] == "as published"
    assert tuned.what.stages[-1].unfreeze == "all", "the tests of heads.live train such plans"


@pytest.mark.real
@pytest.mark.usefixtures("linked_cache")
@takes_long
def test_kaggles_recipe_submits_a_line_for_every_image_of_the_contest(few_photographs: Path, tmp_path: Path) -> None:
    data = tmp_path / "kaggle"
    for folder in ("train", "test1"):
        (data / folder).mkdir(parents=True)
    for name in ("cats", "dogs"):
        for number, file in enumerate(sorted((few_photographs / "train" / name).iterdir())):
            shutil.copyfile(file, data / "train" / f"{name[:-1]}.{number}.jpg")
    files = [file for folder in sorted((few_photographs / "test").iterdir()) for file in sorted(folder.iterdir())]
    for number, file in enumerate(files, start=1):
        shutil.copyfile(file, data / "test1" / f"{number}.jpg")
    [row] = _run(data, tmp_path / "out", "--recipe", "kaggle-vgg16")
    assert row["trained"] == "as published; 16 lines submitted"
    with open(tmp_path / "out" / "submission.csv", newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["id", "label"]
    assert [line[0] for line in lines[1:]] == [str(number) for number in range(1, 17)]
    assert all(0 < float(line[1]) < 1 for line in lines[1:])
