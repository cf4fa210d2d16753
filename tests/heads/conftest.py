"""Small tables with known answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featstore.spec import Spec
from featstore.store import Store
from featstore.table import StoredRows, Table
from heads.bundles.card import Card, Origin
from heads.evaluation.calibration import Calibration
from heads.evaluation.metrics import measure
from heads.evaluation.scores import Score, Trial
from heads.kinds.linear import LinearHead
from tests.pictures import class_folders

MakeTable = Callable[..., Table]

SPEC = Spec("vgg16", "0" * 64, "block5_pool", (96, 96))


def make_table(
    count: int = 60, width: int = 8, classes: int = 3, *, split: str = "train", seed: int = 0, noise: float = 1.0
) -> Table:
    """Gaussian clouds: the same centres whatever the seed, other rows for another one."""
    centres = np.random.default_rng(99).normal(size=(classes, width)) * 2
    random = np.random.default_rng(seed)
    y = np.arange(count) % classes
    X = 5 + 3 * (centres[y] + noise * random.normal(size=(count, width)))
    paths = tuple(f"{split}/{seed}-{i}.png" for i in range(count))
    return Table(
        X=X.astype(np.float32),
        y=y.astype(np.int64),
        ids=paths,
        paths=paths,
        classes=tuple(f"class {i}" for i in range(classes)),
        digests=np.array([tuple(hashlib.sha256(path.encode()).digest()) for path in paths], np.uint8),
        split=split,
        specs=(SPEC,),
        widths=(width,),
        views=np.zeros(count, np.uint16),
    )


def with_views(table: Table, views: int) -> Table:
    """The table and noisy versions of each of its rows, as augmented views are."""
    random = np.random.default_rng(7)
    X = np.concatenate([table.X + random.normal(scale=0.3 * (view > 0), size=table.X.shape) for view in range(views)])
    return replace(
        table,
        X=X.astype(np.float32),
        y=np.tile(table.y, views),
        ids=table.ids * views,
        paths=table.paths * views,
        digests=np.tile(table.digests, (views, 1)),
        views=np.repeat(np.arange(views, dtype=np.uint16), len(table)),
        augmentation="a policy",
    )


@pytest.fixture
def table() -> MakeTable:
    return make_table


@pytest.fixture
def spec() -> Spec:
    return SPEC


@pytest.fixture
def head() -> LinearHead:
    """Three classes, eight features."""
    random = np.random.default_rng(1)
    return LinearHead(random.normal(size=(3, 8)), random.normal(size=3))


@pytest.fixture
def card() -> Card:
    """The card of a head for three classes, one of them with a name that is no UTF-8."""
    score = Score(0.9, (0.8, 0.95), 50)
    classes = ("cat", "naïve <b>", "\udcff")
    y = np.arange(30) % 3
    return Card(
        kind="logreg",
        params={"C": 0.1},
        seed=7,
        balanced=False,
        specs=(SPEC,),
        origins=(Origin("vgg16"),),
        widths=(8,),
        classes=classes,
        calibration=Calibration("temperature", 0.5),
        clip=0.01,
        trials=(Trial({"C": 0.1}, score), Trial({"C": 1.0}, replace(score, accuracy=0.7))),
        chosen_on="validation",
        held_out=measure(y, np.eye(3)[y] * 0.7 + 0.1, classes),
        test=None,
        fitted_on=("train",),
        augmentation=None,
        views=1,
        rows=60,
        rows_digest="1" * 64,
        snapshot=("2" * 64,),
        versions={"python": "3.13"},
    )


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    return tmp_path / "bundles"


@pytest.fixture
def store(private_home: Path) -> Store:
    return Store.open(private_home / "store")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve small pictures a split, cats and dogs."""
    return class_folders(tmp_path / "photos")


class Rows(StoredRows):
    """``most`` is the greatest number of rows that was read at once."""

    def __init__(self, X: np.ndarray) -> None:
        self.X, self.shape, self.most = X, X.shape, 0
        self.order = np.arange(len(X))

    def __getitem__(self, chosen):
        part = self.X[chosen]
        self.most = max(self.most, len(part))
        return part

    def select(self, chosen):
        return Rows(self.X[chosen])


@pytest.fixture
def stored() -> type[Rows]:
    """Rows that are in the store, as far as a fit can tell."""
    return Rows
