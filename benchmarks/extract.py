"""Extraction against the tutorials' loops: files → features, all sides in one run, interleaved, and checked to agree.

    python benchmarks/extract.py DATA [--case vgg16:150 …] [--images N] [--repeats 3] [--json | --save]

Ours: `featstore.extract` into an empty store, decoding and committing included. The networks of all sides are open
before the clock starts, so that no start-up is counted, and none hides other work. Default settings, float32, and int8
where the weights are real. Baselines, with the same weights, average pooling and Keras's preprocessing:

- loop: `ImageDataGenerator.flow_from_directory` and `model.predict` on each batch of 20, into a NumPy array, as the
  cats-versus-dogs tutorials do;
- dataset: `image_dataset_from_directory` and one `model.predict`. It shrinks pictures without antialiasing, so that its
  features are of other pixels: they are held against our base's on these;
- timm in PyTorch, where both are installed, for VGG16: of the others its networks differ from Keras's in strides or
  padding, and could not be held against ours;
- base alone: our own graph on pictures that are decoded and in memory already, which no extraction can exceed; here the
  ratio is the share of it that is kept. For all bases in one extraction, the sum of their times;
- writing alone: the seconds that an extraction spends on segments, against all of its seconds.

A base whose ImageNet weights cannot be had is run with random ones: its speed is the same, and rows still must agree.
Same result: every row's cosine to the other side's is at least 0.99 (0.9999 in float32; 0.9 in int8).

What lower precisions cost in accuracy: logistic regression on the features of all images of DATA against that on the
loop's, its C chosen on validation, judged on validation and test together; same: within 0.3 points (0.5 in int8).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

with contextlib.suppress(ImportError):
    import timm  # noqa: F401 - before TensorFlow: torchvision crashes when it is loaded after it

import numpy as np
from harness import add_options, report, row
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import featstore
from featstore.backbone import BATCH_SIZE, GraphSpec, preprocess
from featstore.errors import InputError
from featstore.extraction import lane
from featstore.job import Job, resolve_jobs
from featstore.records import SPLITS
from featstore.runtime import Runtime
from featstore.runtime.graph_files import calibrations, card_of
from featstore.runtime.openvino import converted
from featstore.spec import PixelSpec, Spec
from featstore.weights import Base, read_tensors, resolve

_LOOP_BATCH = 20
_CASES = ("vgg16:150", "xception:150", "resnet50:224")
_LIBRARIES = ("tensorflow", "keras", "openvino", "nncf", "pillow", "scikit-learn", "blake3", "torch", "timm")
_SIDES = (1024, 2048, 4096)
_LEAST_COSINE = {"float32": 0.9999, "bfloat16": 0.99, "float16": 0.99, "int8": 0.9}

_KERAS = (_LOOP, _DATASET) = ("the loop of ImageDataGenerator", "image_dataset_from_directory")
_TIMM = "timm in PyTorch"
_ALONE = "the base alone"

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


def by_timm(base: Base, folder: Path, size: int) -> Side:
    """VGG16 of timm with the same weights, a DataLoader with two workers; float32, as it comes."""
    import timm
    import torch

    model = timm.create_model("vgg16", pretrained=False).features.eval()
    tensors = read_tensors(base)
    layers = [layer for layer in model if isinstance(layer, torch.nn.Conv2d)]
    with torch.inference_mode():
        for layer, kernel, bias in zip(layers, tensors[::2], tensors[1::2], strict=True):
            layer.weight.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()))
            layer.bias.copy_(torch.from_numpy(bias))
    files = sorted((folder / "all").iterdir())

    @torch.inference_mode()
    def run() -> tuple[np.ndarray, float]:
        started = time.perf_counter()
        mean = torch.tensor([103.939, 116.779, 123.68])  # of Keras's preprocess_input, blue first
        rows = []
        for pixels in torch.utils.data.DataLoader(Pictures(files, size), BATCH_SIZE, num_workers=2):
            values = (pixels.float().flip(-1) - mean).permute(0, 3, 1, 2)
            rows.append(model(values).mean((2, 3)).numpy())
        return np.concatenate(rows), time.perf_counter() - started

    return run


def of_its_pixels(runtime: Runtime, folder: Path, size: int) -> np.ndarray:
    """Our base's features of the pixels that ``image_dataset_from_directory`` makes."""
    import keras

    images = keras.utils.image_dataset_from_directory(
        folder, labels=None, image_size=(size, size), batch_size=BATCH_SIZE, shuffle=False, verbose=False
    )
    return np.concatenate([runtime(np.rint(batch).astype(np.uint8)) for batch in images.as_numpy_iterator()])


