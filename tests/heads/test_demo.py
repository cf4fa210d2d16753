from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import heads.demo_images as demo_images
from featstore.store import Store
from heads.bundles.bundle import read_bundle
from heads.bundles.card import Origin
from heads.demo import BACKBONES, BASELINE, Extracted, featstore_extract, pixel_tables, run_demo
from heads.training.results import Comparison, TrainingSet

pytest.importorskip("skimage")


@pytest.fixture
def few_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_images, "PER_CLASS", 4)


@pytest.mark.usefixtures("few_patches")
def test_the_demo_extracts_trains_and_extracts_again(tmp_path: Path, table) -> None:
    said: list[str] = []
    shown: list[Comparison] = []
    calls: list[Path] = []

    def extract(folder: Path) -> Extracted:
        calls.append(folder)
        tables = {"train": table(), "test": table(split="test", seed=1)}
        return Extracted(
            (TrainingSet("vgg16", "avg", (Origin("vgg16"),), lambda: tables),), 136, 136 if len(calls) == 1 else 0, 0.5
        )

    report = run_demo(tmp_path / "images", tmp_path / "bundles", extract, say=said.append, show=shown.append)
    assert calls == [tmp_path / "images"] * 2
    assert (report.first.computed, report.second.computed) == (136, 0)
    assert sorted(result.head for result in report.trained.results) == ["linear-svm", "logreg", "logreg"]
    assert shown == [report.trained]
    assert "136 rows computed" in said[1]
    assert "0 rows computed" in said[2]
    document = report.to_json()
    assert [run["computed"] for run in document["runs"]] == [136, 0]
    assert len(document["results"]) == 3


@pytest.mark.usefixtures("few_patches")
def test_the_last_words_are_commands_that_name_what_is_there(tmp_path: Path, table) -> None:
    said: list[str] = []
    sets = (TrainingSet("vgg16", "avg", (Origin("vgg16"),), lambda: {"train": table()}),)
    run_demo(
        tmp_path / "images",
        tmp_path / "bundles",
        lambda folder: Extracted(sets, 60, 0, 0.1),
        say=said.append,
        show=lambda report: None,
    )
    (command,) = [line.split() for line in said if "featstore predict" in line]
    assert read_bundle(Path(command[2])).card.kind in ("logreg", "linear-svm")
    assert Path(command[3]).is_file()
    assert "featstore train path/to/images --backbone vgg16" in "\n".join(said)


@pytest.mark.usefixtures("few_patches")
def test_the_baseline_is_grey_pixels_and_nothing_else(tmp_path: Path) -> None:
    folder = demo_images.write_demo_dataset(tmp_path / "images")
    tables = pixel_tables(folder, 8)
    assert set(tables) == {"train", "test"}
    train = tables["train"]
    assert train.X.shape == (68, 64)
    assert train.X.dtype == np.float32
    assert train.spec.backbone == BASELINE
    assert [train.classes[label] for label in train.y] == [Path(path).parent.name for path in train.paths]
    assert 0 <= train.X.min() < train.X.max() <= 255
    assert not {d.tobytes() for d in train.digests} & {d.tobytes() for d in tables["test"].digests}


@pytest.mark.real
def test_both_backbones_beat_raw_pixels_by_far_and_the_second_run_computes_nothing(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    report = run_demo(
        tmp_path / "images", tmp_path / "bundles", featstore_extract(store), say=print, show=lambda report: None
    )
    accuracies = {(result.backbone, result.head): result.held_out.accuracy.value for result in report.trained.results}
    baseline = accuracies[BASELINE, "logreg"]
    assert baseline < 0.5
    assert all(accuracies[name, "logreg"] > baseline + 0.35 for name in BACKBONES)
    assert report.first.computed == 2 * report.first.images == 2 * 1020
    assert report.second.computed == 0
