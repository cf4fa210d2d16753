"""Extraction against the tutorials' loops: files → features, all sides in one run, interleaved, and checked to agree.

    python benchmarks/extract.py DATA [--case vgg16:150 …] [--precision auto] [--images N] [--repeats 3] [--json]

Ours: `featstore.extract` into an empty store, decoding and committing included, start-up left out on all sides.
Baselines, with the same weights, average pooling and Keras's preprocessing:

- loop: `ImageDataGenerator.flow_from_directory` and `model.predict` on each batch of 20, into a NumPy array, as the
  cats-versus-dogs tutorials do;
- dataset: `image_dataset_from_directory` and one `model.predict`. It shrinks pictures without antialiasing, so that its
  features are of other pixels: they are held against our base's on these;
- base alone: our own graph on pictures that are decoded and in memory already, which no extraction can exceed; here the
  ratio is the share of it that is kept.

A base whose ImageNet weights cannot be had is run with random ones: its speed is the same, and rows still must agree.
Same result: every row's cosine to the other side's is at least 0.99 (0.9999 in float32).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from harness import add_options, report, row

import featstore
from featstore.backbone import BATCH_SIZE, GraphSpec, preprocess
from featstore.catalog import find
from featstore.errors import InputError
from featstore.runtime import Runtime, open_runtime
from featstore.weights import Base, read_tensors, resolve

_LOOP_BATCH = 20
_CASES = ("vgg16:150", "xception:150", "resnet50:224")
_LEAST_COSINE = {"float32": 0.9999, "bfloat16": 0.99, "float16": 0.99, "int8": 0.9}

Side = Callable[[], tuple[np.ndarray, float]]
"""Features, float32 (N, C), in the order of the files' names, and the seconds that they took."""


def base_of(backbone: str) -> tuple[Base, str]:
    """With ImageNet weights, or random ones if these cannot be had."""
    try:
        return resolve(backbone), "imagenet"
    except InputError:
        return resolve(backbone, "random:0"), "random:0"


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


def dataset(model: Any, base: Base, folder: Path, size: int) -> Side:
    """``image_dataset_from_directory`` and one ``predict``."""
    import keras

    def run() -> tuple[np.ndarray, float]:
        started = time.perf_counter()
        images = keras.utils.image_dataset_from_directory(
            folder, labels=None, image_size=(size, size), batch_size=BATCH_SIZE, shuffle=False, verbose=False
        )
        images = images.map(lambda batch: preprocess(base.backbone, batch)).prefetch(2)
        return model.predict(images, verbose=0), time.perf_counter() - started

    return run


def of_its_pixels(runtime: Runtime, folder: Path, size: int) -> np.ndarray:
    """Our base's features of the pixels that ``image_dataset_from_directory`` makes."""
    import keras

    images = keras.utils.image_dataset_from_directory(
        folder, labels=None, image_size=(size, size), batch_size=BATCH_SIZE, shuffle=False, verbose=False
    )
    return np.concatenate([runtime(np.rint(batch).astype(np.uint8)) for batch in images.as_numpy_iterator()])


def ours(request: featstore.Request, folder: Path) -> Side:
    """An extraction into an empty store."""
    images = featstore.open_dataset(sorted((folder / "all").iterdir()))

    def run() -> tuple[np.ndarray, float]:
        with tempfile.TemporaryDirectory() as store:
            started = time.perf_counter()
            done = featstore.extract(images, request, store=store)
            seconds = time.perf_counter() - started - done.report.stages["startup"]
            return featstore.load_table(images, done.jobs[0].spec, split="unlabelled", store=store).X, seconds

    return run


def alone(runtime: Runtime, folder: Path, size: int) -> Side:
    """The base on pictures in memory."""
    from featstore.decode import decode
    from featstore.spec import PixelSpec

    files = sorted((folder / "all").iterdir())
    images = np.stack([decode(file.read_bytes(), [PixelSpec((size, size))])[0] for file in files])

    def run() -> tuple[np.ndarray, float]:
        started = time.perf_counter()
        rows = [runtime(images[start : start + BATCH_SIZE]) for start in range(0, len(images), BATCH_SIZE)]
        return np.concatenate(rows), time.perf_counter() - started

    return run


def compare(backbone: str, size: int, precision: str, folder: Path, repeats: int) -> Iterator[dict[str, Any]]:
    """A row against each baseline: median images/s, their ratio, and whether both computed the same."""
    base, weights = base_of(backbone)
    request = featstore.Request(backbone, weights=weights, image_size=size, precision=precision)
    with tempfile.TemporaryDirectory() as empty:
        store = featstore.Store.open(empty)
        [job] = featstore.job.resolve_jobs([request], store, featstore.open_dataset(folder))
    spec = job.spec
    runtime = open_runtime(GraphSpec.of(job.base, spec), job.runtime, job.device)
    model = keras_model(base, size)
    sides = {
        "featstore": ours(request, folder),
        "the loop of ImageDataGenerator": loop(model, base, folder, size),
        "image_dataset_from_directory": dataset(model, base, folder, size),
        "the base alone": alone(runtime, folder, size),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    features: dict[str, np.ndarray] = {}
    for _ in range(repeats):
        for name, side in sides.items():
            features[name], seconds = side()
            rates[name].append(len(features[name]) / seconds)
    mine = features.pop("featstore")
    for name, theirs in features.items():
        same_pixels = of_its_pixels(runtime, folder, size) if name == "image_dataset_from_directory" else mine
        cosine = _least_cosine(same_pixels, theirs)
        same = cosine >= _LEAST_COSINE[spec.precision]
        case = f"{backbone} ({weights}), {size} px, {spec.precision}, {len(mine)} images, against {name}"
        yield row(case, rates["featstore"], rates[name], "images/s", same, least_cosine=cosine)


def _least_cosine(mine: np.ndarray, theirs: np.ndarray) -> float:
    norms = np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((mine * theirs).sum(axis=1) / norms).min())


def copied(data: Path, count: int, to: Path) -> Path:
    """The first ``count`` images of every kind as one class folder, named so that all sides read them in one order."""
    found = featstore.open_dataset(data)
    (to / "all").mkdir()
    chosen = np.linspace(0, len(found) - 1, min(count, len(found))).astype(int)
    for number, i in enumerate(chosen.tolist()):
        source = Path(found.source.location, found.paths[i])
        shutil.copyfile(source, to / "all" / f"{number:06d}{source.suffix}")
    return to


def main(words: Sequence[str] | None = None) -> None:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--case", action="append", help=f"BACKBONE:SIZE, may repeat (default: {', '.join(_CASES)})")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--repeats", type=int, default=3)
    add_options(parser)
    given = parser.parse_args(words)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        copied(given.data, given.images, Path(folder))
        for case in given.case or _CASES:
            backbone, _, size = case.partition(":")
            known = int(size) if size else find(backbone).default_size
            rows += compare(backbone, known, given.precision, Path(folder), given.repeats)
    report("extract", rows, ("tensorflow", "keras", "openvino", "pillow"), as_json=given.json, save=given.save)


if __name__ == "__main__":
    main()