class Ours:
    """An extraction into an empty store. seconds, writing : of each run, all of it and what segments took."""

    def __init__(self, request: featstore.Request, folder: Path) -> None:
        self._request = request
        self._images = featstore.open_dataset(sorted((folder / "all").iterdir()))
        self.seconds: list[float] = []
        self.writing: list[float] = []

    def __call__(self) -> tuple[np.ndarray, float]:
        """Its features, and its seconds."""
        with tempfile.TemporaryDirectory() as store:
            started = time.perf_counter()
            done = featstore.extract(self._images, self._request, store=store)
            self.seconds.append(time.perf_counter() - started)
            self.writing.append(done.report.stages["write"])
            table = featstore.load_table(self._images, done.jobs[0].spec, split="unlabelled", store=store)
            return table.X, self.seconds[-1]


def opened_once(real: Callable[..., Runtime]) -> Callable[..., Runtime]:
    """``open_runtime``, which gives what is open already. A lane opens its base while pictures are decoded: taking that
    time off would take off their decoding, too.
    """
    opened: dict[tuple[object, ...], Runtime] = {}

    def open_one(graph: GraphSpec, *how: Any) -> Runtime:
        key = graph.key(), graph.precision, *how
        if key not in opened:
            opened[key] = real(graph, *how)
        return opened[key]

    return open_one


def alone(runtime: Runtime, folder: Path, size: int) -> Side:
    """The base on pictures in memory."""
    from featstore.decode import decode

    files = sorted((folder / "all").iterdir())
    images = np.stack([decode(file.read_bytes(), [PixelSpec((size, size))])[0] for file in files])

    def run() -> tuple[np.ndarray, float]:
        started = time.perf_counter()
        rows = [runtime(images[start : start + BATCH_SIZE]) for start in range(0, len(images), BATCH_SIZE)]
        return np.concatenate(rows), time.perf_counter() - started

    return run


@dataclass(frozen=True)
class Case:
    """A base at a size, with ImageNet weights or, if these cannot be had, with random ones."""

    base: Base
    weights: str
    size: int

    @classmethod
    def of(cls, words: str) -> Case:
        """Of ``vgg16:150``."""
        backbone, _, size = words.partition(":")
        base, weights = base_of(backbone)
        return cls(base, weights, int(size) if size else base.backbone.default_size)

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.base.backbone.name} ({self.weights}), {self.size} px"

    def request(self, precision: str = "auto") -> featstore.Request:
        """What is asked of featstore."""
        name = self.base.backbone.name
        return featstore.Request(name, weights=self.weights, image_size=self.size, precision=precision)

    def job(self, images: featstore.Dataset, precision: str = "auto") -> Job:
        """The same, settled; int8 is calibrated on images to train on, if it has not been."""
        with tempfile.TemporaryDirectory() as empty:
            [job] = resolve_jobs([self.request(precision)], featstore.Store.open(empty), images)
        return job

    def runtime(self, images: featstore.Dataset, precision: str = "auto") -> Runtime:
        """What an extraction computes with, and finds open from now on."""
        job = self.job(images, precision)
        return lane.open_runtime(GraphSpec.of(job.base, job.spec), job.runtime, job.device)


