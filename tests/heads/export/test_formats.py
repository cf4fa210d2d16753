from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore.errors import InputError
from featstore.weights import Base
from featstore.weights.own import inspect
from heads.export.check import drawn_pictures, exported_probabilities
from heads.export.files import about
from heads.export.formats import format_of, one_message
from heads.export.model import build_model, inputs_of
from tests.heads.export.conftest import ISOTONIC, MakeBundle

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TARGETS = ["m.keras", "m.onnx", "m.xml", "m"]


def text_inside(path: Path) -> str:
    """The JSON that each kind of file carries, read as a stranger would."""
    if path.suffix == ".keras":
        return zipfile.ZipFile(path).read("featstore.json").decode()
    if path.suffix == ".onnx":
        onnx = pytest.importorskip("onnx")
        return {entry.key: entry.value for entry in onnx.load(path).metadata_props}["featstore"]
    if path.suffix == ".xml":
        import openvino

        return str(openvino.Core().read_model(path).get_rt_info(["featstore"]).value)
    return (path / "assets.extra" / "featstore.json").read_text()


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("kind", ["linear", "dense", "kernel", "nearer"])
def test_a_file_that_its_own_library_opens_says_what_the_model_says(
    to: str, kind: str, make_bundle: MakeBundle, tiny: Base, tmp_path: Path
) -> None:
    if to.endswith("onnx"):
        pytest.importorskip("tf2onnx")
    bundle = make_bundle(kind, ISOTONIC)
    inputs = inputs_of(bundle.card.specs)
    model, images, text = build_model(bundle, [tiny]), drawn_pictures(inputs), about(bundle, inputs)
    known = format_of(to)
    with one_message("write", tmp_path):
        known.write(model, tmp_path / to, text)
        found = exported_probabilities(known.open(tmp_path / to), images)
    np.testing.assert_allclose(found, np.asarray(model(images["images"])), atol=1e-5)
    assert text_inside(tmp_path / to) == text


@pytest.mark.parametrize("to", TARGETS)
def test_two_inputs_are_asked_for_by_name(
    to: str, make_bundle: MakeBundle, tiny: Base, tiny_spec: Any, tmp_path: Path
) -> None:
    if to.endswith("onnx"):
        pytest.importorskip("tf2onnx")
    bundle = make_bundle("linear", None, tiny_spec, tiny_spec.but(image_size=(40, 32)))
    inputs = inputs_of(bundle.card.specs)
    model, images = build_model(bundle, [tiny, tiny]), drawn_pictures(inputs)
    known = format_of(to)
    with one_message("write", tmp_path):
        known.write(model, tmp_path / to, about(bundle, inputs))
        found = exported_probabilities(known.open(tmp_path / to), images)
    np.testing.assert_allclose(found, np.asarray(model([images["images_1"], images["images_2"]])), atol=1e-5)


def test_an_onnx_file_names_what_goes_in_and_what_comes_out(
    make_bundle: MakeBundle, tiny: Base, tmp_path: Path
) -> None:
    pytest.importorskip("tf2onnx")
    import onnxruntime

    known, path = format_of("m.onnx"), tmp_path / "m.onnx"
    with one_message("write", tmp_path):
        known.write(build_model(make_bundle("nearer"), [tiny]), path, "{}")
    session = onnxruntime.InferenceSession(path)
    assert [(i.name, i.shape, i.type) for i in session.get_inputs()] == [("images", ["N", 24, 20, 3], "tensor(uint8)")]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("probabilities", ["N", 3])]


def test_a_keras_file_holds_no_code(make_bundle: MakeBundle, tiny: Base, tmp_path: Path) -> None:
    """It passes the same inspection that somebody else's file has to."""
    with one_message("write", tmp_path):
        format_of("m.keras").write(build_model(make_bundle("nearer", ISOTONIC), [tiny]), tmp_path / "m.keras", "{}")
    assert len(inspect(tmp_path / "m.keras")) == 16


def test_what_the_file_says_of_itself_is_all_that_serving_needs(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    text = about(bundle, inputs_of(bundle.card.specs))
    found = json.loads(text)
    assert text.isascii()
    assert found["classes"] == ["cat", "naïve <b>", "\\xff"]
    assert found["inputs"] == [
        {"name": "images", "layout": "NHWC", "colours": "RGB", "image_size": [24, 20], "resize": "bilinear"}
        | {"fit": "stretch"}
    ]
    assert (found["output"], found["version"], found["computes_in"]) == ("probabilities", 1, "float32")


@pytest.mark.parametrize(
    ("to", "name"),
    [
        ("a.keras", "Keras"),
        ("a.ONNX", "ONNX"),
        ("x/a.xml", "OpenVINO IR"),
        ("a", "SavedModel"),
        ("a.v1/", "SavedModel"),
    ],
)
def test_the_ending_says_the_format(to: str, name: str) -> None:
    assert format_of(to).name == name


@pytest.mark.parametrize("to", ["a.h5", "a.tflite", "a.v1"])
def test_an_unknown_ending_names_the_known_ones(to: str) -> None:
    with pytest.raises(InputError, match=r"\.onnx"):
        format_of(to)


def test_missing_onnx_packages_are_one_message_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(InputError, match="not installed") as caught:
        format_of("m.onnx").prepare()
    assert caught.value.todo == "pip install onnx tf2onnx onnxruntime"
