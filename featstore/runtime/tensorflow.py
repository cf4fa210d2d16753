"""The frozen graph in TensorFlow, on CPUs and GPUs: one compiled function with one fixed input signature."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.backbone import BATCH_SIZE, GraphSpec, build
from featstore.errors import InputError
from featstore.runtime.graph import Images, padded
from featstore.spec import Precision
from featstore.weights.keras_io import import_keras


class TensorFlowRuntime:
    """A graph traced by TensorFlow; see :class:`featstore.runtime.Runtime`. ``device`` is "cpu" or "gpu:N"."""

    name = "tensorflow"
    batch_size = BATCH_SIZE

    def __init__(self, graph: GraphSpec, device: str | None = None, cores: int | None = None) -> None:
        if graph.precision == "int8":
            raise InputError(
                "int8 is computed by OpenVINO", where="--runtime", expected="openvino", received="tensorflow"
            )
        import_keras()
        import tensorflow as tf

        if cores is not None:
            with suppress(RuntimeError):  # it has computed already
                tf.config.threading.set_intra_op_parallelism_threads(cores)
        self.device = _choose_device(tf, device)
        self.precision: Precision = graph.precision
        self._image_size = graph.image_size
        if graph.precision == "float32":  # GPUs would multiply in TF32 without a word, with 10 bits of mantissa
            tf.config.experimental.enable_tensor_float_32_execution(False)
        with tf.device(self.device):
            self._function = _compile(tf, graph)
        self.feature_shape: tuple[int, ...] = tuple(self._function.structured_outputs.shape)[1:]

    def __call__(self, images: Images) -> npt.NDArray[np.float32]:
        """Features float32 (n, *feature_shape) of images uint8 (n, H, W, 3), n ≤ BATCH_SIZE.

        Raises InputError if the device has too little memory for a batch.
        """
        import tensorflow as tf

        try:
            with tf.device(self.device):
                result = self._function(tf.constant(padded(images, self._image_size))).numpy()
        except tf.errors.ResourceExhaustedError as error:
            raise InputError(
                "this device has too little memory for a batch of this base",
                where=f"--device {self.device}",
                expected=f"room for {BATCH_SIZE} images of {self._image_size[0]} x {self._image_size[1]} pixels",
                received=str(error.message).split("\n", 1)[0],
                todo="end what else uses the device, take smaller images (--image-size), or --device cpu",
            ) from error
        return np.array(result[: len(images)], np.float32)


def _compile(tf: Any, graph: GraphSpec) -> Any:
    model = build(graph)
    signature = tf.TensorSpec((BATCH_SIZE, *graph.image_size, 3), tf.uint8)
    return tf.function(lambda images: model(images, training=False)).get_concrete_function(signature)


def _choose_device(tf: Any, device: str | None) -> str:
    """The device ("cpu", "gpu:0"), as TensorFlow takes it too; raises InputError if this machine does not have it.

    A GPU's memory is taken as it is needed, so that others may use the rest.
    """
    gpus = tf.config.list_physical_devices("GPU")
    wanted = (device or ("gpu" if gpus else "cpu")).lower()
    matched = re.fullmatch(r"cpu|gpu(?::(\d+))?", wanted)
    number = int(matched[1] or 0) if matched else 0
    if matched is None or (wanted != "cpu" and number >= len(gpus)):
        raise InputError(
            "there is no such device",
            where="--device",
            expected=", ".join(["cpu", *(f"gpu:{index}" for index in range(len(gpus)))]),
            received=device,
        )
    if wanted == "cpu":
        return "cpu"
    for gpu in gpus:
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:  # TensorFlow has already started with the memory rule of the program around us
            break
    return f"gpu:{number}"
