from __future__ import annotations

import importlib
import random
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore.catalog import BACKBONES, find
from featstore.errors import InputError
from featstore.weights import list_weights, published
from featstore.weights.base import tensor_digest
from featstore.weights.full import full_model, with_top
from featstore.weights.keras_io import import_keras
from tests.reliability.campaign import takes_long

MOBILE = find("mobilenet")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole network, its base and one with 10 classes, as whole., base. and ten. with every ending."""
    folder = tmp_path_factory.mktemp("files")
    make = import_keras().applications.MobileNet
    models = {"whole": make(weights=None), "base": make(weights=None, include_top=False)}
    models["ten"] = make(weights=None, classes=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras is not up to date with NumPy when it saves, and would rather no .h5
        for name, model in models.items():
            model.save_weights(folder / f"{name}.weights.h5")
            model.save(folder / f"{name}.h5")
            model.save(folder / f"{name}.keras")
            np.savez(folder / f"{name}.npz", *model.get_weights())
    return folder


def _tensors(path: Path) -> list[np.ndarray]:
    with np.load(path) as arrays:
        return [arrays[name] for name in arrays.files]


@pytest.mark.parametrize("ending", ["weights.h5", "h5", "keras", "npz"])
def test_weights_are_read_from_every_kind_of_file(ending: str, files: Path) -> None:
    tensors = full_model(MOBILE, str(files / f"whole.{ending}")).get_weights()
    assert tensor_digest(tensors) == tensor_digest(_tensors(files / "whole.npz"))


@pytest.mark.parametrize("ending", ["keras", "npz"])
def test_another_number_of_classes_is_taken(ending: str, files: Path) -> None:
    model = full_model(MOBILE, str(files / f"ten.{ending}"))
    assert model.output_shape == (None, 10)
    assert tensor_digest(model.get_weights()) == tensor_digest(_tensors(files / "ten.npz"))


@pytest.mark.parametrize("ending", ["weights.h5", "h5"])
def test_the_first_tensor_that_does_not_fit_is_named(ending: str, files: Path) -> None:
    with pytest.raises(InputError, match="not the whole mobilenet's") as caught:
        full_model(MOBILE, str(files / f"ten.{ending}"))
    assert "conv_preds" in str(caught.value.expected)
    assert "(1, 1, 1024, 1000)" in str(caught.value.expected)
    assert caught.value.received == "(1, 1, 1024, 10)"


@pytest.mark.parametrize("ending", ["weights.h5", "h5", "keras", "npz"])
def test_a_base_without_its_top_is_called_so(ending: str, files: Path) -> None:
    with pytest.raises(InputError, match="mobilenet without its top") as caught:
        full_model(MOBILE, str(files / f"base.{ending}"))
    assert "include_top=True" in str(caught.value)
    assert "conv_preds/bias (1000,)" in str(caught.value)


@pytest.mark.parametrize("ending", ["weights.h5", "h5", "keras", "npz"])
def test_a_file_that_is_none_is_one_message(ending: str, tmp_path: Path) -> None:
    (tmp_path / f"a.{ending}").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError):
        full_model(MOBILE, str(tmp_path / f"a.{ending}"))
    with pytest.raises(InputError, match="no such weights"):
        full_model(MOBILE, str(tmp_path / "missing.h5"))


def test_a_model_with_code_inside_is_refused(tmp_path: Path) -> None:
    keras = import_keras()
    model = keras.Sequential([keras.Input((224, 224, 3)), keras.layers.Lambda(lambda x: x)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / "evil.keras")
    with pytest.raises(InputError, match="code of its own"):
        full_model(MOBILE, str(tmp_path / "evil.keras"))


def test_random_weights_follow_from_their_seed_and_leave_the_callers_random_state() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist()
    one, two, other = (full_model(MOBILE, f"random:{seed}").get_weights() for seed in (1, 1, 2))
    assert tensor_digest(one) == tensor_digest(two) != tensor_digest(other)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


@pytest.mark.usefixtures("private_cache", "no_network")
def test_imagenet_weights_are_found_in_kerass_cache_offline(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATSTORE_OFFLINE", "1")
    path = published.keras_file(with_top(MOBILE))  # Keras publishes no hash of this one
    path.parent.mkdir(parents=True)
    shutil.copy(files / "whole.h5", path)
    assert tensor_digest(full_model(MOBILE).get_weights()) == tensor_digest(_tensors(files / "whole.npz"))
    assert list_weights() == ()


@pytest.mark.usefixtures("private_cache", "no_network")
def test_imagenet_weights_that_cannot_be_had_are_one_message_that_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATSTORE_OFFLINE", "1")
    with pytest.raises(InputError, match="of the whole vgg16 cannot be had") as caught:
        full_model(find("vgg16"))
    message, wanted = str(caught.value), with_top(find("vgg16"))
    for said in ("FEATSTORE_OFFLINE", "--weights", wanted.weights_url, str(published.keras_file(wanted))):
        assert said in message


@pytest.mark.usefixtures("private_cache", "no_network")
def test_a_missing_file_is_told_in_a_line_where_keras_publishes_no_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATSTORE_OFFLINE", "1")
    with pytest.raises(InputError) as caught:
        full_model(MOBILE)
    first, *_ = str(caught.value.received).splitlines()
    assert first == f"Keras's cache: {published.keras_file(with_top(MOBILE))}: No such file or directory"


@pytest.mark.usefixtures("private_cache")
def test_no_package_is_taken_for_the_whole_network(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def nothing(*_: Any) -> Path:
        raise published.Unavailable("no route")

    monkeypatch.setattr(published, "download", nothing)
    with pytest.raises(InputError, match=r"no route(.|\n)*no package is known"):
        full_model(find("vgg16"))
    assert capsys.readouterr().out == ""


@takes_long
def test_an_efficientnet_saved_from_kerass_imagenet_model_sees_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, keras = find("efficientnetb0"), import_keras()
    full = full_model(known, "random:1")
    full.layers[-1].kernel.assign(full.layers[-1].kernel * 3000)  # so that classes differ by much
    images = np.random.default_rng(0).uniform(0, 255, (1, 224, 224, 3)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        full.save(tmp_path / "published.h5")
        file_utils = importlib.import_module("keras.src.utils.file_utils")
        monkeypatch.setattr(file_utils, "get_file", lambda *_, **__: str(tmp_path / "published.h5"))
        kerass = keras.applications.EfficientNetB0()  # has a layer more, as always with Keras's own weights
        kerass.save(tmp_path / "saved.keras")
    expected = np.asarray(kerass(images, training=False))
    assert np.abs(expected - np.asarray(full(images, training=False))).max() > 1e-2
    found = np.asarray(full_model(known, str(tmp_path / "saved.keras"))(images, training=False))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    ["vgg16", "resnet50v2", "mobilenetv3small", "mobilenetv2", "efficientnetv2b0", "convnexttiny"],
)
def test_file_names_and_hashes_are_those_that_keras_publishes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = with_top(find(name))

    class Asked(Exception):
        pass

    def get_file(file: str, url: str, file_hash: str | None = None, **_: object) -> None:
        raise Asked(file, url, file_hash)

    monkeypatch.setattr(importlib.import_module("keras.src.utils.file_utils"), "get_file", get_file)
    make = getattr(import_keras().applications, wanted.keras_name)
    with pytest.raises(Asked) as caught:
        make(weights="imagenet", input_shape=(224, 224, 3))
    assert caught.value.args == (wanted.weights_file, wanted.weights_url, wanted.weights_hash)


def test_every_network_has_a_file_of_its_own_and_nearly_all_a_hash() -> None:
    known = [with_top(backbone) for backbone in BACKBONES]
    assert len({wanted.weights_file for wanted in known}) == len(known)
    assert [wanted.keras_name for wanted in known if wanted.weights_hash is None] == ["MobileNetV2", "MobileNet"]
