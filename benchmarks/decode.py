"""Decoding: bytes in memory → uint8 (150, 150, 3), one thread and all cores, against the tutorials' loaders.

    python benchmarks/decode.py DATA [--size 150] [--images 1000] [--repeats 3] [--json | --save]

Baselines: Keras's `load_img` (which is Pillow), and TensorFlow's `decode_image` and `resize` with antialiasing.

Same result: the mean absolute difference of all pixels is at most 3 of 255 (JPEGs much larger than the target are
decoded at a fraction of their size, as featstore/decode.py says).
"""

from __future__ import annotations

import argparse
import io
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from harness import add_options, report, row

import featstore
from featstore import machine
from featstore.decode import decode
from featstore.formats import MAX_FILE_BYTES
from featstore.spec import PixelSpec

_MOST_DIFFERENCE = 3.0

Decoder = Callable[[bytes], np.ndarray]


def decoders(size: int) -> dict[str, Decoder]:
    """Ours and the others, by name."""
    import keras
    import tensorflow as tf

    def ours(data: bytes) -> np.ndarray:
        return decode(data, [PixelSpec((size, size))])[0]

    def by_keras(data: bytes) -> np.ndarray:
        picture = keras.utils.load_img(io.BytesIO(data), target_size=(size, size), interpolation="bilinear")
        return np.asarray(picture)

    def by_tensorflow(data: bytes) -> np.ndarray:
        pixels = tf.io.decode_image(data, channels=3, expand_animations=False)
        return np.asarray(tf.image.resize(pixels, (size, size), antialias=True))

    return {"featstore": ours, "keras.utils.load_img": by_keras, "tf.io.decode_image": by_tensorflow}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--size", type=int, default=150)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    add_options(parser)
    given = parser.parse_args()
    images = featstore.open_dataset(given.data)
    files = [images.source.read(path, MAX_FILE_BYTES) for path in images.paths[: given.images]]
    sides = decoders(given.size)
    pictures = {name: np.stack([side(data).astype(np.float32) for data in files]) for name, side in sides.items()}
    rows = []
    for workers in dict.fromkeys((1, machine.describe().cores)):
        rates: dict[str, list[float]] = {name: [] for name in sides}
        with ThreadPoolExecutor(workers) as threads:
            for _ in range(given.repeats):
                for name, side in sides.items():
                    started = time.perf_counter()
                    for _ in threads.map(side, files):
                        pass
                    rates[name].append(len(files) / (time.perf_counter() - started))
        for name in list(sides)[1:]:
            difference = float(np.abs(pictures["featstore"] - pictures[name]).mean())
            case = f"{len(files)} photographs to {given.size} px, {workers} threads, against {name}"
            same = difference <= _MOST_DIFFERENCE
            rows.append(row(case, rates["featstore"], rates[name], "images/s", same, mean_difference=difference))
    report("decode", rows, ("pillow", "keras", "tensorflow"), as_json=given.json, save=given.save)


if __name__ == "__main__":
    main()
