"""What it takes until a base computes: one new photograph, in a process of its own from its start to its end.

    python benchmarks/startup.py DATA [--backbone vgg16 …] [--repeats 3] [--json | --save]

Ours: `extract` of one photograph with the converted graph in the cache. Baselines: the same with an empty cache of
graphs (the weights are there; converting them comes on top), and a process that imports Keras, builds the same base,
loads the same weights and predicts the same picture.

Same result: the row of both extractions is the same to the bit; Keras's has a cosine of at least 0.99 to it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import add_options, report, row

import featstore
from featstore.folders import cache_folder
from featstore.store import Store
from featstore.weights import resolve

_SIZE = 150
_LEAST_COSINE = 0.99
_PREPARE = """
import sys
import keras
from featstore.weights import read_tensors, resolve
name, size, out = sys.argv[1:]
base = resolve(name)
model = getattr(keras.applications, base.backbone.keras_name)(
    include_top=False, weights=None, input_shape=(int(size), int(size), 3), pooling="avg")
model.set_weights(read_tensors(base))
model.save_weights(out)
"""
_KERAS = """
import importlib, sys
import keras, numpy as np
name, module, size, weights, picture, out = sys.argv[1:]
size = int(size)
model = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg")
model.load_weights(weights)
pixels = keras.utils.img_to_array(keras.utils.load_img(picture, target_size=(size, size), interpolation="bilinear"))
preprocess = importlib.import_module(f"keras.applications.{module}").preprocess_input
np.save(out, model.predict(preprocess(pixels[None]), verbose=0))
"""


def one_process(code: str, *words: object, cache: Path | None = None) -> float:
    """Run Python code with these words; its seconds."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if cache is not None:
        environment["XDG_CACHE_HOME"] = str(cache)
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *map(str, words)], check=True, capture_output=True, env=environment)
    return time.perf_counter() - started


def extract(photograph: Path, name: str, store: Path, cache: Path) -> tuple[float, np.ndarray]:
    """Seconds of a process that extracts one photograph, and its features (1, D)."""
    words = ("extract", photograph, "-b", name, "--image-size", _SIZE, "--store", store)
    seconds = one_process("from cli import app; app()", *words, cache=cache)
    [namespace] = Store.open(store).namespaces()
    digest = np.frombuffer(hashlib.sha256(photograph.read_bytes()).digest(), np.uint8)
    return seconds, np.asarray(namespace.snapshot().read(digest.reshape(1, -1)))


def start(name: str, photographs: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The rows of one base; a repeat for each photograph."""
    backbone = resolve(name).backbone
    seconds: dict[str, list[float]] = {"cached": [], "first": [], "keras": []}
    alike = near = True
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        one_process(_PREPARE, name, _SIZE, place / "base.weights.h5")
        for number, photograph in enumerate(photographs):
            cache = place / f"cache-{number}"
            (cache / "featstore").mkdir(parents=True)
            (cache / "featstore" / "weights").symlink_to(cache_folder() / "weights")
            found = {}
            for way in ("first", "cached"):
                taken, found[way] = extract(photograph, name, place / f"store-{number}-{way}", cache)
                seconds[way].append(taken)
            words = (backbone.keras_name, backbone.module, _SIZE, place / "base.weights.h5", photograph)
            seconds["keras"].append(one_process(_KERAS, *words, place / "features.npy"))
            alike &= found["first"].tobytes() == found["cached"].tobytes()
            theirs = np.load(place / "features.npy")
            cosine = float((theirs * found["cached"]).sum() / np.linalg.norm(theirs) / np.linalg.norm(found["cached"]))
            near &= cosine >= _LEAST_COSINE
    about = f"{name}: one new photograph, its graph in the cache"
    yield row(f"{about}, against the first time", seconds["cached"], seconds["first"], "s", alike)
    yield row(f"{about}, against building and loading it in Keras", seconds["cached"], seconds["keras"], "s", near)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--backbone", action="append", default=None, metavar="NAME")
    parser.add_argument("--repeats", type=int, default=3)
    add_options(parser)
    given = parser.parse_args()
    images = featstore.open_dataset(given.data)
    photographs = [given.data / path for path in images.paths[: given.repeats]]
    rows = [one for name in given.backbone or ["vgg16", "xception"] for one in start(name, photographs)]
    report("startup", rows, ("keras", "tensorflow", "openvino"), as_json=given.json, save=given.save)


if __name__ == "__main__":
    main()