def interleaved(sides: Mapping[str, Side], repeats: int) -> tuple[dict[str, np.ndarray], dict[str, list[float]]]:
    """Every side's features, and its images/s in each repeat."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    features: dict[str, np.ndarray] = {}
    for _ in range(repeats):
        for name, side in sides.items():
            features[name], seconds = side()
            rates[name].append(len(features[name]) / seconds)
    return features, rates


def compare(case: Case, images: featstore.Dataset, folder: Path, repeats: int) -> Iterator[dict[str, Any]]:
    """A row for each precision against each baseline: images/s, their ratio, and whether both computed the same."""
    runtime = case.runtime(images)
    precisions = [runtime.precision, *(["float32"] if runtime.precision != "float32" else [])]
    precisions += ["int8"] if case.weights == "imagenet" and find_spec("nncf") else []
    model = keras_model(case.base, case.size)
    extractions = {precision: Ours(case.request(precision), folder) for precision in precisions}
    sides: dict[str, Side] = dict(extractions)
    sides |= {_LOOP: loop(model, case.base, folder, case.size), _DATASET: dataset(model, case.base, folder, case.size)}
    if case.base.backbone.name == "vgg16" and find_spec("torch") and find_spec("timm"):
        sides[_TIMM] = by_timm(case.base, folder, case.size)
    sides[_ALONE] = alone(runtime, folder, case.size)
    runtimes = {precision: case.runtime(images, precision) for precision in precisions}
    features, rates = interleaved(sides, repeats)
    default, *others = precisions
    loops = [*_KERAS, *([_TIMM] if _TIMM in sides else [])]
    pairs = [(default, name) for name in (*loops, _ALONE)]
    pairs += [(other, name) for other in others if other == "float32" for name in loops]
    pairs += [("int8", default)] if "int8" in others else []
    for mine, theirs in pairs:
        compared = of_its_pixels(runtimes[mine], folder, case.size) if theirs == _DATASET else features[mine]
        cosine = _least_cosine(compared, features[theirs])
        same = cosine >= _LEAST_COSINE[mine]
        about = f"{case.name}, {mine}, {len(features[mine])} images, against {theirs}"
        price = {}
        if mine == "int8":
            price = _price(features["int8"], features["float32"], case.job(images, "int8").spec)
            about += (
                f" (cosine to float32: {price['median_cosine']:.4f} in the median, {price['least_cosine']:.4f} at least"
            )
            about += f"; calibrated in {price['calibration_seconds']:.0f} s)"
        yield row(about, rates[mine], rates[theirs], "images/s", same, **{"least_cosine": cosine, **price})
    mine = extractions[default]
    about = f"{case.name}, {default}, {len(features[default])} images: the whole extraction, against writing alone"
    yield row(about, mine.seconds, mine.writing, "s", same_result=True)


def _price(rows: np.ndarray, exact: np.ndarray, spec: Spec) -> dict[str, float]:
    """What int8 costs: cosines to the rows in float32, and the seconds that its calibration took, once."""
    cosines = _cosines(rows, exact)
    seconds = card_of(calibrations() / str(spec.calibration))["seconds"]
    return {
        "median_cosine": float(np.median(cosines)),
        "least_cosine": float(cosines.min()),
        "calibration_seconds": seconds,
    }


def utilisation(case: Case, images: featstore.Dataset, folder: Path, repeats: int) -> dict[str, Any]:
    """A row of the base's GFLOP/s, against those of the fastest matrix product in the same precision and library."""
    job = case.job(images)
    graph = GraphSpec.of(job.base, job.spec)
    base, gflop = alone(case.runtime(images), folder, case.size), _operations(converted(graph)) / BATCH_SIZE / 1e9
    product = _product(job.spec.precision)
    mine, theirs = [], []
    for _ in range(repeats):
        rows, seconds = base()
        mine.append(len(rows) * gflop / seconds)
        theirs.append(product())
    about = f"{case.name}, {job.spec.precision}, {gflop:.3g} GFLOP an image: the base alone, against a matrix product"
    return row(about, mine, theirs, "GFLOP/s", same_result=True)


def _operations(model: Any) -> int:
    """Of one pass through an OpenVINO graph: two for every multiply-add of its convolutions and matrix products."""
    count = 0
    for op in model.get_ordered_ops():
        if op.get_type_name() in ("Convolution", "GroupConvolution"):  # weights: (…, channels in, height, width)
            count += 2 * int(np.prod(op.output(0).shape) * np.prod(list(op.input_value(1).get_shape())[-3:]))
        elif op.get_type_name() == "MatMul":
            count += 2 * int(np.prod(op.output(0).shape)) * list(op.input_value(0).get_shape())[-1]
    return count


def _product(precision: str) -> Callable[[], float]:
    """GFLOP/s of the fastest product of two square matrices: the machine's peak, as far as a library reaches it."""
    products = [_square(side, precision) for side in _SIDES]
    return lambda: max(product() for product in products)


