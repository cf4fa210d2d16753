"""Extraction against the tutorials' loops: files → features, all sides in one run, interleaved, and checked to agree.

    python benchmarks/extract.py DATA [--case vgg16:150 …] [--images N] [--repeats 3] [--json | --save]

Ours: `featstore.extract` into an empty store, decoding and committing included. The networks of all sides are open
before the clock starts, so that no start-up is counted, and none hides other work. Default settings, float32, and int8
where the weights are real. Baselines, with the same weights, average pooling and Keras's preprocessing:

- loop: `ImageDataGenerator.flow_from_directory` and `model.predict` on each batch of 20, into a NumPy array, as the
  cats-versus-dogs tutorials do;
- dataset: `image_dataset_from_directory` and one `model.predict`. It shrinks pictures without antialiasing, so that its
  features are of other pixels: they are held against our base's on these. After its last batch it may wait for
  up to ten seconds, for a thread that tunes tf.data: so it has a row with and one without what comes after it;
- timm in PyTorch in the same precision, where both are installed, for VGG16: of the others its networks differ from
  Keras's in strides or padding, and could not be held against ours;
- base alone: our own graph on pictures that are decoded and in memory already, which no extraction can exceed; here the
  ratio is the share of it that is kept. For all bases in one extraction, the sum of their times;
- writing: the seconds that an extraction spends on segments, against 3 % of all its seconds.

A base whose ImageNet weights cannot be had is run with random ones: its speed is the same, and rows still must agree.
Same result: every row's cosine to the other side's is at least 0.99 (0.9999 in float32, and 0.999 on pixels that the
dataset makes with fractions and ours rounds; 0.9 in int8), and, the mean row taken off both, it is nearer to that row
than to any other image's: rows that all point one way prove nothing. And they are as long, to 5 % (20 % in int8).

What lower precisions cost in accuracy: logistic regression on the features of all images of DATA against that on the
loop's, its C chosen on validation, judged on validation and test together; same: within 0.3 points (0.5 in int8).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from baselines import ByDataset, Side, alone, by_timm, keras_model, loop, of_its_pixels  # first: it loads PyTorch
from cases import CASES, Case, as_long, copied, open_once, told_apart

# isort: split
import numpy as np
from harness import add_options, report, row
from peak import utilisation
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import featstore
from featstore.records import SPLITS
from featstore.runtime.graph_files import calibrations, card_of
from featstore.spec import Spec

_LIBRARIES = ("tensorflow", "keras", "openvino", "nncf", "pillow", "scikit-learn", "blake3", "torch", "timm")
_LEAST_COSINE = {"float32": 0.9999, "bfloat16": 0.99, "float16": 0.99, "int8": 0.9}
_ROUNDED = 0.999
_WRITING = 0.03

_KERAS = (_LOOP, _DATASET, _BUSY) = (
    "the loop of ImageDataGenerator",
    "image_dataset_from_directory",
    "image_dataset_from_directory until its last batch",
)
_TIMM = "timm in PyTorch"
_ALONE = "the base alone"


class Ours:
    """An extraction into an empty store. seconds, writing : of each run, all of it and what segments took."""

    def __init__(self, request: featstore.Request, folder: Path) -> None:
        self._request, self._folder = request, folder
        self.seconds: list[float] = []
        self.writing: list[float] = []

    def __call__(self) -> tuple[np.ndarray, float]:
        """Its features, and its seconds."""
        with tempfile.TemporaryDirectory() as store:
            started = time.perf_counter()
            images = featstore.open_dataset(sorted((self._folder / "all").iterdir()))
            done = featstore.extract(images, self._request, store=store)
            self.seconds.append(time.perf_counter() - started)
            self.writing.append(done.report.stages["write"])
            table = featstore.load_table(images, done.jobs[0].spec, split="unlabelled", store=store)
            return table.X, self.seconds[-1]


def interleaved(sides: Mapping[str, Side], repeats: int) -> tuple[dict[str, np.ndarray], dict[str, list[float]]]:
    """Every side's features, and its images/s in each repeat; every second repeat takes the sides in reverse."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    features: dict[str, np.ndarray] = {}
    for repeat in range(repeats):
        for name, side in reversed(sides.items()) if repeat % 2 else sides.items():
            found, seconds = side()
            rates[name].append(len(found) / seconds)
            if not np.allclose(features.setdefault(name, found), found, rtol=1e-2, atol=1e-2):
                raise SystemExit(f"{name} gave other features than the time before")
    return features, rates


