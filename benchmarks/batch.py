"""How many images a base computes at once: the batch that featstore always has, against smaller and larger ones.

    python benchmarks/batch.py DATA [--case vgg16:150 …] [--sizes 1 8 16 64 128] [--images N] [--repeats 3]
                                    [--json | --save]

The base alone, in its default precision, on pictures that are decoded and in memory. A row must not depend on how many
images happened to come together, so one number is for all bases; here is what another would have given.

Same result: every row's cosine to that of the usual batch is at least 0.999, and it is nearer to that row than to any
other image's.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from baselines import Side, alone
from cases import CASES, Case, as_long, copied, told_apart

# isort: split
import numpy as np
from harness import add_options, report, row

import featstore
from featstore.backbone import BATCH_SIZE, GraphSpec
from featstore.runtime.openvino import OpenVinoRuntime

_SIZES = (1, 8, 16, 64, 128)
_LEAST_COSINE = 0.999


def compare(
    case: Case, images: featstore.Dataset, folder: Path, sizes: Sequence[int], repeats: int
) -> Iterator[dict[str, Any]]:
    """A row for each other size: images/s of the usual batch, against those in batches of that size."""
    job = case.job(images)
    graph = GraphSpec.of(job.base, job.spec)
    sides: dict[int, Side] = {
        size: alone(OpenVinoRuntime(graph, batch_size=size), folder, case.size, batch_size=size)
        for size in (BATCH_SIZE, *sizes)
    }
    rates: dict[int, list[float]] = {size: [] for size in sides}
    features: dict[int, np.ndarray] = {}
    for _ in range(repeats):
        for size, side in sides.items():
            features[size], seconds = side()
            rates[size].append(len(features[size]) / seconds)
    usual = features[BATCH_SIZE]
    for size in sizes:
        norms = np.linalg.norm(usual, axis=1) * np.linalg.norm(features[size], axis=1)
        same = bool(((usual * features[size]).sum(axis=1) / norms >= _LEAST_COSINE).all())
        same &= told_apart(features[size], usual) and as_long(features[size], usual)
        about = f"{case.name}, {job.spec.precision}: {BATCH_SIZE} images at once, against {size}"
        yield row(about, rates[BATCH_SIZE], rates[size], "images/s", same)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--case", action="append", help=f"BACKBONE:SIZE, may repeat (default: {', '.join(CASES)})")
    parser.add_argument("--sizes", type=int, nargs="+", default=_SIZES)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    add_options(parser)
    given = parser.parse_args()
    images = featstore.open_dataset(given.data)
    with tempfile.TemporaryDirectory() as place:
        folder = copied(images, given.images, Path(place))
        cases = [Case.of(words) for words in given.case or CASES]
        rows = [one for case in cases for one in compare(case, images, folder, given.sizes, given.repeats)]
    report("batch", rows, ("openvino", "numpy"), as_json=given.json, save=given.save)


if __name__ == "__main__":
    main()
