"""How close a base comes to what the machine can do: its GFLOP/s beside those of the fastest matrix product."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from baselines import alone
from cases import Case
from harness import row

import featstore
from featstore.backbone import BATCH_SIZE, GraphSpec
from featstore.runtime.openvino import converted

_SIDES = (1024, 2048, 4096)


def utilisation(case: Case, precision: str, images: featstore.Dataset, folder: Path, repeats: int) -> dict[str, Any]:
    """A row of the base's GFLOP/s, against those of the fastest matrix product in the same precision and library.

    Same result: the largest product is NumPy's, but for the precision.
    """
    job = case.job(images, precision)
    graph = GraphSpec.of(job.base, job.spec)
    base = alone(case.runtime(images, precision), folder, case.size)
    gflop = _operations(converted(graph)) / BATCH_SIZE / 1e9
    product = _product(job.spec.precision)
    mine, theirs = [], []
    for _ in range(repeats):
        rows, seconds = base()
        mine.append(len(rows) * gflop / seconds)
        theirs.append(product())
    about = f"{case.name}, {job.spec.precision}, {gflop:.3g} GFLOP an image: the base alone, against a matrix product"
    return row(about, mine, theirs, "GFLOP/s", _is_a_product(job.spec.precision))


def _operations(model: Any) -> int:
    """Of one pass through an OpenVINO graph: two for every multiply-add of its convolutions and matrix products; what a
    convolution multiplies by the zeros around a picture is not counted, for it need not be computed.
    """
    count = 0
    for op in model.get_ordered_ops():
        if op.get_type_name() in ("Convolution", "GroupConvolution"):  # weights: (…, channels in, height, width)
            batch, channels, *_ = op.output(0).shape
            inward, *_ = list(op.input_value(1).get_shape())[-3:]
            count += 2 * batch * channels * inward * _taps(op, 0) * _taps(op, 1)
        elif op.get_type_name() == "MatMul":
            count += 2 * int(np.prod(op.output(0).shape)) * list(op.input_value(0).get_shape())[-1]
    return count


def _taps(op: Any, axis: int) -> int:
    """Products of a convolution along one axis: pixels of the kernel that lie within the picture, over all places."""
    about = op.get_attributes()
    size, places = op.input_value(0).get_shape()[2 + axis], op.output(0).shape[2 + axis]
    kernel = list(op.input_value(1).get_shape())[-2:][axis]
    first = np.arange(places) * about["strides"][axis] - about["pads_begin"][axis]
    at = first[:, None] + np.arange(kernel) * about["dilations"][axis]
    return int(((at >= 0) & (at < size)).sum())


def _product(precision: str) -> Callable[[], float]:
    """GFLOP/s of the fastest product of two square matrices: the machine's peak, as far as a library reaches it."""
    products = [_square(side, precision) for side in _SIDES]
    return lambda: max(product() for product in products)


def _square(side: int, precision: str) -> Callable[[], float]:
    """GFLOP/s of the product of two matrices of ``side`` by ``side``: the best of as many as make 275 GFLOP."""
    compiled, numbers = _compiled(side, precision)

    def run() -> float:
        started = time.perf_counter()
        compiled(numbers, share_inputs=True, share_outputs=True)
        return 2 * side**3 / (time.perf_counter() - started) / 1e9

    run()
    return lambda: max(run() for _ in range(2 * (max(_SIDES) // side) ** 3))


def _is_a_product(precision: str) -> bool:
    compiled, numbers = _compiled(_SIDES[0], precision)
    found, expected = np.asarray(compiled(numbers)[0]), numbers @ numbers
    return bool(np.allclose(found, expected, rtol=1e-4 if precision == "float32" else 1e-2))


def _compiled(side: int, precision: str) -> tuple[Any, np.ndarray]:
    """The product of a matrix with a certain one, compiled; and that one, float32 (side, side)."""
    import openvino
    from openvino import opset13 as opset

    numbers = np.random.default_rng(0).random((side, side), np.float32)
    left = opset.parameter([side, side], np.float32)
    model = openvino.Model([opset.matmul(left, opset.constant(numbers), False, False)], [left])
    hints = {"INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision]}
    return openvino.Core().compile_model(model, "CPU", {**hints, "PERFORMANCE_HINT": "LATENCY"}), numbers