def _square(side: int, precision: str) -> Callable[[], float]:
    """GFLOP/s of the product of two matrices of ``side`` by ``side``: the best of as many as make 275 GFLOP."""
    import openvino
    from openvino import opset13 as opset

    numbers = np.random.default_rng(0).random((side, side), np.float32)
    left = opset.parameter([side, side], np.float32)
    model = openvino.Model([opset.matmul(left, opset.constant(numbers), False, False)], [left])
    hints = {"INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision]}
    compiled = openvino.Core().compile_model(model, "CPU", {**hints, "PERFORMANCE_HINT": "LATENCY"})

    def run() -> float:
        started = time.perf_counter()
        compiled(numbers, share_inputs=True, share_outputs=True)
        return 2 * side**3 / (time.perf_counter() - started) / 1e9

    run()
    return lambda: max(run() for _ in range(2 * (max(_SIDES) // side) ** 3))


def together(cases: Sequence[Case], folder: Path, repeats: int) -> dict[str, Any]:
    """A row for all bases in one extraction: seconds, against the sum of what each takes alone."""
    requests = [case.request() for case in cases]
    images = featstore.open_dataset(sorted((folder / "all").iterdir()))
    bases = [alone(case.runtime(images), folder, case.size) for case in cases]
    mine, theirs, same = [], [], True
    for _ in range(repeats):
        each = [base() for base in bases]
        theirs.append(sum(seconds for _, seconds in each))
        with tempfile.TemporaryDirectory() as store:
            started = time.perf_counter()
            done = featstore.extract(images, requests, store=store)
            mine.append(time.perf_counter() - started)
            for job, (rows, _) in zip(done.jobs, each, strict=True):
                same &= np.array_equal(featstore.load_table(images, job.spec, split="unlabelled", store=store).X, rows)
    names = " + ".join(f"{case.base.backbone.name}:{case.size}" for case in cases)
    about = f"{names} in one extraction, {len(images)} images, against the sum of the bases alone"
    return row(about, mine, theirs, "s", same)


def accuracies(case: Case, images: featstore.Dataset, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each precision: accuracy of logistic regression on its features, against that on the loop's."""
    files = copied(images, len(images), folder)
    expected = _accuracy(loop(keras_model(case.base, case.size), case.base, files, case.size)()[0], images)
    for precision in ("auto", *(["int8"] if find_spec("nncf") else [])):
        job = case.job(images, precision)
        found = _accuracy(Ours(case.request(precision), files)()[0], images)
        same = found >= expected - (0.005 if precision == "int8" else 0.003)
        about = f"{case.name}, {job.spec.precision}: accuracy of logistic regression, against the loop's features"
        yield row(about, [found], [expected], "", same)


def _accuracy(features: np.ndarray, images: featstore.Dataset) -> float:
    """On validation and test together, of the C that is best on validation."""
    train, validation, test = (images.splits == SPLITS.index(name) for name in SPLITS[:3])
    scaled = StandardScaler().fit(features[train]).transform(features)
    best, chosen = -1.0, None
    for c in np.logspace(-5, 1, 13):
        head = LogisticRegression(C=c, max_iter=2000).fit(scaled[train], images.labels[train])
        score = head.score(scaled[validation], images.labels[validation])
        if score > best:
            best, chosen = score, head
    both = validation | test
    return float(chosen.score(scaled[both], images.labels[both]))


def _least_cosine(mine: np.ndarray, theirs: np.ndarray) -> float:
    return float(_cosines(mine, theirs).min())


def _cosines(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1)
    return (mine * theirs).sum(axis=1) / norms


def copied(found: featstore.Dataset, count: int, to: Path) -> Path:
    """``count`` images of all kinds as one class folder, named so that all sides read them in one order."""
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
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--repeats", type=int, default=3)
    add_options(parser)
    given = parser.parse_args(words)
    lane.open_runtime = opened_once(lane.open_runtime)
    images = featstore.open_dataset(given.data)
    cases = [Case.of(words) for words in given.case or _CASES]
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = copied(images, given.images, Path(place))
        for case in cases:
            rows += compare(case, images, folder, given.repeats)
            rows.append(utilisation(case, images, folder, given.repeats))
        if len(cases) > 1:
            rows.append(together(cases, folder, given.repeats))
    for case in cases:
        if case.weights == "imagenet":
            with tempfile.TemporaryDirectory() as place:
                rows += accuracies(case, images, Path(place))
    report(
        "extract",
        rows,
        _LIBRARIES,
        as_json=given.json,
        save=given.save,
    )


if __name__ == "__main__":
    main()
