from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from featstore.errors import InputError
from featstore.runtime import GraphSpec
from featstore.runtime.tensorflow import TensorFlowRuntime, _choose_device
from featstore.weights import resolve


def _tensorflow(gpus: int, started: bool = False) -> Any:
    grown: list[str] = []

    def grow(gpu: str, on: bool) -> None:
        if started:
            raise RuntimeError("Physical devices cannot be modified after being initialized")
        grown.append(gpu)

    config = SimpleNamespace(
        list_physical_devices=lambda kind: [f"{kind}:{i}" for i in range(gpus)],
        experimental=SimpleNamespace(set_memory_growth=grow),
    )
    return SimpleNamespace(config=config, grown=grown)


@pytest.mark.parametrize(
    ("gpus", "asked", "expected"),
    [
        (0, None, "cpu"),
        (0, "CPU", "cpu"),
        (1, None, "gpu:0"),
        (1, "cpu", "cpu"),
        (2, "gpu:1", "gpu:1"),
        (2, "GPU", "gpu:0"),
    ],
)
def test_the_device_is_chosen(gpus: int, asked: str | None, expected: str) -> None:
    assert _choose_device(_tensorflow(gpus), asked) == expected


@pytest.mark.parametrize(("gpus", "asked"), [(0, "gpu"), (1, "gpu:1"), (1, "tpu"), (1, "gpu:x"), (1, "")])
def test_a_device_that_is_not_there_is_an_input_error(gpus: int, asked: str) -> None:
    if asked == "":
        assert _choose_device(_tensorflow(gpus), asked) == "gpu:0"
        return
    with pytest.raises(InputError, match="no such device") as caught:
        _choose_device(_tensorflow(gpus), asked)
    assert "cpu" in str(caught.value.expected)


def test_a_gpus_memory_grows_as_needed() -> None:
    tf = _tensorflow(2)
    _choose_device(tf, None)
    assert tf.grown == ["GPU:0", "GPU:1"]


def test_memory_that_is_already_ruled_is_left_alone() -> None:
    assert _choose_device(_tensorflow(1, started=True), "gpu") == "gpu:0"


def test_no_gpu_is_touched_for_the_cpu() -> None:
    tf = _tensorflow(1)
    _choose_device(tf, "cpu")
    assert tf.grown == []


def test_float32_is_never_computed_in_tf32(private_cache: Path, tiny_file: Path) -> None:
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(True)
    graph = GraphSpec(resolve(str(tiny_file)), "second", (40, 48), "none", "avg", "float32")
    TensorFlowRuntime(graph, "cpu")
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


def test_a_device_with_too_little_memory_is_told_with_the_ways_out(private_cache: Path, tiny_file: Path) -> None:
    import tensorflow as tf

    def exhausted(_: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor\nHint: …")

    graph = GraphSpec(resolve(str(tiny_file)), "second", (40, 48), "none", "avg", "float32")
    runtime = TensorFlowRuntime(graph, "cpu")
    runtime._function = exhausted
    with pytest.raises(InputError, match="too little memory for a batch") as failed:
        runtime(np.zeros((2, 40, 48, 3), np.uint8))
    assert failed.value.received == "OOM when allocating tensor"
    assert "--image-size" in str(failed.value.todo)
