"""The command line as people and scripts meet it: results, refusals, exit codes. The bases are stubs."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

import cli
from featstore import Request, load_table
from featstore.folders import default_store
from heads.bundles.bundle import read_bundle
from heads.contest.plan import Contest, Way
from heads.live.plan import LivePlan
from tests.commands import ROOT, good, paths_of, run, segments, spawn
from tests.pictures import class_folders, png
from tests.stubs import Bases, stub_base

ROWS = 36

SPEC = {"backbone", "fingerprint", "pooling", "precision", "runtime"}
METRICS = {
    "n",
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "log_loss",
    "roc_auc",
    "brier",
    "ece",
    "confusion",
    "per_class[]",
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "photos")


@pytest.fixture
def bundle(photos: Path, tmp_path: Path, bases: Bases) -> Path:
    """A head trained on ``photos``, whose features are in the store."""
    [result] = good("train", photos, "--head", "logreg", "--out", tmp_path / "bundles", "--json").json["results"]
    return Path(result["bundle"])


# ---- results ---------------------------------------------------------------------------------------------------------


def members(parent: str, names: set[str]) -> set[str]:
    return {f"{parent}.{name}" for name in names}


EXTRACT = {
    *("images", "specs[]", "rejects[]", "reasons", "seconds", "stages", "store", "ledger"),
    *members("specs[]", SPEC | {"hits", "computed", "rejected", "seconds", "images_per_second"}),
    *members("rejects[]", {"path", "digest", "reason"}),
    *members("stages", {"scan", "read", "decode", "startup", "backbone", "write"}),
    "workers",
    *members("store", {"path", "bytes", "quarantined"}),
}
PLAN = {
    *("images", "unreadable", "specs[]"),
    *members("specs[]", SPEC | {"hits", "rejected", "to_compute", "misses", "bytes", "seconds", "estimate"}),
}
SCALE = members("scale", {"count", "like", "list_seconds", "look_seconds", "read_seconds", "file_bytes"}) | {
    *members("scale", {"driver_bytes", "cache_bytes", "specs[]", "datasets", "stores", "limits"}),
    *members("scale.like", {"name_bytes", "file_bytes", "count", "list_seconds", "look_seconds", "read_seconds"}),
    *members("scale.specs[]", {"features", "rows", "seconds", "hours", "forms[]", "asked", "key_bytes", "index_bytes"}),
    *members("scale.specs[]", {"compact_bytes", "open_seconds", "table_bytes", "cost", "cost_a_month"}),
    *members("scale.specs[].features", {"rows_an_image", "channels", "area", "images_per_second", "basis"}),
    *members("scale.specs[].forms[]", {"pooling", "dtype", "row_bytes", "bytes", "committed", "compacted"}),
}
RESULT = {
    *("results[]", "pairs[]", "leaks", "notes", "report"),
    *members("results[]", {"backbone", "fingerprints", "pooling", "head", "params", "chosen_on", "held_out", "test"}),
    *members("results[]", {"preprocessing", "held_out_variants", "test_variants"}),
    *members("pairs[]", {"first", "second", "only_first", "only_second", "p", "adjusted"}),
    *members("results[]", {"feature_bytes", "image_seconds", "choose_seconds", "fit_seconds", "bundle"}),
    *members("results[].held_out", METRICS),
    *members("results[].held_out.accuracy", {"value", "interval"}),
    *members("results[].held_out.per_class[]", {"name", "n", "precision", "recall", "f1"}),
}
LS = {"rows", "rejects", "segments", "damaged", "bytes", "layer", "image_size", "dtype"} | SPEC - {"runtime"}
DRIFT = {"fingerprint", "backbone", "rows", "cosine", "relative", "problem", "note"}
VERIFY = {
    *("segments", "rows", "bytes", "quarantined", "read_data", "problems[]", "recomputed[]", "sound"),
    *members("problems[]", {"path", "problem"}),
    *members("recomputed[]", DRIFT),
}
PREDICT = {"predictions[]", *members("predictions[]", {"path", "label", "probabilities", "from_cache", "rejected"})}
EVALUATE = {
    *("split", "images", "unlabelled", "reasons", "results[]", "pairs[]", "threshold", "notes"),
    *members("results[]", {"bundle", "metrics", "uncalibrated", "leaks[]", "without_leaks", "fitted", "searched"}),
    *members("results[].metrics", METRICS),
    *members("results[].leaks[]", {"path", "train_path", "cosine", "exact"}),
    *members("pairs[]", {"first", "second", "only_first", "only_second", "p", "adjusted"}),
    "results[].unknown_classes",
}
SUBMIT = {
    *("file", "columns", "rows", "positive", "clip", "rejected[]", "notes"),
    *members("rejected[]", {"path", "reason"}),
}
TOP5 = {
    *("backbone", "weights", "images[]", "notes"),
    *members("images[]", {"path", "classes[]", "rejected"}),
    *members("images[].classes[]", {"index", "name", "probability"}),
}
WEIGHTS = {"weights[]", *members("weights[]", {"backbone", "origin", "digest", "source", "path", "bytes"})}
VERDICTS = {"weights[]", *members("weights[]", {"name", "path", "problem"})}

_MAPS = "reasons|hours|misses|params|probabilities|splits|facts|unknown_classes|spec|versions|files"
MAPS = re.compile(rf"((?:^|[.\]])(?:{_MAPS}))\..*")
"""Places below these are names of classes, splits and the like: any may be there."""


def places(value: Any) -> set[str]:
    return {place for place in paths_of(value) if not MAPS.search(place)}


def documented(command: str) -> set[str]:
    """Every word that docs/JSON.md has in backticks where it tells of ``command``."""
    page = (ROOT / "docs" / "JSON.md").read_text()
    row = re.search(rf"^\|[^|]*`{command}`[^|]*\|.*$", page, re.MULTILINE)
    section = re.search(rf"^## `featstore {command}`\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    text = row[0] if row else section[1] if section else ""
    return {word for code in re.findall("`([^`]+)`", text) for word in re.split(r"[^\w]+", code)}


def check(command: str, value: dict[str, Any], promised: set[str]) -> None:
    """Everything promised is there, and everything there is documented."""
    found = places(value)
    assert promised <= found, f"{command} lacks {sorted(promised - found)}"
    unknown = {place for place in found if re.split(r"[.\[\]]+", place.rstrip("[]"))[-1] not in documented(command)}
    assert not unknown, f"docs/JSON.md does not tell of {sorted(unknown)} in {command}"


def test_extract_prints_what_the_documentation_says(photos: Path, bases: Bases) -> None:
    (photos / "train" / "cats" / "bad.png").write_bytes(b"no picture")
    value = good("extract", photos, "-b", "vgg16", "-b", "xception", "--json").json
    check("extract", value, EXTRACT)
    assert value["images"] == ROWS + 1
    assert [spec["backbone"] for spec in value["specs"]] == ["vgg16", "xception"]
    assert all((spec["hits"], spec["computed"], spec["rejected"]) == (0, ROWS, 1) for spec in value["specs"])
    assert value["reasons"] == {"not-an-image": 1}
    assert [reject["path"] for reject in value["rejects"]] == ["train/cats/bad.png"]
    with open(value["ledger"], newline="") as ledger:
        assert [tuple(row.values()) for row in csv.DictReader(ledger)] == [tuple(value["rejects"][0].values())]


def test_a_second_extract_opens_no_base_and_prints_the_same_fields(photos: Path, bases: Bases) -> None:
    good("extract", photos)
    value = good("extract", photos, "--json").json
    check("extract", value, {"specs[].hits", "specs[].images_per_second", "ledger"})
    assert [(spec["hits"], spec["computed"], spec["images_per_second"]) for spec in value["specs"]] == [(ROWS, 0, 0)]
    assert value["ledger"] is None
    assert len(bases.opened) == 1


def test_views_of_training_images_are_extracted_planned_and_trained_on(
    photos: Path, tmp_path: Path, bases: Bases
) -> None:
    words = ("--views", "3", "--augment", "rotation_range=20,horizontal_flip=true", "--json")
    planned = good("plan", photos, *words).json
    check("plan", planned, PLAN)
    assert [spec["to_compute"] for spec in planned["specs"]] == [ROWS, ROWS // 3 * 2]
    value = good("extract", photos, *words).json
    check("extract", value, {"specs[].views", "specs[].augmentation"})
    assert [spec["views"] for spec in value["specs"]] == [1, 2]
    assert json.loads(value["specs"][1]["augmentation"])["rotation_range"] == 20
    trained = good("train", photos, *words, "--head", "logreg", "--out", tmp_path / "b").json
    check("train", trained, {"results[].views"})
    assert trained["results"][0]["views"] == 3
    assert bases.computed == ROWS // 3 * 5
    shown = good("heads", "show", trained["results"][0]["bundle"])
    assert "3 of each image" in shown.out
    assert good("predict", trained["results"][0]["bundle"], photos / "test", "--json").json["predictions"]
    refused = run("extract", photos, "--views", "2", "--augment", "tutorail")
    assert refused.code == 2
    assert "did you mean tutorial" in refused.message


@pytest.mark.parametrize(
    ("option", "field"),
    [
        (("--image-size", "64"), "image_size: 224x224 in the store, 64x64 asked"),
        (("--image-size", "64x96"), "image_size: 224x224 in the store, 64x96 asked"),
        (("--layer", "block4_pool"), "layer: block5_pool in the store, block4_pool asked"),
        (("--precision", "bfloat16"), "precision: float32 in the store, bfloat16 asked"),
        (("--weights", "random:1"), "weights: "),
        (("--resize", "nearest"), "resize: bilinear in the store, nearest asked"),
        (("--fit", "crop"), "fit: stretch in the store, crop asked"),
        (("--preprocessing", "rescale"), "preprocessing: keras in the store, rescale asked"),
        (("--pooling", "max"), "pooling: avg in the store, max asked"),
        (("--dtype", "float16"), "dtype: float32 in the store, float16 asked"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_plan_names_the_field_that_makes_every_image_a_miss(
    option: tuple[str, ...], field: str, photos: Path, bases: Bases
) -> None:
    good("extract", photos, "--precision", "float32")
    value = good("plan", photos, "--precision", "float32", *option, "--json").json
    check("plan", value, PLAN)
    [spec] = value["specs"]
    assert (spec["hits"], spec["to_compute"]) == (0, ROWS)
    [(reason, count)] = spec["misses"].items()
    assert reason.startswith(field)
    assert "; " not in reason, "one field differs"
    assert count == ROWS
    assert len(bases.opened) == 1, "planning opened a base"


def test_plan_tells_what_many_images_would_need(photos: Path, bases: Bases) -> None:
    words = ("--image-size", "64", "--scale", "100M", "--per-hour", "2", "--per-gib-month", "1")
    found = good("plan", photos, *words)
    assert "100,000,000 images like these 36" in found.out
    assert "a rough guess before the first run" in found.out
    assert "limit" in found.out
    value = good("plan", photos, *words, "--json").json
    check("plan", value, PLAN | SCALE)
    [spec] = value["scale"]["specs"]
    assert spec["cost"] == pytest.approx(2 * spec["hours"]["1"])
    assert spec["asked"]["bytes"] == 10**8 * (35 + 6 * 4)
    for option in (("--scale", "many"), ("--per-hour", "2")):
        assert run("plan", photos, *option).code == 2


def test_plan_tells_new_images_from_copies_and_writes_no_row(photos: Path, bases: Bases) -> None:
    good("extract", photos)
    (photos / "train" / "cats" / "new.png").write_bytes(png(seed=99))
    (photos / "train" / "dogs" / "copy.png").write_bytes(png(seed=99))
    for _ in range(2):
        [spec] = good("plan", photos, "--json").json["specs"]
        assert spec["misses"] == {"new image": 1, "copy of another new image": 1}
        assert (spec["hits"], spec["to_compute"]) == (ROWS, 1)
    assert segments(Path(default_store())) == 1


def test_train_prints_what_the_documentation_says(photos: Path, tmp_path: Path, bases: Bases) -> None:
    value = good("train", photos, "-b", "vgg16", "-b", "xception", "--out", tmp_path / "bundles", "--json").json
    check("train", value, RESULT)
    heads = [(result["backbone"], result["head"]) for result in value["results"]]
    assert set(heads) == {(base, head) for base in ("vgg16", "xception") for head in ("logreg", "linear-svm")}
    assert [result["test"] is not None for result in value["results"]] == [True, False, False, False]
    for result in value["results"]:
        assert result["chosen_on"] == "validation"
        assert result["params"].keys() == {"C"}
        low, high = result["held_out"]["accuracy"]["interval"]
        assert 0 <= low <= result["held_out"]["accuracy"]["value"] <= high <= 1
        assert result["held_out"]["n"] == 12
        card = read_bundle(Path(result["bundle"])).card
        assert [spec.fingerprint for spec in card.specs] == result["fingerprints"]


def test_sweep_prints_what_the_documentation_says_and_goes_on_where_it_stopped(
    photos: Path, tmp_path: Path, bases: Bases
) -> None:
    words = ("sweep", photos, "-b", "vgg16", "--head", "logreg", "--head", "knn", "--out", tmp_path / "out", "--json")
    value = good(*words).json
    check("sweep", value, RESULT)
    assert {(result["pooling"], result["head"]) for result in value["results"]} == {
        (pooling, head) for pooling in ("avg", "max", "flatten") for head in ("logreg", "knn")
    }
    assert [Path(result["bundle"]).is_dir() for result in value["results"] if result["bundle"]] == [True]
    again = good(*words).json
    seconds = [[result["choose_seconds"] for result in found["results"]] for found in (value, again)]
    assert seconds[0] == seconds[1]


SMALL = ("--weights", "random:0", "--image-size", "32", "--precision", "float32")


def test_live_prints_what_the_documentation_says(photos: Path, tmp_path: Path, own_cache: None) -> None:
    done = good("live", photos, *SMALL, "--way", "scratch", "--epochs", "1", "--out", tmp_path / "out", "--json")
    fields = {"name", "way", "curve", "trainable", "total", "seconds", "cut_short", "base_images", "base_seconds"}
    check(
        "live",
        done.json,
        {*fields, "peak_bytes", "bytes", "bundle", "base", "notes", "picture", *members("held_out", METRICS)},
    )


def test_compare_prints_what_the_documentation_says(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: None
) -> None:
    request = Request("vgg16", weights="random:0", image_size=32, precision="float32")
    ways = (
        Way("cached", LivePlan("frozen", request), "logreg"),
        Way("scratch", LivePlan("scratch", request, epochs=1)),
    )
    monkeypatch.setattr(Contest, "ways", ways)
    done = good("compare", photos, *SMALL, "--out", tmp_path / "out", "--json")
    fields = {"name", "head", "seconds", "base_seconds", "train_seconds", "base_images", "peak_bytes", "cut_short"}
    told = {"against_cheapest", "held_out", "test", "bytes", "epochs", "bundle", "accuracies"}
    check("compare", done.json, {"dataset", "best", "notes", "page", *members("results[]", fields | told)})
    assert Path(done.json["page"]).is_file()
    assert "against cheapest" in done.err


def test_train_without_splits_of_ones_own_has_one_by_content(tmp_path: Path, bases: Bases) -> None:
    folder = class_folders(tmp_path / "photos", splits=("",), count=60)
    [result] = good("train", folder, "--head", "logreg", "--out", tmp_path / "b", "--json").json["results"]
    [again] = good("train", folder, "--head", "logreg", "--out", tmp_path / "b", "--json").json["results"]
    assert result["held_out"]["n"] + result["test"]["n"] < 120
    assert (again["bundle"], again["test"]) == (result["bundle"], result["test"])


def test_predict_prints_what_the_documentation_says(bundle: Path, photos: Path, tmp_path: Path, bases: Bases) -> None:
    known, new, bad = photos / "test" / "cats" / "0.png", tmp_path / "new.png", tmp_path / "bad.png"
    new.write_bytes(png(seed=99))
    bad.write_bytes(b"no picture")
    value = good("predict", bundle, known, new, bad, "--json").json
    check("predict", value, PREDICT)
    assert [prediction["path"] for prediction in value["predictions"]] == [str(known), str(new), str(bad)]
    assert [prediction["from_cache"] for prediction in value["predictions"]] == [True, False, False]
    assert [prediction["rejected"] for prediction in value["predictions"]] == [None, None, "not-an-image"]
    assert value["predictions"][2]["label"] is None
    for prediction in value["predictions"][:2]:
        assert prediction["probabilities"].keys() == {"cats", "dogs"}
        assert sum(prediction["probabilities"].values()) == pytest.approx(1)
        assert prediction["label"] == max(prediction["probabilities"], key=prediction["probabilities"].get)


def test_a_copy_under_another_name_is_predicted_from_the_cache_as_in_training(
    bundle: Path, photos: Path, tmp_path: Path, bases: Bases
) -> None:
    table = load_table(photos, split="test")
    expected = read_bundle(bundle).probabilities(table.X)
    copies = tmp_path / "copies"
    copies.mkdir()
    for i, path in enumerate(table.paths):
        shutil.copy(photos / path, copies / f"{i}.png")
    opened = len(bases.opened)
    found = good("predict", bundle, *(copies / f"{i}.png" for i in range(12)), "--json").json["predictions"]
    assert np.array_equal([list(prediction["probabilities"].values()) for prediction in found], expected)
    assert all(prediction["from_cache"] for prediction in found)
    assert len(bases.opened) == opened


def test_predict_without_json_is_a_table_on_stdout(bundle: Path, photos: Path) -> None:
    out = good("predict", bundle, photos / "test").out
    assert all(f"test/{name}/{i}.png" in out or f"{name}/{i}.png" in out for name in ("cats", "dogs") for i in range(6))
    assert "cached" in out


def test_a_name_that_is_no_utf8_can_be_predicted_and_printed(bundle: Path, photos: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd-\udcff.png"
    shutil.copy(photos / "test" / "cats" / "0.png", odd)
    [prediction] = good("predict", bundle, odd, "--json").json["predictions"]
    assert prediction["path"].endswith("odd-\\xff.png")
    assert "odd-" in good("predict", bundle, odd).out


def test_predict_with_a_pattern_and_csv_writes_a_line_an_image(bundle: Path, photos: Path, tmp_path: Path) -> None:
    pattern, file = photos / "test" / "**" / "*.png", tmp_path / "found.csv"
    done = good("predict", bundle, pattern, "--csv", file, "--top", "1")
    assert (done.out, "12 images" in done.err) == ("", True)
    printed = good("predict", bundle, pattern, "--csv", "-", "--top", "1")
    assert printed.out == file.read_text()
    lines = list(csv.DictReader(printed.out.splitlines()))
    value = good("predict", bundle, pattern, "--json").json["predictions"]
    assert [(line["path"], line["label"]) for line in lines] == [(one["path"], one["label"]) for one in value]
    assert [float(line["probability"]) for line in lines] == [max(one["probabilities"].values()) for one in value]


def test_evaluate_prints_what_the_documentation_says(photos: Path, tmp_path: Path, bases: Bases) -> None:
    trained = good("train", photos, "--out", tmp_path / "bundles", "--json").json["results"]
    shutil.copy(photos / "train" / "cats" / "0.png", photos / "test" / "cats" / "copy.png")
    (photos / "test" / "birds").mkdir()
    (photos / "test" / "birds" / "0.png").write_bytes(png(seed=7))
    (photos / "test" / "cats" / "bad.png").write_bytes(b"no picture")
    opened = bases.computed
    value = good("evaluate", photos, *(result["bundle"] for result in trained), "--json").json
    check("evaluate", value, EVALUATE)
    assert bases.computed == opened
    assert (value["split"], value["images"], value["reasons"]) == ("test", 14, {"not-an-image": 1})
    assert value["results"][0]["unknown_classes"] == {"birds": 1}
    table = good("evaluate", photos, trained[0]["bundle"])
    assert "called cats" in table.out
    assert "note the head does not know 'birds'" in table.err


def test_evaluate_on_a_split_that_is_not_there_is_one_message(bundle: Path, photos: Path) -> None:
    shutil.rmtree(photos / "test")
    refused(2, "evaluate", photos, bundle, "--split", "test", says=("no labelled image", "validation", "all"))


def test_submit_writes_the_file_whole_once_and_prints_what_the_documentation_says(
    bundle: Path, photos: Path, tmp_path: Path
) -> None:
    file, images = tmp_path / "submission.csv", photos / "test" / "cats"
    (images / "10.png").write_bytes(b"no picture")
    value = good("submit", bundle, images, "--to", file, "--json").json
    check("submit", value, SUBMIT)
    assert (value["rows"], value["positive"], value["columns"]) == (7, "dogs", ["id", "label"])
    lines = list(csv.DictReader(file.read_text().splitlines()))
    assert [line["id"] for line in lines] == ["0", "1", "2", "3", "4", "5", "10"]
    bound = value["clip"]
    assert all(bound <= float(line["label"]) <= 1 - bound for line in lines)
    before = file.read_bytes()
    refused(2, "submit", bundle, images, "--to", file, "--clip", "0.3", says=("there already", "--force"))
    assert file.read_bytes() == before
    good("submit", bundle, images, "--to", file, "--clip", "0.3", "--force")
    assert {line["label"] for line in csv.DictReader(file.read_text().splitlines())} <= {"0.3", "0.7"} | {
        line["label"] for line in lines
    }


def test_extract_profile_says_where_the_time_went(photos: Path, bases: Bases) -> None:
    done = good("extract", photos, "--profile", "--json")
    found = {"stages[]", "limit", "busy", "advice", *members("stages[]", {"name", "seconds", "share"})}
    check("extract", done.json, {"specs[]", "stages", *members("profile", found)})
    assert "the base was busy for" in done.err
    again = good("extract", photos, "--profile", "--json").json["profile"]
    assert again["limit"] in ("scan", "read")
    assert again["advice"] == ["nothing was left to compute: the time went into looking at files"]


def test_store_ls_prints_what_the_documentation_says(photos: Path, bases: Bases) -> None:
    assert good("store", "ls", "--json").json == {"namespaces": []}
    good("extract", photos, "-b", "vgg16", "-b", "xception", "--image-size", "80")
    value = good("store", "ls", "--json").json
    check("store ls", value, {"namespaces[]", *members("namespaces[]", LS)})
    assert sorted(n["backbone"] for n in value["namespaces"]) == ["vgg16", "xception"]
    assert all(n["rows"] == ROWS and n["image_size"] == [80, 80] and not n["damaged"] for n in value["namespaces"])


def damage_a_segment() -> Path:
    [segment] = Path(default_store()).glob("ns/*/seg/*.h5")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    return segment


def test_what_is_not_part_of_a_store_is_named_without_commanding_the_terminal(photos: Path, bases: Bases) -> None:
    good("extract", photos)
    folder = next((Path(default_store()) / "ns").rglob("seg"))
    (folder / "odd\n\x1b[31m").write_bytes(b"x")
    done = run("store", "verify")
    assert (done.code, "\x1b" in done.out) == (1, False)
    assert r"odd\n\x1b[31m: it is not part of a store: remove it" in " ".join(done.out.split())
    assert "run extract again" not in done.out


def test_store_verify_finds_damage_prints_it_and_exits_with_1(photos: Path, bases: Bases) -> None:
    good("extract", photos)
    sound = good("store", "verify", "--read-data", "--recompute", "2", "--json").json
    assert (sound["sound"], sound["rows"], sound["read_data"]) == (True, ROWS, True)
    segment = damage_a_segment()
    done = run("store", "verify", "--read-data", "--recompute", "2", "--json")
    assert done.code == 1
    check("store verify", done.json, VERIFY)
    assert [problem["path"] for problem in done.json["problems"]] == [str(segment)]
    assert done.json["sound"] is False


def test_damage_is_set_aside_computed_again_and_then_sound(photos: Path, bases: Bases) -> None:
    good("extract", photos)
    damage_a_segment()
    done = good("extract", photos, "--json").json
    assert done["store"]["quarantined"] == 1
    assert done["specs"][0]["computed"] == ROWS
    value = good("store", "verify", "--read-data", "--json").json
    assert (value["sound"], value["quarantined"], value["rows"]) == (True, 1, ROWS)


def test_store_compact_prints_what_the_documentation_says(photos: Path, bases: Bases) -> None:
    for split in ("train", "validation", "test"):
        good("extract", photos / split)
    done = good("store", "compact", "--json").json
    check("store compact", done, {"dropped", *members("segments", {"before", "after"}), *members("bytes", {"before"})})
    assert done["segments"] == {"before": 3, "after": 1}
    assert good("extract", photos, "--json").json["specs"][0]["computed"] == 0
    assert good("store", "compact").out == "1 segment: nothing to join\n"
    assert good("store", "verify", "--read-data", "--json").json["sound"]


def test_store_gc_prints_what_the_documentation_says(photos: Path, bases: Bases) -> None:
    good("extract", photos)
    damage_a_segment()
    good("extract", photos)
    before = good("store", "ls", "--json").json
    counted = good("store", "gc", "--keep", photos / "train", "--dry-run", "--json").json
    check("store gc", counted, {"quarantined", "leftovers", "caches", "rows", "bytes", "dry_run"})
    assert (counted["quarantined"], counted["rows"], counted["dry_run"]) == (1, ROWS - 12, True)
    assert good("store", "ls", "--json").json == before
    assert "1 segment set aside, 24 rows removed: " in good("store", "gc", "--keep", photos / "train").out
    assert good("store", "gc").out == "nothing to remove\n"
    assert good("extract", photos / "train", "--json").json["specs"][0]["computed"] == 0
    assert good("extract", photos, "--json").json["specs"][0]["computed"] == ROWS - 12


@pytest.mark.parametrize("ending", ["h5", "npz", "parquet"])
def test_store_export_prints_what_the_documentation_says(
    ending: str, photos: Path, tmp_path: Path, bases: Bases
) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    good("extract", photos)
    target = tmp_path / f"features.{ending}"
    value = good("store", "export", photos, "--to", target, "--json").json
    check("store export", value, {"file", "splits"})
    assert value == {"file": str(target), "splits": {"train": 12, "validation": 12, "test": 12}}
    assert target.stat().st_size > ROWS * 6 * 4
    assert [path.name for path in tmp_path.glob("*.*")] == [target.name]


@pytest.fixture
def cached_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of featstore with weights of its own, small ones."""
    from dataclasses import replace

    from featstore.weights import cache, tensor_digest
    from tests.stubs import stub_base

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tensors = [np.arange(12, dtype=np.float32).reshape(3, 4)]
    return cache.write("vgg16.imagenet", replace(stub_base(), digest=tensor_digest(tensors)), tensors).tensors


