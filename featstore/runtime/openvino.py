"""The frozen graph in OpenVINO, on CPUs.

Converted once from Keras and cached as ``CACHE/graphs/<key>/``; after that neither Keras nor TensorFlow is imported.
The graphs of int8 are made by :mod:`featstore.runtime.calibrate`.
"""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore import machine, telemetry
from featstore.backbone import BATCH_SIZE, GraphSpec, build
from featstore.errors import InputError, from_os_error
from featstore.folders import cache_folder
from featstore.runtime.graph import Images, padded
from featstore.runtime.graph_files import calibrations, read_graph, write_graph
from featstore.spec import Precision
from featstore.versions import installed_versions

telemetry.forbid()
import openvino  # noqa: E402 - only after that
from openvino import opset13 as opset  # noqa: E402

_HINTS: dict[Precision, str] = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
"""What is computed in beside a graph's own int8 parts."""

_HALVES = 2
"""Of a full batch, each computed on its half of the cores: these need not wait for one another after every layer, which
costs most when pictures are decoded beside them.
"""


class OpenVinoRuntime:
    """A graph compiled by OpenVINO for the CPU; see :class:`featstore.runtime.Runtime`."""

    name = "openvino"
    device = "cpu"

    def __init__(
        self,
        graph: GraphSpec,
        device: str | None = None,
        batch_size: int = BATCH_SIZE,
        cores: int | None = None,
    ) -> None:
        _check(graph, device)
        self.precision: Precision = graph.precision
        self.batch_size = batch_size
        self._image_size = graph.image_size
        divides = batch_size >= BATCH_SIZE and batch_size % _HALVES == 0
        parts = _HALVES if divides and (cores or machine.describe().cores) > 1 else 1
        model = _graph(graph)
        model.reshape([batch_size // parts, *graph.image_size, 3])
        compiled = _compile(model, graph.precision, parts, cores)
        self.feature_shape: tuple[int, ...] = tuple(compiled.output(0).shape)[1:]
        self._requests = [compiled.create_infer_request() for _ in range(parts)]

    def __call__(self, images: Images) -> npt.NDArray[np.float32]:
        """Features float32 (n, *feature_shape) of images uint8 (n, H, W, 3), n ≤ batch_size."""
        batch = padded(images, self._image_size, self.batch_size)
        for request, part in zip(self._requests, np.split(batch, len(self._requests)), strict=True):
            request.start_async(part, share_inputs=True)
        for request in self._requests:
            request.wait()
        rows = np.concatenate([request.get_output_tensor(0).data for request in self._requests], dtype=np.float32)
        return rows[: len(images)]


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


def _compile(model: openvino.Model, precision: Precision, streams: int, cores: int | None = None) -> Any:
    hint = _HINTS[precision]
    options = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": streams}
    if cores is not None:  # unpinned: otherwise all processes that may use some cores take the same first ones
        options |= {"INFERENCE_NUM_THREADS": cores, "ENABLE_CPU_PINNING": False}
    compiled = openvino.Core().compile_model(model, "CPU", options)
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


def _graph(graph: GraphSpec) -> openvino.Model:
    return calibrated(graph) if graph.calibration else converted(graph)


def converted(graph: GraphSpec) -> openvino.Model:
    """The graph, which computes in float32 until it is compiled; from the cache, or converted from Keras's."""
    versions = {package: installed_versions().get(package, "none") for package in ("openvino", "keras")}
    folder = cache_folder() / "graphs" / graph.key(**versions)
    found = read_graph(folder)
    if found is None:
        found = _convert(graph)
        write_graph(found, folder, {})
    return found


def calibrated(graph: GraphSpec) -> openvino.Model:
    """The graph quantised to int8, pooled as asked for; raises InputError if its calibration is not in the cache."""
    folder = calibrations() / str(graph.calibration)
    maps = read_graph(folder)
    if maps is None:
        raise InputError(
            "the calibrated graph of these int8 features is not here",
            where=folder,
            todo="copy that folder from where they were made, or extract again with --precision int8",
        )
    return _pooled(maps, graph.pooling)


def _pooled(maps: openvino.Model, pooling: str) -> openvino.Model:
    reduce = {"avg": opset.reduce_mean, "max": opset.reduce_max}.get(pooling)
    if reduce is None:
        return maps
    [result] = maps.get_results()
    features = reduce(result.input_value(0), np.array([1, 2]), keep_dims=False)
    return openvino.Model([features], maps.get_parameters())


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
