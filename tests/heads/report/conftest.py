"""A comparison of heads on pictures with hostile names, made in a second."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore.dataset import Dataset
from featstore.dataset.sources import FolderSource
from featstore.extraction import Extraction, ExtractReport, RejectedImage
from featstore.records import SPLITS, Reason
from featstore.spec import Spec
from featstore.table import Table
from heads.bundles.card import Origin
from heads.kinds.problem import Curve
from heads.report.page import write_report
from heads.training.results import Comparison, TrainingSet
from heads.training.train import TrainOptions, train
from tests.pictures import png

CLASSES = ("<script>alert('class')</script>", 'cat "and" $\\frac{x$ 猫', "dog\udcff\u202egod\n\x1b[2J")
PATHS = ("<img src=x onerror=alert(1)>{i}.png", "plain{i}.png", "\udcff\u202e{i}\n.png")
SPEC = Spec("vgg16", "0" * 64, "block5_pool", (96, 96))


@dataclass(frozen=True, slots=True)
class Material:
    """Everything that a report is made of."""

    comparison: Comparison
    dataset: Dataset
    done: Extraction
    tables: Mapping[str, Table]

    def but(self, **changes: Any) -> Material:
        """With a changed comparison."""
        return replace(self, comparison=replace(self.comparison, **changes))

    def best(self, **changes: Any) -> Material:
        """With a changed best result."""
        first, *others = self.comparison.results
        return self.but(results=(replace(first, **changes), *others))

    def write(self, folder: Path, **options: Any) -> str:
        """The text of its report."""
        path = write_report(folder, self.comparison, self.dataset, self.done, self.tables, **options)
        return path.read_text(encoding="utf-8")


def make_material(folder: Path, counts: Mapping[str, int], classes: tuple[str, ...] = CLASSES) -> Material:
    """Pictures in ``folder``, overlapping clouds as their features, and three heads that are sometimes wrong."""
    folder.mkdir()
    random = np.random.default_rng(3)
    splits = np.concatenate([np.full(n, SPLITS.index(split)) for split, n in counts.items()]).astype(np.int8)
    y = np.arange(len(splits)) % len(classes)
    paths = tuple(PATHS[i % len(PATHS)].format(i=i) for i in range(len(y)))
    for i, path in enumerate(paths):
        (folder / path).write_bytes(png(i, 24))
    digests = np.array([tuple(hashlib.sha256(str(i).encode()).digest()) for i in range(len(y))], np.uint8)
    centres = random.normal(size=(len(classes), 6)) * 0.7
    X = (centres[y] + random.normal(size=(len(y), 6))).astype(np.float32)
    dataset = Dataset(
        "pets & <b>", FolderSource(str(folder)), paths, paths, y.astype(np.int64), classes, splits, "test"
    )
    tables = {split: _table(dataset, digests, X, split) for split in counts}
    sets = [TrainingSet("vgg16", "avg", (Origin("vgg16"),), lambda: tables, feature_bytes=9_000, image_seconds=2.5)]
    comparison = train(sets, ["logreg", "ridge", "knn"], bundles=folder.parent / "bundles", options=TrainOptions())
    rejects = (RejectedImage("broken <i>.png", "ab", Reason.TRUNCATED),)
    report = ExtractReport(len(y), (), rejects, 1.0, {}, 1, folder, 0, 0)
    known, none = np.ones(len(y), bool), np.zeros((0, len(y)))
    done = Extraction(report, (), digests, known, none.astype(np.int16), none.astype(bool))
    return Material(comparison, dataset, done, tables)


def _table(dataset: Dataset, digests: np.ndarray, X: np.ndarray, split: str) -> Table:
    rows = np.flatnonzero(dataset.splits == SPLITS.index(split))
    paths = tuple(dataset.paths[i] for i in rows)
    views = np.zeros(len(rows), np.uint16)
    return Table(
        X[rows], dataset.labels[rows], paths, paths, dataset.classes, digests[rows], split, (SPEC,), (6,), views
    )


def with_curve(material: Material) -> Material:
    """Its second head has learned in epochs."""
    curve = Curve((0.9, 0.5, 0.3), (0.5, 0.7, 0.9), (0.95, 0.6, 0.5), (0.4, 0.6, 0.7))
    first, second, *others = material.comparison.results
    dense = replace(second, choice=replace(second.choice, curve=curve))
    return material.but(results=(first, dense, *others))


@pytest.fixture(scope="session")
def shared_material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return make_material(tmp_path_factory.mktemp("report") / "pictures", {"train": 90, "validation": 60, "test": 30})


@pytest.fixture
def material(shared_material: Material) -> Material:
    """Three classes, 60 validation images, five of which are called wrongly."""
    return shared_material


MakeMaterial = Callable[..., Material]


@pytest.fixture
def make(tmp_path: Path) -> MakeMaterial:
    return lambda counts, classes=CLASSES: make_material(tmp_path / "pictures", counts, classes)