def test_weights_ls_pull_and_verify_print_what_the_documentation_says(cached_weights: Path) -> None:
    listed = good("weights", "ls", "--json").json
    check("weights ls", listed, WEIGHTS)
    assert [(w["backbone"], w["path"]) for w in listed["weights"]] == [("vgg16", str(cached_weights))]
    pulled = good("weights", "pull", "vgg16", "--json").json
    check("weights pull", pulled, WEIGHTS)
    assert pulled == listed, "what is cached and sound is not fetched again"
    value = good("weights", "verify", "--json").json
    check("weights verify", value, VERDICTS)
    assert [w["problem"] for w in value["weights"]] == [None]


def test_weights_verify_finds_a_changed_byte_and_exits_with_1(cached_weights: Path) -> None:
    data = bytearray(cached_weights.read_bytes())
    data[data.index(np.float32(7).tobytes())] ^= 1
    cached_weights.write_bytes(data)
    done = run("weights", "verify", "--json")
    assert done.code == 1
    assert done.json["weights"][0]["problem"]


def test_doctor_prints_what_the_documentation_says(tmp_path: Path) -> None:
    value = good("doctor", "--store", tmp_path / "not" / "yet", "--json").json
    check("doctor", value, {"facts", "advice"})
    assert {"CPU", "GPU", "runtimes", "will run on", "weights here", "store"} <= value["facts"].keys()
    assert "not made yet" in value["facts"]["store"]
    assert not (tmp_path / "not").exists()


