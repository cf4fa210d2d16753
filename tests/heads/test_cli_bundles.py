"""`featstore heads …` as people and scripts meet it. Bundles are made by hand; the base of an export is a tiny one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from heads.bundles.card import Card
from heads.kinds.linear import LinearHead
from tests.commands import good, run, spawn
from tests.heads.bundles.make import write_bundle
from tests.heads.export.conftest import (
    MakeBundle,
    features,
    make_bundle,
    no_network,
    private_cache,
    tiny,
    tiny_file,
    tiny_spec,
)
from tests.pictures import class_folders
from tests.test_cli import METRICS, check, members, refused

__all__ = ["features", "make_bundle", "no_network", "private_cache", "tiny", "tiny_file", "tiny_spec"]

LS = {
    "bundles[]",
    *members("bundles[]", {"path", "bytes", "problem", "backbone", "pooling", "head", "params", "classes", "rows"}),
    *members("bundles[]", {"chosen_on", "held_out", "test", "held_out.value", "held_out.interval"}),
}
SHOW = {
    *("path", "files", "strange_files", "head", "format", "params", "seed", "balanced", "features[]", "classes"),
    *("calibration", "clip", "chosen_on", "trials[]", "held_out", "test", "trained_on", "versions"),
    *members("features[]", {"backbone", "weights", "width", "fingerprint", "spec"}),
    *members("trained_on", {"splits", "rows", "sha256", "segments"}),
    *members("trials[]", {"params", "score", "score.accuracy", "score.interval", "score.n"}),
    *members("held_out", METRICS),
}
CHECK = {"library", "images", "drawn", "difference", "tolerance", "precision", "difference_there"}
EXPORT = {
    *("file", "format", "bytes", "inputs[]", "output", "classes", "check"),
    *members("inputs[]", {"name", "image_size"}),
    *members("check", CHECK),
}


@pytest.fixture
def path(bundles: Path, card: Card, head: LinearHead) -> Path:
    return write_bundle(bundles, replace(card, test=card.held_out), head)


def test_ls_prints_what_the_documentation_says(path: Path) -> None:
    shutil.copytree(path, path.parent / "z")
    (path.parent / "z" / "head.npz").write_bytes(b"")
    done = run("heads", "ls", path.parent, "--json")
    assert done.code == 1, "a check found damage"
    value = done.json
    check("heads ls", value, LS)
    assert [one["problem"] is None for one in value["bundles"]] == [True, False]


def test_ls_without_json_is_a_table_on_stdout_and_an_empty_place_is_no_error(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = good("heads", "ls")
    assert "vgg16-avg-logreg-" in done.out
    assert done.err == ""
    (tmp_path / "empty").mkdir()
    assert "featstore train" in good("heads", "ls", "empty").out


def test_ls_of_a_folder_that_is_not_there_is_one_message(tmp_path: Path) -> None:
    refused(2, "heads", "ls", tmp_path / "no", says=("no such folder", "nothing there"))


def test_show_prints_what_the_documentation_says(path: Path) -> None:
    check("heads show", good("heads", "show", path, "--json").json, SHOW)
    assert "validation, 30 images" in good("heads", "show", path).out


def test_show_of_a_changed_bundle_exits_with_1(path: Path) -> None:
    (path / "rows.npz").write_bytes(b"")
    refused(1, "heads", "show", path, says=("rows.npz", "changed after it was written"))


def test_ls_and_show_load_no_network_library(path: Path) -> None:
    for words in (("ls", path.parent), ("show", path)):
        done = spawn("heads", *words, "--json")
        assert (done.code, done.loaded) == (0, ()), done.err


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_export_prints_what_the_documentation_says(make_bundle: MakeBundle, tmp_path: Path) -> None:
    photos = class_folders(tmp_path / "photos", ("test",), count=2)
    bundle = make_bundle("kernel").path
    value = good("heads", "export", bundle, "--to", tmp_path / "m.keras", "--check", photos, "--json").json
    check("heads export", value, EXPORT)
    assert (value["check"]["images"], value["check"]["drawn"]) == (4, False)
    assert Path(value["file"]).stat().st_size == value["bytes"]
    refused(2, "heads", "export", bundle, "--to", tmp_path / "m.keras", says=("something already", "--force"))
    done = good("heads", "export", bundle, "--to", tmp_path / "m.keras", "--force")
    assert "opened again by keras: 8 drawn pictures" in done.out


def test_an_export_to_an_unknown_ending_names_the_known_ones(path: Path, tmp_path: Path) -> None:
    refused(2, "heads", "export", path, "--to", tmp_path / "m.h5", says=(".keras", ".onnx", ".xml", "folder/"))
    assert run("heads", "export", path).code == 2
