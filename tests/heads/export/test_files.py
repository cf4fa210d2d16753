from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore.dataset import open_dataset
from featstore.errors import DamageError, InputError, NoSpaceError, ReadOnlyError
from featstore.weights import Base
from heads.export import files
from heads.export.files import TOLERANCE, export_bundle
from heads.export.formats import format_of
from tests.heads.export.conftest import ISOTONIC, MakeBundle
from tests.pictures import class_folders

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are written by a stub: for tests of what happens around the writing."""

    def write(model: Any, path: Path, about: str) -> None:
        path.write_text("model")
        path.with_suffix(".bin").write_text("weights")

    def kind(to: str) -> Any:
        known = format_of(to)
        return replace(known, write=write) if known.files else known

    monkeypatch.setattr(files, "format_of", kind)
    monkeypatch.setattr(files, "build_model", lambda bundle, bases: None)
    monkeypatch.setattr(files, "_differences", lambda *_: (0.0, None))


@pytest.mark.parametrize(
    ("to", "written"), [("m.keras", ["m.keras"]), ("m.xml", ["m.bin", "m.xml"]), ("m", ["m"]), ("m.onnx", ["m.onnx"])]
)
def test_a_bundle_becomes_a_checked_file_and_nothing_else(
    to: str, written: list[str], make_bundle: MakeBundle, out: Path
) -> None:
    if to.endswith("onnx"):
        pytest.importorskip("tf2onnx")
    done = export_bundle(make_bundle("nearer", ISOTONIC).path, str(out / to))
    assert names(out) == written
    assert done.difference <= 1e-5 < TOLERANCE
    assert (done.images, done.drawn, done.precision, done.difference_there) == (8, True, "float32", None)
    assert done.bytes == sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def test_it_is_checked_on_images_that_are_given(make_bundle: MakeBundle, out: Path, tmp_path: Path) -> None:
    photos = open_dataset(str(class_folders(tmp_path / "photos", ("test",), count=3)))
    done = export_bundle(make_bundle().path, str(out / "m.keras"), check=photos)
    assert (done.images, done.drawn) == (6, False)
    assert done.difference < 1e-5


def test_features_in_another_precision_are_compared_too(make_bundle: MakeBundle, out: Path) -> None:
    half = make_bundle().card.specs[0].but(dtype="float16")
    done = export_bundle(make_bundle("linear", None, half).path, str(out / "m.keras"))
    assert done.difference_there is not None
    assert done.difference < done.difference_there < 0.01


def test_a_precision_that_this_machine_lacks_is_no_obstacle(make_bundle: MakeBundle, out: Path) -> None:
    half = make_bundle().card.specs[0].but(precision="float16")
    done = export_bundle(make_bundle("linear", None, half).path, str(out / "m.keras"))
    assert (done.precision, done.difference_there) == ("float16", None)


@pytest.mark.parametrize("wrong", [1.5 * TOLERANCE, float("nan")])
def test_a_model_that_predicts_something_else_is_refused_and_not_kept(
    wrong: float, make_bundle: MakeBundle, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = format_of("m.keras")

    def open_wrong(path: Path) -> Any:
        predict = known.open(path)
        return lambda images: predict(images) + np.float32(wrong)

    monkeypatch.setattr(files, "format_of", lambda to: replace(known, open=open_wrong))
    with pytest.raises(DamageError, match="does not predict what the bundle predicts") as caught:
        export_bundle(make_bundle().path, str(out / "m.keras"))
    assert caught.value.exit_code == 1
    assert names(out) == []


def test_a_library_that_fails_is_one_message_and_leaves_nothing(
    make_bundle: MakeBundle, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no such operator\nand more")

    known = format_of("m.keras")
    monkeypatch.setattr(files, "format_of", lambda to: replace(known, write=fail))
    with pytest.raises(InputError, match="cannot write this head as Keras") as caught:
        export_bundle(make_bundle().path, str(out / "m.keras"))
    assert caught.value.received == "RuntimeError: no such operator"
    assert names(out) == []


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("there", ["m.xml", "m.bin"])
def test_what_is_there_is_only_replaced_by_force(there: str, make_bundle: MakeBundle, out: Path) -> None:
    bundle = make_bundle().path
    (out / there).write_text("mine")
    with pytest.raises(InputError, match="something already"):
        export_bundle(bundle, str(out / "m.xml"))
    assert (out / there).read_text() == "mine"
    export_bundle(bundle, str(out / "m.xml"), force=True)
    assert {name: (out / name).read_text() for name in names(out)} == {"m.xml": "model", "m.bin": "weights"}


@pytest.mark.usefixtures("fast")
def test_a_folder_of_something_else_is_not_replaced_even_by_force(make_bundle: MakeBundle, out: Path) -> None:
    (out / "photos").mkdir()
    (out / "photos" / "cat.jpg").touch()
    for to in ("photos", "photos/"):
        with pytest.raises(InputError, match="something else"):
            export_bundle(make_bundle().path, f"{out}/{to}", force=True)
    assert names(out / "photos") == ["cat.jpg"]


@pytest.mark.usefixtures("fast")
def test_a_place_that_does_not_exist_is_bad_input(make_bundle: MakeBundle, out: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        export_bundle(make_bundle().path, str(out / "no" / "m.xml"))


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(("code", "expected"), [(errno.ENOSPC, NoSpaceError), (errno.EACCES, ReadOnlyError)])
@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_disk_that_fails_at_any_move_leaves_what_was_there(
    call: int, code: int, expected: type[Exception], make_bundle: MakeBundle, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle().path
    for name in ("m.xml", "m.bin"):
        (out / name).write_text("mine")
    calls, replace_file = [], os.replace

    def failing(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) == call:
            raise OSError(code, "no")
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(expected):
        export_bundle(bundle, str(out / "m.xml"), force=True)
    assert {name: (out / name).read_text() for name in names(out)} == {"m.xml": "mine", "m.bin": "mine"}


def test_weights_that_are_not_the_bundles_are_refused(make_bundle: MakeBundle, out: Path, tiny: Base) -> None:
    other = make_bundle().card.specs[0].but(weights="1" * 64)
    with pytest.raises(InputError, match="weights are not"):
        export_bundle(make_bundle("linear", None, other).path, str(out / "m.keras"))
    assert names(out) == []


def test_the_json_is_the_documented_one(make_bundle: MakeBundle, out: Path) -> None:
    value = export_bundle(make_bundle().path, str(out / "m.keras")).to_json()
    assert value["inputs"] == [{"name": "images", "image_size": [24, 20]}]
    assert value["classes"] == ["cat", "naïve <b>", "\\xff"]
    assert value["check"]["tolerance"] == TOLERANCE