def test_results_for_people_go_to_stderr(photos: Path, bases: Bases) -> None:
    done = good("extract", photos)
    assert done.out == ""
    assert f"{ROWS}" in done.err


# ---- refusals --------------------------------------------------------------------------------------------------------


def refused(code: int, *arguments: object, says: tuple[str, ...]) -> None:
    """The command fails with ``code`` and one message that has all of the words, and leaves no store."""
    done = run(*arguments)
    assert done.code == code, done.err
    missing = [word for word in says if word not in done.message]
    assert not missing, f"{missing} not in: {done.message}"


@pytest.fixture
def no_store() -> Iterator[None]:
    """Nothing may have been written to the store when the test ends."""
    yield
    assert not Path(default_store()).exists()


def empty(folder: Path) -> Path:
    (folder / "nothing" / "in").mkdir(parents=True)
    return folder / "nothing"


def texts(folder: Path) -> Path:
    (folder / "texts").mkdir()
    for name in ("a.txt", "b.md", "c"):
        (folder / "texts" / name).write_text("words")
    return folder / "texts"


def one_class(folder: Path) -> Path:
    target = class_folders(folder / "photos")
    for split in ("train", "validation", "test"):
        shutil.rmtree(target / split / "dogs")
    return target


def unlabelled(folder: Path) -> Path:
    (folder / "flat").mkdir()
    for i in range(3):
        (folder / "flat" / f"{i}.png").write_bytes(png(i))
    return folder / "flat"