def compare(case: Case, images: featstore.Dataset, folder: Path, repeats: int) -> Iterator[dict[str, Any]]:
    """A row for each precision against each baseline: images/s, their ratio, and whether both computed the same."""
    runtime = case.runtime(images)
    precisions = [runtime.precision, *(["float32"] if runtime.precision != "float32" else [])]
    precisions += ["int8"] if case.weights == "imagenet" and find_spec("nncf") else []
    model = keras_model(case.base, case.size)
    extractions = {precision: Ours(case.request(precision), folder) for precision in precisions}
    sides: dict[str, Side] = dict(extractions)
    by_dataset = ByDataset(model, case.base, folder, case.size)
    sides |= {_LOOP: loop(model, case.base, folder, case.size), _DATASET: by_dataset}
    timms = precisions[:2] if case.base.backbone.name == "vgg16" and find_spec("torch") and find_spec("timm") else []
    sides |= {f"{_TIMM}, {one}": by_timm(case.base, folder, case.size, one) for one in timms}
    sides[_ALONE] = alone(runtime, folder, case.size)
    runtimes = {precision: case.runtime(images, precision) for precision in precisions}
    features, rates = interleaved(sides, repeats)
    features[_BUSY] = features[_DATASET]
    rates[_BUSY] = [len(features[_BUSY]) / seconds for seconds in by_dataset.busy]
    default, *others = precisions
    pairs = [(one, name) for one in (default, *others) if one != "int8" for name in _KERAS]
    pairs += [(one, f"{_TIMM}, {one}") for one in timms] + [(default, _ALONE)]
    pairs += [("int8", default)] if "int8" in others else []
    for mine, theirs in pairs:
        compared = of_its_pixels(runtimes[mine], folder, case.size) if theirs in (_DATASET, _BUSY) else features[mine]
        cosine = float(_cosines(compared, features[theirs]).min())
        least = min(_LEAST_COSINE[mine], _ROUNDED if theirs in (_DATASET, _BUSY) else 1)
        same = cosine >= least and told_apart(compared, features[theirs])
        same &= as_long(compared, features[theirs], 0.2 if mine == "int8" else 0.05)
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
    about = f"{case.name}, {default}, {len(features[default])} images: writing, against {_WRITING:.0%} of the whole"
    yield row(about, mine.writing, [_WRITING * taken for taken in mine.seconds], "s", same_result=True)


def _price(rows: np.ndarray, exact: np.ndarray, spec: Spec) -> dict[str, float]:
    """What int8 costs: cosines to the rows in float32, and the seconds that its calibration took, once."""
    cosines = _cosines(rows, exact)
    seconds = card_of(calibrations() / str(spec.calibration))["seconds"]
    return {
        "median_cosine": float(np.median(cosines)),
        "least_cosine": float(cosines.min()),
        "calibration_seconds": seconds,
    }


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


def _cosines(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1)
    return (mine * theirs).sum(axis=1) / norms


def main(words: Sequence[str] | None = None) -> None:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--case", action="append", help=f"BACKBONE:SIZE, may repeat (default: {', '.join(CASES)})")
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--repeats", type=int, default=3)
    add_options(parser)
    given = parser.parse_args(words)
    open_once()
    images = featstore.open_dataset(given.data)
    cases = [Case.of(words) for words in given.case or CASES]
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = copied(images, given.images, Path(place))
        for case in cases:
            rows += compare(case, images, folder, given.repeats)
            rows += [utilisation(case, one, images, folder, given.repeats) for one in ("auto", "float32")]
        if len(cases) > 1:
            rows.append(together(cases, folder, given.repeats))
    for case in cases:
        if case.weights == "imagenet":
            with tempfile.TemporaryDirectory() as place:
                rows += accuracies(case, images, Path(place))
    report("extract", rows, _LIBRARIES, as_json=given.json, save=given.save)


if __name__ == "__main__":
    main()
