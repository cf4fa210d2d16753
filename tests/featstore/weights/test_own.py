from __future__ import annotations

import contextlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from featstore.errors import InputError
from featstore.weights import files, own


def _model(path: Path, config: Any, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("config.json", config if isinstance(config, (str, bytes)) else json.dumps(config))
    return path


def _layer(name: str, **more: Any) -> dict[str, Any]:
    return {
        "class_name": "Functional",
        "module": "keras",
        "config": {"layers": [{"class_name": name, "config": {}, **more}]},
    }


def test_a_plain_model_is_identified_by_its_config(tiny_file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "other name.keras"
    copy.write_bytes(tiny_file.read_bytes())
    assert own.inspect(copy) == own.inspect(tiny_file)
    assert len(own.inspect(copy)) == 16


@pytest.mark.parametrize("name", ["Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "__lambda__"])
def test_layers_that_carry_code_are_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"does not run(.|\n)*{name}"):
        own.inspect(_model(tmp_path / "m.keras", _layer(name, module="keras.layers")))


@pytest.mark.parametrize("name", ["StringLookup", "IntegerLookup", "TextVectorization"])
def test_layers_that_read_files_are_refused_by_name(name: str, tmp_path: Path) -> None:
    layer = _layer(name, module="keras.layers")
    layer["config"]["layers"][0]["config"]["vocabulary"] = "/etc/passwd"
    with pytest.raises(InputError, match=rf"does not run(.|\n)*{name}"):
        own.inspect(_model(tmp_path / "m.keras", layer))


@pytest.mark.parametrize(
    ("module", "name"),
    [("keras.utils", "get_file"), ("keras", "utils.get_file"), ("keras.src.utils.file_utils", "get_file"),
     ("keras.saving", "load_model"), ("keras.src.saving.saving_api", "load_model"), ("keras.layers", "../get_file")],
)  # fmt: skip
def test_what_fetches_and_loads_is_no_layer(module: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not run"):
        own.inspect(_model(tmp_path / "m.keras", _layer(name, module=module)))


@pytest.mark.parametrize("module", ["os", "builtins", "keras_evil", "my.package", "kerasx.layers", "keras.layers;os"])
def test_classes_from_elsewhere_are_refused(module: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not run"):
        own.inspect(_model(tmp_path / "m.keras", _layer("system", module=module)))


def test_registered_classes_are_refused(tmp_path: Path) -> None:
    config = _layer("Mine", module=None, registered_name="Custom>Mine")
    with pytest.raises(InputError, match="Mine"):
        own.inspect(_model(tmp_path / "m.keras", config))


def test_a_lambda_deep_inside_is_found(tmp_path: Path) -> None:
    config = _layer("Wrapper", module="keras.layers")
    config["config"]["deeper"] = [[{"a": _layer("Lambda", module="keras.layers")}]]
    with pytest.raises(InputError, match="Lambda"):
        own.inspect(_model(tmp_path / "m.keras", config))


@pytest.mark.parametrize("config", ["", "{", b"\xff\xfe\x00", "[" * 100_000])
def test_a_config_that_is_not_json_is_an_input_error(config: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a model that featstore can open"):
        own.inspect(_model(tmp_path / "m.keras", config))


def test_an_endless_config_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "MAX_CONFIG_BYTES", 10)
    with pytest.raises(InputError, match="more than 10 bytes"):
        own.inspect(_model(tmp_path / "m.keras", {"a": "b" * 100}))


def test_an_archive_over_the_limits_is_refused(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_ENTRIES", 1)
    with pytest.raises(InputError, match="limit 1"):
        own.inspect(tiny_file)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_unpacks_without_measure_is_refused_unopened(method: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="packed with"):
        own.inspect(_model(tmp_path / "m.keras", " " * 1000, method))


@pytest.mark.parametrize("name", [["x"], {"a": 1}, 7, True])
def test_a_class_name_that_is_none_is_an_input_error(name: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="class_name that is no name"):
        own.inspect(_model(tmp_path / "m.keras", _layer(name)))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_model_is_an_input_error_or_the_same_model(method: int, tmp_path: Path) -> None:
    config = _layer("Dense", module="keras.layers", text="a text of some length" * 9)
    path = _model(tmp_path / "m.keras", config, method)
    whole, name = path.read_bytes(), own.inspect(path)
    for place in range(len(whole)):
        for damaged in (whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :], whole[:place]):
            path.write_bytes(damaged)
            with contextlib.suppress(InputError):
                assert own.inspect(path) == name


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_regular_file_makes_nobody_wait(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.keras"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="not a regular file"):
        own.inspect(path)


def test_a_zip_without_a_config_is_an_input_error(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match=r"config\.json"):
        own.inspect(tmp_path / "m.keras")


def test_a_file_that_is_no_archive_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "m.keras").write_bytes(b"\x89HDF\r\n\x1a\n" * 10)
    with pytest.raises(InputError, match="not a model"):
        own.inspect(tmp_path / "m.keras")


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such model"):
        own.inspect(tmp_path / "m.keras")