@pytest.mark.parametrize("command", ["extract", "plan", "train"])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: folder / "missing", ("does not exist", "missing")),
        (empty, ("no files", "nothing")),
        (texts, ("no images", "a.txt", "3 files")),
        (lambda folder: texts(folder) / "a.txt", ("not a dataset", "a.txt")),
    ],
    ids=["missing", "empty", "texts", "a text file"],
)
@pytest.mark.usefixtures("bases", "no_store")
def test_data_without_images_is_one_message(
    command: str, make: Callable[[Path], Path], says: tuple[str, ...], tmp_path: Path
) -> None:
    refused(2, command, make(tmp_path), says=says)


def test_a_missing_folder_has_its_nearest_name_proposed(photos: Path) -> None:
    refused(2, "extract", photos.with_name("photo"), says=("did you mean photos",))


@pytest.mark.parametrize(
    ("make", "says"),
    [(one_class, ("one class only", "cats", "at least two classes")), (unlabelled, ("no image has a label",))],
    ids=["one class", "no labels"],
)
@pytest.mark.usefixtures("no_store")
def test_a_dataset_that_cannot_be_trained_on_is_refused_before_any_work(
    make: Callable[[Path], Path], says: tuple[str, ...], tmp_path: Path, bases: Bases
) -> None:
    refused(2, "train", make(tmp_path), "--out", tmp_path / "bundles", says=says)
    assert not bases.opened
    assert not (tmp_path / "bundles").exists()


