"""A real base with a head trained on real photographs, as every kind of file, checked on photographs it never saw."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.commands import good
from tests.reliability.campaign import takes_long

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]


@pytest.fixture(scope="module")
def some_photographs(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 to train on, 8 to choose on and 8 to test of each class."""
    folder = tmp_path_factory.mktemp("photographs")
    for split, count in (("train", 24), ("validation", 8), ("test", 8)):
        for source in sorted((photographs / split).iterdir()):
            target = folder / split / source.name
            target.mkdir(parents=True)
            for file in sorted(source.iterdir())[:count]:
                shutil.copyfile(file, target / file.name)
    return folder


@pytest.fixture(scope="module")
def real_bundle(some_photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    places = ("--store", folder / "store", "--out", folder / "bundles")
    [result] = good("train", some_photographs, "--image-size", "128", "--head", "logreg", *places, "--json").json[
        "results"
    ]
    return Path(result["bundle"])


@pytest.mark.parametrize(
    "to", [*(pytest.param(to, marks=takes_long) for to in ("pets.keras", "pets")), "pets.onnx", "pets.xml"]
)
def test_a_vgg16_head_predicts_the_same_as_a_file_of_any_kind(
    to: str, real_bundle: Path, some_photographs: Path, tmp_path: Path
) -> None:
    if to.endswith("onnx"):
        pytest.importorskip("tf2onnx")
    arguments = ("heads", "export", real_bundle, "--to", tmp_path / to, "--check", some_photographs / "test", "--json")
    value: dict[str, Any] = good(*arguments).json
    print(to, value["bytes"], value["check"])
    assert value["check"]["images"] == 16
    assert value["check"]["difference"] <= 1e-4
    assert value["inputs"] == [{"name": "images", "image_size": [128, 128]}]
    assert value["classes"] == ["cats", "dogs"]
    if value["check"]["precision"] == "bfloat16":
        assert 0 < value["check"]["difference_there"] < 0.05
