"""The demo: from nothing to a trained classifier in a few minutes, and the second run that computes nothing."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.progress import Progress, silent
from featstore.spec import PixelSpec, Spec
from featstore.store import Store
from featstore.table import Table
from heads.bundles.card import Origin
from heads.demo_images import PATCH, write_demo_dataset
from heads.training.results import Comparison, TrainingSet, ranked
from heads.training.train import TrainOptions, train

BACKBONES = ("vgg16", "xception")
HEADS = ("logreg", "linear-svm")

BASELINE = "raw pixels"
_BASELINE_SIZE = 16
"""Height and width of the baseline's pictures; 32 and 48 pixels do no better and take ten times as long."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """One extraction: the tables of every backbone, the images, the rows computed for them, and the wall seconds."""

    sets: tuple[TrainingSet, ...]
    images: int
    computed: int
    seconds: float


Extract = Callable[[Path], Extracted]
"""Extract every backbone's features of the dataset in a folder, and read them back."""


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What the demo did: both extractions, the trained heads (the baseline last), and the seconds of all of it."""

    folder: Path
    first: Extracted
    second: Extracted
    trained: Comparison
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """``{"folder", "images", "runs": [{"computed", "seconds"}, …], "results": [...], "seconds"}``."""
        runs = [{"computed": run.computed, "seconds": round(run.seconds, 3)} for run in (self.first, self.second)]
        return {
            "folder": str(self.folder),
            "images": self.first.images,
            "runs": runs,
            **self.trained.to_json(),
            "seconds": round(self.seconds, 3),
        }


def run_demo(
    folder: Path,
    bundles: Path,
    extract: Extract,
    *,
    say: Callable[[str], None],
    show: Callable[[Comparison], None],
    progress: Progress = silent,
    seed: int = 0,
) -> DemoReport:
    """Write the dataset to ``folder``, extract, train beside a baseline of raw pixels, and extract again.

    ``say`` gets plain sentences as the demo goes, ``show`` the leaderboard; :func:`featstore_extract` is the usual
    ``extract``. Raises what its parts raise.
    """
    started = time.perf_counter()
    write_demo_dataset(folder, seed)
    say(f"The images: patches of 17 photographs, a class each, in {folder}")
    first = extract(folder)
    say(f"Features of {first.images} images: {first.computed} rows computed in {first.seconds:.1f} s, and kept")
    baseline = TrainingSet(
        BASELINE, "flatten", (Origin(BASELINE, "none"),), lambda: pixel_tables(folder, _BASELINE_SIZE)
    )
    options = TrainOptions(seed=seed)
    on_features = train(first.sets, HEADS, bundles=bundles, options=options, progress=progress)
    on_pixels = train([baseline], HEADS[:1], bundles=None, options=options)
    both = ranked([*on_features.results, *on_pixels.results])
    trained = Comparison(both, on_features.classes, on_features.notes)
    show(trained)
    second = extract(folder)
    say(f"The same again: {second.computed} rows computed, {second.seconds:.1f} s")
    report = DemoReport(folder, first, second, trained, time.perf_counter() - started)
    for line in next_steps(report):
        say(line)
    return report


def featstore_extract(store: Store, progress: Progress = silent) -> Extract:
    """The real thing: BACKBONES at the patches' own size, into and from ``store``.

    Raises InputError at once if their weights cannot be had.
    """
    from featstore import api
    from featstore.weights import resolve

    for name in BACKBONES:
        resolve(name, progress=progress)

    def extract(folder: Path) -> Extracted:
        started = time.perf_counter()
        done = api.extract(folder, BACKBONES, store=store, progress=progress, image_size=PATCH)
        sets = tuple(
            TrainingSet(
                job.base.backbone.name,
                job.spec.pooling,
                (Origin(job.base.backbone.name, job.base.origin),),
                partial(api.load_tables, folder, job.spec, store=store),
            )
            for job in done.jobs
        )
        computed = sum(spec.computed for spec in done.report.specs)
        return Extracted(sets, len(done.digests), computed, time.perf_counter() - started)

    return extract


def pixel_tables(folder: Path, size: int) -> Mapping[str, Table]:
    """The tables of a baseline without any backbone, by split: X is the grey pixels of ``size`` × ``size`` pictures.

    ``folder`` holds SPLIT/CLASS/*.png.
    """
    spec = Spec(BASELINE, "none", "none", (size, size), preprocessing="none", pooling="flatten")
    splits = sorted(path for path in folder.iterdir() if path.is_dir())
    classes = tuple(sorted({path.name for split in splits for path in split.iterdir()}))
    return {split.name: _pixel_table(folder, split.name, classes, spec) for split in splits}


def _pixel_table(folder: Path, split: str, classes: Sequence[str], spec: Spec) -> Table:
    from featstore.decode import decode

    files = sorted((folder / split).glob("*/*.png"))
    contents = [file.read_bytes() for file in files]
    paths = tuple(file.relative_to(folder).as_posix() for file in files)
    return Table(
        X=np.stack([_grey(decode(data, [PixelSpec(spec.image_size)])[0]) for data in contents]),
        y=np.array([classes.index(file.parent.name) for file in files], np.int64),
        ids=paths,
        paths=paths,
        classes=tuple(classes),
        digests=np.array([tuple(hashlib.sha256(data).digest()) for data in contents], np.uint8),
        split=split,
        specs=(spec,),
        widths=(spec.image_size[0] * spec.image_size[1],),
        views=np.zeros(len(files), np.uint16),
    )


def _grey(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return np.asarray(pixels.mean(axis=2, dtype=np.float32).ravel())


def next_steps(report: DemoReport) -> tuple[str, ...]:
    """What to type for one's own images, line by line."""
    best = next(result for result in report.trained.results if result.bundle is not None)
    picture = min((report.folder / "test").glob("*/*.png"))
    return (
        "",
        "Your own images, a folder a class:",
        f"  featstore train path/to/images --backbone {best.backbone} --head {best.head}",
        "What is it? The best head of this demo, asked:",
        f"  featstore predict {best.bundle} {picture}",
        "Features of other backbones, to compare:",
        "  featstore extract path/to/images --backbone resnet50 --backbone xception",
    )