def test_one_class_is_no_obstacle_to_extracting(tmp_path: Path, bases: Bases) -> None:
    assert good("extract", one_class(tmp_path), "--json").json["specs"][0]["computed"] == 18


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--image-size", "31"), ("too small for vgg16", "at least 32", "31")),
        (("-b", "xception", "--image-size", "70x299"), ("too small for xception", "at least 71", "70")),
        (("--image-size", "large"), ("no image size", "large")),
        (("--image-size", "0"), ("no image size", "0")),
        (("--layer", "block4_pol"), ("unknown layer 'block4_pol'", "did you mean block4_pool", "vgg16")),
        (("--label-pattern", "(cat"), ("label_pattern", "(cat")),
    ],
    ids=str,
)
@pytest.mark.usefixtures("bases", "no_store")
def test_an_option_that_cannot_be_is_one_message(
    options: tuple[str, ...], says: tuple[str, ...], photos: Path, tmp_path: Path
) -> None:
    data = unlabelled(tmp_path) if "--label-pattern" in options else photos
    refused(2, "extract", data, *options, says=says)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("vgg61", ("unknown backbone 'vgg61'", "vgg16", "did you mean")),
        ("resnet5", ("unknown backbone", "resnet50")),
        ("missing.keras", ("missing.keras",)),
        ("weights.h5", (".keras", "weights.h5")),
    ],
)
@pytest.mark.usefixtures("no_store")
def test_an_unknown_backbone_is_one_message_with_the_nearest_names(
    name: str, says: tuple[str, ...], photos: Path
) -> None:
    refused(2, "extract", photos, "--backbone", name, says=says)


