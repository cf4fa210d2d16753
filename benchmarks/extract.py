"""Extraction against the tutorials' loop: files → features, both sides in one run, interleaved, and checked to agree.

    python benchmarks/extract.py DATA [--images 100] [--repeats 3] [--image-size 150] [--json]

Ours: `featstore.extract` into an empty store, start-up left out on both sides. Baseline: `load_img` one file after
another and `model.predict` on batches of 20, as the cats-versus-dogs tutorials do. Both use VGG16 with ImageNet
weights, average pooling and Keras's preprocessing. Same result: every row's cosine to the baseline's is at least 0.995.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import report, row

import featstore
from featstore.weights import read_tensors, resolve

_BATCH = 20
_LEAST_COSINE = 0.995


def tutorial_loop(size: int) -> Callable[[list[Path]], np.ndarray]:
    """The baseline: a function from files to features, float32 (N, 512)."""
    import keras

    base = keras.applications.VGG16(weights=None, include_top=False, input_shape=(size, size, 3), pooling="avg")
    base.set_weights(read_tensors(resolve("vgg16")))
    base.predict(np.zeros((_BATCH, size, size, 3)), verbose=0)

    def run(files: list[Path]) -> np.ndarray:
        rows = []
        for start in range(0, len(files), _BATCH):
            pictures = [
                keras.utils.img_to_array(keras.utils.load_img(f, target_size=(size, size), interpolation="bilinear"))
                for f in files[start : start + _BATCH]
            ]
            rows.append(base.predict(keras.applications.vgg16.preprocess_input(np.stack(pictures)), verbose=0))
        return np.concatenate(rows)

    return run


def ours(files: list[Path], size: int) -> tuple[np.ndarray, float]:
    """Features of the files from an empty store, float32 (N, 512), and the seconds without start-up."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = featstore.open_dataset(files)
        started = time.perf_counter()
        done = featstore.extract(dataset, "vgg16", store=folder, image_size=size)
        seconds = time.perf_counter() - started - done.report.stages["startup"]
        return featstore.load_table(dataset, done.jobs[0].spec, split="unlabelled", store=folder).X, seconds


def compare(files: list[Path], size: int, repeats: int) -> dict[str, Any]:
    """One row of the report: median images/s of both sides, their ratio, and whether they computed the same."""
    baseline = tutorial_loop(size)
    rates: dict[str, list[float]] = {"ours": [], "baseline": []}
    cosine = 1.0
    for _ in range(repeats):
        mine, seconds = ours(files, size)
        rates["ours"].append(len(files) / seconds)
        started = time.perf_counter()
        theirs = baseline(files)
        rates["baseline"].append(len(files) / (time.perf_counter() - started))
        norms = np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1)
        cosine = min(cosine, float(((mine * theirs).sum(axis=1) / norms).min()))
    return row(
        f"vgg16, {size} px, {len(files)} images",
        rates["ours"],
        rates["baseline"],
        "images/s",
        cosine >= _LEAST_COSINE,
        least_cosine=cosine,
    )


def main() -> None:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=150)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    dataset = featstore.open_dataset(given.data)
    files = [Path(dataset.source.location, path) for path in dataset.paths[: given.images]]
    rows = [compare(files, given.image_size, given.repeats)]
    report("extract", rows, ("tensorflow", "keras", "openvino"), as_json=given.json)


if __name__ == "__main__":
    main()
