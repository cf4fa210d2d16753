from __future__ import annotations

import importlib
import subprocess
import sys

import numpy as np
import pytest

from featstore.catalog import BACKBONES, DOCUMENTED, Backbone, check_image_size, find, is_own_model
from featstore.errors import InputError
from featstore.weights.keras_io import architecture, import_keras, list_layers

NAMES = [backbone.name for backbone in BACKBONES]


def test_the_documented_bases_are_the_promised_eleven() -> None:
    assert [b.keras_name for b in DOCUMENTED] == [
        "VGG16",
        "VGG19",
        "Xception",
        "ResNet50",
        "ResNet50V2",
        "InceptionV3",
        "MobileNetV2",
        "DenseNet121",
        "EfficientNetB0",
        "EfficientNetV2B0",
        "ConvNeXtTiny",
    ]


def test_names_are_unique() -> None:
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("typed", ["vgg16", "VGG16", "VGG-16", "vgg_16"])
def test_case_and_dashes_do_not_matter(typed: str) -> None:
    assert find(typed).keras_name == "VGG16"


def test_an_unknown_name_is_told_the_nearest_ones() -> None:
    with pytest.raises(InputError, match=r"did you mean .*resnet50") as caught:
        find("resnet5")
    assert caught.value.exit_code == 2


def test_an_h5_model_as_base_is_told_what_to_save_instead() -> None:
    with pytest.raises(InputError, match=r"model\.save\('base\.keras'\)"):
        find("my/base.h5")


def test_a_keras_file_is_an_own_model() -> None:
    assert is_own_model("models/My.keras")
    assert not is_own_model("vgg16")


def test_an_image_below_the_least_size_is_refused_with_both_sizes() -> None:
    with pytest.raises(InputError, match="at least 71 pixels") as caught:
        check_image_size(find("xception"), (150, 70))
    assert "150 × 70" in str(caught.value)


def test_the_least_size_itself_is_taken() -> None:
    check_image_size(find("xception"), (71, 71))


def test_every_class_of_keras_applications_is_known() -> None:
    applications = import_keras().applications
    classes = {n for n in dir(applications) if n[0].isupper() and callable(getattr(applications, n))}
    assert {b.keras_name for b in BACKBONES} >= classes


@pytest.mark.parametrize(
    "name", ["vgg16", "resnet50v2", "densenet121", "mobilenetv2", "efficientnetv2b0", "convnexttiny"]
)
def test_file_names_and_hashes_are_those_that_keras_publishes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = find(name)
    make = getattr(import_keras().applications, backbone.keras_name)

    class Asked(Exception):
        pass

    def get_file(file: str, url: str, file_hash: str | None = None, **_: object) -> None:
        raise Asked(file, url, file_hash)

    monkeypatch.setattr(importlib.import_module("keras.src.utils.file_utils"), "get_file", get_file)
    with pytest.raises(Asked) as caught:
        make(weights="imagenet", include_top=False, input_shape=(224, 224, 3))
    assert caught.value.args == (backbone.weights_file, backbone.weights_url, backbone.weights_hash)


@pytest.mark.parametrize("backbone", BACKBONES, ids=NAMES)
def test_keras_refuses_an_image_one_pixel_below_the_least_size(backbone: Backbone) -> None:
    make = getattr(import_keras().applications, backbone.keras_name)
    size = backbone.least_size - 1
    with pytest.raises(ValueError, match=rf"{backbone.least_size}"):
        make(weights=None, include_top=False, input_shape=(size, size, 3))


@pytest.mark.parametrize("backbone", BACKBONES, ids=NAMES)
def test_normalisation_is_what_preprocess_input_does(backbone: Backbone) -> None:
    import_keras()
    preprocess = importlib.import_module(f"keras.applications.{backbone.module}").preprocess_input
    white = preprocess(np.full((1, 1, 1, 3), 255, np.float32))[0, 0, 0]
    expected = {
        "caffe": [255 - 103.939, 255 - 116.779, 255 - 123.68],
        "tf": [1, 1, 1],
        "torch": [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225],
        "included": [255, 255, 255],
    }[backbone.normalisation]
    np.testing.assert_allclose(white, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["mobilenetv2", "mobilenetv3small", "convnexttiny", "densenet121"])
def test_the_last_layer_and_its_width_are_the_models_own(name: str) -> None:
    backbone = find(name)
    last = list_layers(architecture(backbone))[-1]
    assert (last.name, last.channels) == (backbone.last_layer, backbone.features)


def test_the_catalogue_needs_no_heavy_library() -> None:
    code = "import sys, featstore.catalog; print({'keras', 'tensorflow', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "keras" not in done.stdout
    assert "tensorflow" not in done.stdout