@pytest.mark.usefixtures("no_store")
def test_weights_of_the_wrong_shapes_are_told_by_tensor_expected_and_found(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "mine.npz"
    np.savez(file, np.zeros((3, 3, 3, 64), np.float32), np.zeros(65, np.float32))
    says = ("these weights are not vgg16's", "mine.npz", "block1_conv1/bias (64,)", "(65,)")
    refused(2, "extract", photos, "--weights", file, says=says)
    assert not (tmp_path / "cache" / "featstore").exists(), "wrong weights were cached"


@pytest.mark.usefixtures("no_store")
def test_weights_that_are_not_there_are_one_message(photos: Path, tmp_path: Path) -> None:
    refused(2, "extract", photos, "--weights", tmp_path / "none.h5", says=("no such weights", "none.h5"))


@pytest.mark.usefixtures("no_store")
def test_an_unknown_head_is_refused_before_any_work(photos: Path, tmp_path: Path, bases: Bases) -> None:
    refused(2, "train", photos, "--head", "logreq", "--out", tmp_path / "b", says=("unknown head", "logreg"))
    assert not bases.opened


ON_A_STORE = [("extract", "PHOTOS"), ("plan", "PHOTOS"), ("train", "PHOTOS"), ("store", "ls"), ("store", "verify")]


@pytest.mark.parametrize("command", ON_A_STORE, ids=" ".join)
@pytest.mark.usefixtures("bases", "no_store")
def test_a_store_of_a_future_format_is_refused_and_left_alone(
    command: tuple[str, ...], photos: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "FORMAT").write_text("featstore store, format 3\n")
    words = [photos if word == "PHOTOS" else word for word in command]
    refused(2, *words, "--store", store, says=("format 3", "format 2", str(store)))
    assert [path.name for path in store.rglob("*")] == ["FORMAT"]


@pytest.mark.parametrize("command", ON_A_STORE, ids=" ".join)
@pytest.mark.usefixtures("bases", "no_store")
def test_a_folder_of_something_else_is_no_store_and_left_alone(
    command: tuple[str, ...], photos: Path, tmp_path: Path
) -> None:
    store = tmp_path / "letters"
    store.mkdir()
    (store / "letter.txt").write_text("Dear …")
    words = [photos if word == "PHOTOS" else word for word in command]
    refused(2, *words, "--store", store, says=("not a featstore store", "letter.txt"))
    assert [path.name for path in store.rglob("*")] == ["letter.txt"]


@pytest.mark.usefixtures("bases", "no_store")
def test_a_file_is_no_store(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("words")
    refused(2, "extract", photos, "--store", tmp_path / "file", says=("not a featstore store", "a file"))


def test_predict_with_a_bundle_that_is_not_there_is_one_message(photos: Path, tmp_path: Path) -> None:
    says = ("not a bundle", "nothing there", "featstore train")
    refused(2, "predict", tmp_path / "none", photos / "test", says=says)


@pytest.mark.parametrize("file", ["head.npz", "card.json"])
def test_predict_with_a_bundle_that_was_changed_exits_with_1(file: str, bundle: Path, photos: Path) -> None:
    data = bytearray((bundle / file).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / file).write_bytes(data)
    refused(1, "predict", bundle, photos / "test", says=(file, str(bundle)))


def test_predict_with_a_bundle_of_a_future_version_is_one_message(bundle: Path, photos: Path) -> None:
    card = json.loads((bundle / "card.json").read_text())
    (bundle / "card.json").write_text(json.dumps({**card, "version": card["version"] + 1}))
    refused(2, "predict", bundle, photos / "test", says=("another version", str(card["version"] + 1)))


def test_predict_of_images_that_are_not_there_is_one_message(bundle: Path, tmp_path: Path) -> None:
    refused(2, "predict", bundle, tmp_path / "none.png", tmp_path / "*.gif", says=("none.png", "*.gif"))


def test_json_and_csv_cannot_both_go_to_stdout(bundle: Path, photos: Path) -> None:
    done = run("predict", bundle, photos / "test", "--csv", "-", "--json")
    assert (done.code, done.out) == (2, "")
    assert "--csv" in done.err


def test_predict_with_other_weights_than_the_heads_is_refused(
    bundle: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featstore import job
    from tests.stubs import stub_base

    monkeypatch.setattr(job, "resolve", lambda name, weights="imagenet", *, progress=None: stub_base(name, "others"))
    refused(2, "predict", bundle, photos / "test", says=("weights", "expected", "received"))


def test_an_export_to_an_unknown_ending_names_the_known_ones(photos: Path, tmp_path: Path, bases: Bases) -> None:
    good("extract", photos)
    says = ("unknown file ending", ".h5", ".npz", ".parquet")
    refused(2, "store", "export", photos, "--to", tmp_path / "features.csv", says=says)
    assert not (tmp_path / "features.csv").exists()


@pytest.mark.parametrize("name", ["parquet", "parquet/", "features.parquet/"])
def test_an_export_to_a_folder_is_parquet_by_split(name: str, photos: Path, tmp_path: Path, bases: Bases) -> None:
    dataset = pytest.importorskip("pyarrow.dataset")
    good("extract", photos)
    value = good("store", "export", photos, "--to", f"{tmp_path}/{name}", "--json").json
    check("store export", value, {"file", "splits"})
    assert value == {"file": str(tmp_path / name), "splits": {"train": 12, "validation": 12, "test": 12}}
    read = dataset.dataset(tmp_path / name, partitioning="hive").to_table()
    assert sorted(set(read["split"].to_pylist())) == ["test", "train", "validation"]
    assert read.num_rows == 36


def test_an_export_does_not_touch_a_folder_of_somebody_elses(photos: Path, tmp_path: Path, bases: Bases) -> None:
    pytest.importorskip("pyarrow")
    good("extract", photos)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    says = ("something else already", "name another place")
    refused(2, "store", "export", photos, "--to", tmp_path / "mine", says=says)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


@pytest.mark.usefixtures("bases")
def test_an_export_of_what_was_never_extracted_says_what_to_do(photos: Path, tmp_path: Path) -> None:
    refused(2, "store", "export", photos, "--to", tmp_path / "x.npz", says=("featstore extract",))
    assert not (tmp_path / "x.npz").exists()


def test_a_rejected_image_under_on_error_fail_exits_with_1_and_keeps_the_rows(photos: Path, bases: Bases) -> None:
    (photos / "validation" / "cats" / "0.png").write_bytes(b"no picture")
    says = ("1 image was rejected", "validation/cats/0.png", "not-an-image", "--on-error skip")
    refused(1, "extract", photos, "--on-error", "fail", "--workers", "1", says=says)
    assert good("store", "ls", "--json").json["namespaces"][0]["rejects"] == 1
    assert good("extract", photos, "--json").json["specs"][0]["rejected"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("extract",),
        ("extract", "photos", "--resize", "cubic"),
        ("extract", "photos", "--workers", "0"),
        ("extract", "photos", "--no-such-option"),
        ("store", "verify", "--recompute", "-1"),
        ("no-such-command",),
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2_and_says_so_on_stderr(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert "Usage: " in done.err
    assert "Traceback" not in done.err


# ---- help ------------------------------------------------------------------------------------------------------------


def commands(command: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command."""
    command = command or typer.main.get_command(cli.app)
    inner = getattr(command, "commands", {})
    if not inner:
        yield words
    for name in inner:
        yield from commands(inner[name], (*words, name))


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_has_help_with_an_example(words: tuple[str, ...]) -> None:
    done = good(*words, "--help")
    assert done.err == ""
    text = " ".join(done.out.split())
    assert re.search(rf"Examples?: featstore {' '.join(words)}\b", text), text[:600]


@pytest.mark.parametrize("words", [(), ("store",), ("weights",), ("heads",)], ids=" ".join)
def test_a_group_lists_its_commands(words: tuple[str, ...]) -> None:
    out = good(*words, "--help").out
    inner = {c[len(words)] for c in commands() if c[: len(words)] == words}
    assert all(re.search(rf"\b{name}\b", out) for name in inner)


def test_the_version_is_printed() -> None:
    assert re.fullmatch(r"featstore \d+\.\d+\.\d+\S*\n", good("--version").out)


# ---- a process of its own --------------------------------------------------------------------------------------------


def test_a_process_that_refuses_prints_one_message_and_exits_with_2(tmp_path: Path) -> None:
    done = spawn("extract", tmp_path / "missing", "--json")
    assert done.code == 2
    assert done.message.startswith("this dataset does not exist\n")
    assert done.loaded == ()


def test_a_process_that_lists_a_store_prints_json_and_loads_no_network_library(tmp_path: Path) -> None:
    done = spawn("store", "ls", "--store", tmp_path / "none", "--json")
    assert (done.code, done.json, done.loaded) == (0, {"namespaces": []}, ())
    assert not (tmp_path / "none").exists()


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = spawn("--debug", "plan", tmp_path / "missing")
    assert done.code != 0
    assert "Traceback" in done.err
    assert "InputError" in done.err
    assert "Traceback" not in spawn("plan", tmp_path / "missing").err


@pytest.mark.parametrize("option", ["--out", "--report"])
def test_a_place_that_cannot_be_written_is_noticed_before_any_work(
    option: str, photos: Path, bases: Bases, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    refused = run("train", photos, "--head", "logreg", option, tmp_path / "file")
    assert (refused.code, bases.computed) == (2, 0)
    assert "results go to a folder" in refused.message
    assert not list(tmp_path.glob("**/*.npz"))


def test_a_seed_below_0_is_bad_input(photos: Path, bases: Bases) -> None:
    assert run("train", photos, "--seed", -1).code == 2


def test_grids_are_tried_and_a_bad_one_stops_before_any_work(photos: Path, bases: Bases, tmp_path: Path) -> None:
    words = ("--head", "knn", "--grid", "knn.k=1,3", "--grid", "knn.weights=uniform", "--out", tmp_path / "b", "--json")
    for command in ("train", "sweep"):
        [result, *_] = good(command, photos, *words).json["results"]
        assert result["params"]["k"] in (1, 3)
    refused = run("train", photos / "elsewhere", "--head", "knn", "--grid", "knn.k=many")
    assert refused.code == 2
    computed = bases.computed
    refused = run("sweep", photos, "-b", "resnet50", "--head", "knn", "--grid", "knn.k=many")
    assert (refused.code, bases.computed) == (2, computed)
    assert "this is no value of knn.k" in refused.message


def test_top5_prints_what_the_documentation_says(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featstore.top5.class_names", lambda _: tuple(f"name {i}" for i in range(1000)))
    picture, bad = next((photos / "train").glob("*/*.png")), photos / "bad [red].png"
    bad.write_bytes(b"no picture")
    words = ("top5", picture, bad, "-b", "mobilenet", "--weights", "random:0")
    value = good(*words, "--top", 3, "--json").json
    check("top5", value, TOP5)
    assert [len(image["classes"]) for image in value["images"]] == [3, 0]
    assert [image["rejected"] for image in value["images"]] == [None, "not-an-image"]
    out = good(*words).out
    assert out.count("name ") == 5
    assert re.search(r"bad \[red\].png +rejected: not-an-image", out)
    refused(2, "top5", picture, "-b", "mobilenet", "--weights", "nowhere.h5", says=("no such weights", "nowhere.h5"))


def test_demo_prints_a_leaderboard_beside_raw_pixels_and_computes_nothing_twice(
    tmp_path: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featstore.weights.resolve", lambda name, **_: stub_base(name))
    done = good("demo", "--folder", tmp_path / "demo", "--json")
    value = done.json
    assert set(value) == {"folder", "images", "runs", "results", "pairs", "leaks", "notes", "report", "seconds"}
    assert [run["computed"] for run in value["runs"]] == [2 * 1020, 0]
    heads = sorted(result["backbone"] for result in value["results"])
    assert heads == ["raw pixels", "vgg16", "vgg16", "xception", "xception"]
    assert "The same again: 0 rows computed" in done.err
    assert "featstore predict" in done.err
    assert list((tmp_path / "demo" / "bundles").iterdir())


def test_demo_without_weights_writes_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("FEATSTORE_OFFLINE", "1")
    done = run("demo")
    assert done.code == 2
    assert "FEATSTORE_OFFLINE" in done.err
    assert list(tmp_path.iterdir()) == []
