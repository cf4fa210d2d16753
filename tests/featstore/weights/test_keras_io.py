from __future__ import annotations

import json
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from featstore.catalog import find
from featstore.errors import InputError
from featstore.weights import keras_io
from featstore.weights.keras_io import architecture, import_keras, list_layers, named_layers, set_tensors


def test_importing_keras_says_nothing() -> None:
    code = "from featstore.weights.keras_io import import_keras; import_keras()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("", "ValueError"),
        ("one\ntwo", "ValueError: one"),
        ("for example:\n\n  this\nthat", "ValueError: for example: this"),
        ("cut:", "ValueError: cut:"),
    ],
)
def test_what_a_library_said_is_never_cut_off_at_a_colon(said: str, expected: str) -> None:
    assert keras_io.first_line(ValueError(said)) == expected


def test_keras_is_imported_and_stderr_silenced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import_keras()
    monkeypatch.setattr(keras_io, "_silent_stderr", lambda: pytest.fail("stderr was redirected again"))
    assert len(list_layers(architecture(find("vgg16")))) == 18


@pytest.mark.parametrize("name", ["mobilenetv2", "convnexttiny", "efficientnetb0"])
def test_a_base_goes_by_its_own_name_in_errors(name: str) -> None:
    model = architecture(find(name))
    assert list_layers(model)[-1].name == find(name).last_layer
    with pytest.raises(InputError, match=f"these weights are not {name}'s"):
        set_tensors(model, model.get_weights()[:-1], "my.npz")


def test_another_backend_is_an_input_error() -> None:
    code = """
from featstore.errors import InputError
from featstore.weights.keras_io import import_keras
import keras
keras.config.backend = lambda: "jax"
try: import_keras()
except InputError as error: print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "received: jax" in done.stdout


def test_unnamed_layers_have_the_same_name_in_every_model() -> None:
    first, second = (list_layers(architecture(find("mobilenetv3small"))) for _ in range(2))
    assert first == second
    assert first[-1].name == find("mobilenetv3small").last_layer


def test_layers_are_listed_in_order_without_the_input() -> None:
    names = [layer.name for layer in list_layers(architecture(find("vgg16")))]
    assert names[0] == "block1_conv1"
    assert names[-1] == "block5_pool"
    assert len(names) == 18


def test_building_leaves_random_numbers_and_policy_alone() -> None:
    keras = import_keras()
    random.seed(5)
    expected = random.random()
    random.seed(5)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = architecture(find("mobilenet"))
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    assert random.random() == expected
    assert model.dtype_policy.name == "float32"


def test_a_nested_model_counts_as_one_layer_with_its_place_in_the_outer_graph() -> None:
    keras = import_keras()
    inner_in = keras.Input((None, None, 3))
    inner = keras.Model(inner_in, keras.layers.Conv2D(5, 3)(inner_in), name="inner")
    image = keras.Input((16, 16, 3))
    maps = inner(keras.layers.Rescaling(1 / 255, name="scale")(image))
    outer = keras.Model(image, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(maps)))
    assert [(x.name, x.channels) for x in list_layers(outer, own=True)] == [("scale", 3), ("inner", 5)]
    features = keras.Model(outer.inputs, keras_io.output_of(named_layers(outer, own=True)["inner"]))
    assert features.output_shape == (None, 14, 14, 5)


def test_tensors_of_another_shape_are_refused_by_name() -> None:
    model = architecture(find("vgg16"))
    tensors = model.get_weights()
    tensors[2] = tensors[2][..., :32]
    with pytest.raises(InputError, match=r"block1_conv2/kernel \(3, 3, 64, 64\)") as caught:
        set_tensors(model, tensors, "my.npz")
    assert "received: (3, 3, 64, 32)" in str(caught.value)
    assert "my.npz" in str(caught.value)


def test_too_few_tensors_are_refused_by_count() -> None:
    model = architecture(find("vgg16"))
    with pytest.raises(InputError, match="26 tensors"):
        set_tensors(model, model.get_weights()[:-2], "my.npz")


def test_setting_tensors_reaches_what_a_normalization_layer_derives() -> None:
    keras = import_keras()
    image = keras.Input((4, 4, 1))
    model = keras.Model(image, keras.layers.Normalization()(image))
    set_tensors(model, [np.array([10.0]), np.array([4.0]), np.array(0)], "test")
    assert np.allclose(model(np.full((1, 4, 4, 1), 14.0, np.float32)), 2.0)


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 3), (8,)])
def test_an_own_model_that_does_not_take_rgb_images_is_refused(shape: tuple[int, ...]) -> None:
    keras = import_keras()
    image = keras.Input(shape)
    model = keras.Model(image, keras.layers.Activation("relu")(image))
    with pytest.raises(InputError, match="one RGB image"):
        keras_io.input_size(model, "x.keras")


def test_a_model_that_keras_cannot_load_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "x.keras").write_bytes(b"PK nothing")
    with pytest.raises(InputError, match="cannot load"):
        keras_io.load_own(tmp_path / "x.keras")


def _asking_for(filters: int, path: Path) -> Path:
    """A model whose config asks for so many filters of 50 x 50, and whose file has the weights of two."""
    keras = import_keras()
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 50, padding="same", name="wide")])
    with keras_io.float32_policy():
        model.save(path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(entries["config.json"])
    config["config"]["layers"][1]["config"]["filters"] = filters
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**entries, "config.json": json.dumps(config).encode()}.items():
            archive.writestr(name, data)
    return path


def test_a_model_that_asks_for_more_weights_than_its_file_has_takes_no_memory(tmp_path: Path) -> None:
    path = _asking_for(2_000_000_000, tmp_path / "bomb.keras")  # 60 TB
    with pytest.raises(
        InputError, match=r"cannot load(.|\n)*asks for weights of 60008000000000 bytes, and the file has"
    ):
        keras_io.load_own(path)


@pytest.mark.parametrize("dtype", ["float32", "float16", "mixed_bfloat16"])
def test_a_model_has_the_weights_that_it_asks_for(dtype: str, tmp_path: Path) -> None:
    keras = import_keras()
    layers = keras.layers
    parts = [
        layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 1.0, 1.0]), layers.RandomRotation(0.1),
        layers.Conv2D(256, 50, padding="same", dtype=dtype), layers.BatchNormalization(), layers.Dropout(0.5),
    ]  # fmt: skip
    model = keras.Sequential([keras.Input((8, 8, 3)), *parts])
    model.compile("adam", "mse", metrics=["mae"])  # which makes weights of its own
    with keras_io.float32_policy():
        model.save(tmp_path / "own.keras")
    assert len(keras_io.load_own(tmp_path / "own.keras").layers) == len(parts)
