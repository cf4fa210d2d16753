"""The frozen graph in OpenVINO, on CPUs.

Converted once from Keras and cached as ``CACHE/graphs/<key>/``; after that neither Keras nor TensorFlow is imported.
The cache is derived data: a graph that is missing or damaged is converted again, one that cannot be kept is
used anyway.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore import machine, telemetry
from featstore.backbone import BATCH_SIZE, GraphSpec, build
from featstore.errors import InputError, from_os_error
from featstore.folders import cache_folder
from featstore.runtime.graph import Images, padded
from featstore.spec import Precision
from featstore.versions import installed_versions
from featstore.weights.files import file_hash, sweep

telemetry.forbid()
import openvino  # noqa: E402 - only after that

_HINTS: dict[Precision, str] = {"float32": "f32", "bfloat16": "bf16"}
_GRAPH, _WEIGHTS, _CARD = "graph.xml", "graph.bin", "graph.json"


class OpenVinoRuntime:
    """A graph compiled by OpenVINO for the CPU; see :class:`featstore.runtime.Runtime`."""

    name = "openvino"
    device = "cpu"

    def __init__(self, graph: GraphSpec, device: str | None = None) -> None:
        _check(graph, device)
        self.precision: Precision = graph.precision
        self._image_size = graph.image_size
        self._compiled = _compile(_converted(graph), graph.precision)
        self.feature_shape: tuple[int, ...] = tuple(self._compiled.output(0).shape)[1:]

    def __call__(self, images: Images) -> npt.NDArray[np.float32]:
        """Features float32 (n, *feature_shape) of images uint8 (n, H, W, 3), n ≤ BATCH_SIZE."""
        result = self._compiled(padded(images, self._image_size), share_inputs=True, share_outputs=True)[0]
        return np.array(result[: len(images)], np.float32)  # a copy: OpenVINO writes over its own array next time


def _check(graph: GraphSpec, device: str | None) -> None:
    if device is not None and device.lower() != "cpu":
        raise InputError(
            "openvino computes on the CPU here",
            where="--device",
            expected="cpu",
            received=device,
            todo="use --runtime tensorflow" if machine.describe().gpus else "leave --device out: no GPU is seen here",
        )
    if graph.precision not in _HINTS:
        raise InputError(
            f"openvino cannot compute in {graph.precision} on a CPU",
            where="--precision",
            expected=" or ".join(_HINTS),
            received=graph.precision,
            todo="use float32" + (", or --runtime tensorflow" if machine.describe().gpus else ""),
        )


def _compile(model: openvino.Model, precision: Precision) -> Any:
    hint = _HINTS[precision]
    compiled = openvino.Core().compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    )
    granted = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if granted != hint:  # it is a hint only: OpenVINO falls back without a word, and the rows would be mislabelled
        raise InputError(
            f"this CPU cannot compute in {precision}",
            where="--precision",
            expected=hint,
            received=granted,
            todo="use float32, or a machine whose CPU has AVX512_BF16 or AMX",
        )
    return compiled


def _converted(graph: GraphSpec) -> openvino.Model:
    versions = {package: installed_versions().get(package, "none") for package in ("openvino", "keras")}
    folder = cache_folder() / "graphs" / graph.key(**versions)
    return _read(folder) or _write(_convert(graph), folder)


def _read(folder: Path) -> openvino.Model | None:
    """The cached graph, or None if it is not there or not as it was written."""
    try:
        card = json.loads((folder / _CARD).read_text(encoding="utf-8"))
        if any(file_hash(folder / name) != card[name] for name in (_GRAPH, _WEIGHTS)):
            return None
        return openvino.Core().read_model(folder / _GRAPH)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError):
        return None


def _write(model: openvino.Model, folder: Path) -> openvino.Model:
    """Keep the graph for the next time if that is possible; the graph."""
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent, ".tmp-*")
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".tmp-"))
        openvino.save_model(model, temporary / _GRAPH, compress_to_fp16=False)
        card = {name: file_hash(temporary / name) for name in (_GRAPH, _WEIGHTS)}
        (temporary / _CARD).write_text(json.dumps(card), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one
        os.replace(temporary, folder)
    except (OSError, RuntimeError):  # read-only, full, or another process was first: the graph in hand is as good
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return model


def _convert(graph: GraphSpec) -> openvino.Model:
    model = build(replace(graph, precision="float32"))  # the precision is set when it is compiled
    # By way of a SavedModel: openvino.convert_model fails on Python 3.13.
    try:
        with tempfile.TemporaryDirectory(prefix="featstore-") as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras remarks on its own way of exporting
            model.export(folder, format="tf_saved_model", verbose=False)
            converted = openvino.Core().read_model(folder)
    except OSError as error:
        raise from_os_error(error, "convert the base", tempfile.gettempdir()) from error
    converted.reshape([BATCH_SIZE, *graph.image_size, 3])
    return converted
