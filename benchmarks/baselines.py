"""What extraction is compared with: the tutorials' loops in Keras, timm in PyTorch, and the base without files."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

with contextlib.suppress(ImportError):
    import timm  # noqa: F401 - before TensorFlow: torchvision crashes when it is loaded after it

import numpy as np
from PIL import Image

from featstore.backbone import BATCH_SIZE, preprocess
from featstore.decode import decode
from featstore.runtime import Runtime
from featstore.spec import PixelSpec
from featstore.weights import Base, read_tensors

_LOOP_BATCH = 20

Side = Callable[[], tuple[np.ndarray, float]]
"""Features, float32 (N, C), in the order of the files' names, and the seconds that they took."""


def keras_model(base: Base, size: int) -> Any:
    """The tutorials' base, warmed up."""
    import keras

    make = getattr(keras.applications, base.backbone.keras_name)
    model = make(weights=None, include_top=False, input_shape=(size, size, 3), pooling="avg")
    model.set_weights(read_tensors(base))
    model.predict(np.zeros((_LOOP_BATCH, size, size, 3)), verbose=0)
    return model


def loop(model: Any, base: Base, folder: Path, size: int) -> Side:
    """``flow_from_directory`` and ``predict`` batch by batch."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    def run() -> tuple[np.ndarray, float]:
        started = time.perf_counter()
        made = ImageDataGenerator(preprocessing_function=lambda image: preprocess(base.backbone, image))
        with contextlib.redirect_stdout(sys.stderr):
            flow = made.flow_from_directory(
                folder, (size, size), class_mode=None, batch_size=_LOOP_BATCH, shuffle=False, interpolation="bilinear"
            )
        features = np.zeros((flow.samples, model.output_shape[-1]), np.float32)
        for number in range(len(flow)):
            batch = flow[number]
            start = number * _LOOP_BATCH
            features[start : start + len(batch)] = model.predict(batch, verbose=0)
        return features, time.perf_counter() - started

    return run


class ByDataset:
    """``image_dataset_from_directory`` and one ``predict``. busy : of each run, the seconds until its last batch ended;
    after it ``predict`` may wait up to ten seconds for tf.data's tuning thread to wake up, and computes nothing then.
    """

    def __init__(self, model: Any, base: Base, folder: Path, size: int) -> None:
        self._model, self._base, self._folder, self._size = model, base, folder, size
        self.busy: list[float] = []

    def __call__(self) -> tuple[np.ndarray, float]:
        """Its features, and its seconds until ``predict`` returned."""
        import keras

        started = time.perf_counter()
        images = keras.utils.image_dataset_from_directory(
            self._folder, labels=None, image_size=(self._size, self._size), batch_size=BATCH_SIZE, shuffle=False,
            verbose=False,
        )  # fmt: skip
        images = images.map(lambda batch: preprocess(self._base.backbone, batch)).prefetch(2)
        ends: list[float] = []
        noting = keras.callbacks.LambdaCallback()
        noting.on_predict_batch_end = lambda *_, **__: ends.append(time.perf_counter() - started)
        features = self._model.predict(images, verbose=0, callbacks=[noting])
        self.busy.append(ends[-1])
        return features, time.perf_counter() - started


class Pictures:
    """A PyTorch dataset of files."""

    def __init__(self, files: Sequence[Path], size: int) -> None:
        self.files, self.size = files, size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray:
        """RGB pixels, uint8 (H, W, 3)."""
        picture = Image.open(self.files[index]).convert("RGB")
        return np.array(picture.resize((self.size, self.size), Image.Resampling.BILINEAR))


def by_timm(base: Base, folder: Path, size: int, precision: str) -> Side:
    """VGG16 of timm with the same weights, a DataLoader with two workers; warmed up. In bfloat16 by ``autocast``."""
    import timm
    import torch

    model = timm.create_model("vgg16", pretrained=False).features.eval()
    tensors = read_tensors(base)
    layers = [layer for layer in model if isinstance(layer, torch.nn.Conv2d)]
    with torch.inference_mode():
        for layer, kernel, bias in zip(layers, tensors[::2], tensors[1::2], strict=True):
            layer.weight.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()))
            layer.bias.copy_(torch.from_numpy(bias))
    model = model.to(memory_format=torch.channels_last)
    files = sorted((folder / "all").iterdir())
    mean = torch.tensor([103.939, 116.779, 123.68])  # of Keras's preprocess_input, blue first
    low = precision == "bfloat16"

    def features(pixels: torch.Tensor) -> np.ndarray:
        values = (pixels.float().flip(-1) - mean).permute(0, 3, 1, 2)  # in memory: channels last
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=low):
            return np.asarray(model(values).float().mean((2, 3)).numpy())

    def run() -> tuple[np.ndarray, float]:
        started = time.perf_counter()
        loader = torch.utils.data.DataLoader(Pictures(files, size), BATCH_SIZE, num_workers=2)
        return np.concatenate([features(pixels) for pixels in loader]), time.perf_counter() - started

    features(torch.zeros((BATCH_SIZE, size, size, 3), dtype=torch.uint8))
    return run


def of_its_pixels(runtime: Runtime, folder: Path, size: int) -> np.ndarray:
    """Our base's features of the pixels that ``image_dataset_from_directory`` makes."""
    import keras

    images = keras.utils.image_dataset_from_directory(
        folder, labels=None, image_size=(size, size), batch_size=BATCH_SIZE, shuffle=False, verbose=False
    )
    return np.concatenate([runtime(np.rint(batch).astype(np.uint8)) for batch in images.as_numpy_iterator()])


def alone(runtime: Runtime, folder: Path, size: int, batch_size: int = BATCH_SIZE) -> Side:
    """The base on pictures in memory."""
    files = sorted((folder / "all").iterdir())
    images = np.stack([decode(file.read_bytes(), [PixelSpec((size, size))])[0] for file in files])

    def run() -> tuple[np.ndarray, float]:
        started = time.perf_counter()
        rows = [runtime(images[start : start + batch_size]) for start in range(0, len(images), batch_size)]
        return np.concatenate(rows), time.perf_counter() - started

    return run
