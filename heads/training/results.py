"""What a comparison of heads came to: plain data between the training and every report of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError
from featstore.records import Digests
from featstore.table import Table
from heads.bundles.card import Origin
from heads.evaluation.compare import Pair
from heads.evaluation.leaks import Leak
from heads.evaluation.metrics import Metrics
from heads.kinds.head import Labels, Params
from heads.training.choice import Choice

_FEW = 2
"""Hyperparameters that a single setting may have to be told in a line."""


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """The tables of one dataset, one combination of backbones and one pooling; read only when their turn comes.

    backbone : joined by "+"; origins : how to get their bases again, in that order.
    load : gives the tables by the name of their split.
    feature_bytes : of the cached features of all images; image_seconds : running the bases over all images, None if
        not known here.
    preprocessing : what happens to pixels before the base, "keras" being its own.
    views : of each training image, itself among them.
    """

    backbone: str
    pooling: str
    origins: tuple[Origin, ...]
    load: Callable[[], Mapping[str, Table]]
    feature_bytes: int = 0
    image_seconds: float | None = None
    preprocessing: str = "keras"
    views: int = 1

    def tables(self) -> Mapping[str, Table]:
        """The tables; raises InputError if there is no training image."""
        tables = self.load()
        if "train" not in tables:
            raise InputError(
                "there is no training image", where=self.backbone, received=", ".join(tables) or "no split"
            )
        return tables


@dataclass(frozen=True, slots=True)
class Cost:
    """What a head costs. feature_bytes : of the cached features of all images; image_seconds : running the bases over
    all images here, None if unknown; choose_seconds : the whole grid; fit_seconds : the last fit, None if it was not.
    """

    feature_bytes: int
    image_seconds: float | None
    choose_seconds: float
    fit_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Variants:
    """The same predictions, judged otherwise.

    uncalibrated : before calibration. without_leaks : without images that train holds a copy of; None if there is none.
    """

    uncalibrated: Metrics
    without_leaks: Metrics | None

    def to_json(self) -> dict[str, Any]:
        """Both, by their names."""
        rest = self.without_leaks
        return {"uncalibrated": self.uncalibrated.to_json(), "without_leaks": rest.to_json() if rest else None}


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """One kind of head on one table, as a line of the leaderboard.

    backbone, pooling, preprocessing, views, head : as they were asked for; backbones joined by "+".
    fingerprints : of the specs of its features, one a backbone.
    probabilities : float64 (M, C) on the held-out rows, in the columns of all C classes of the dataset; calibrated
        without a row's own answer.
    answers : int64 (M,), their right classes; paths : their M files; digests : uint8 (M, 32).
    held_out : the metrics of these; every ranking is by their accuracy.
    place : of its training set among those that were given.
    test : of the chosen head alone, once; None for all others. bundle : where it was saved, None if it was not.
    held_out_variants, test_variants : of the chosen head alone.
    """

    backbone: str
    pooling: str
    head: str
    fingerprints: tuple[str, ...]
    choice: Choice
    probabilities: npt.NDArray[np.float64]
    answers: Labels
    paths: tuple[str, ...]
    digests: Digests
    held_out: Metrics
    cost: Cost
    place: int = 0
    preprocessing: str = "keras"
    views: int = 1
    held_out_variants: Variants | None = None
    test: Metrics | None = None
    test_variants: Variants | None = None
    bundle: Path | None = None

    @property
    def features(self) -> str:
        """What it was fitted on, in words: ``vgg16 avg``, ``vgg16 flatten rescale``, ``vgg16 avg 4 views``."""
        preprocessing = "" if self.preprocessing == "keras" else f" {self.preprocessing}"
        return f"{self.backbone} {self.pooling}{preprocessing}" + (f" {self.views} views" if self.views > 1 else "")

    @property
    def varied(self) -> Params:
        """The chosen hyperparameters that were chosen between; of a single setting all, unless these are too many."""
        params, tried = self.choice.chosen.params, [trial.params for trial in self.choice.trials]
        if len(tried) == 1:
            return params if len(params) <= _FEW else {}
        return {name: value for name, value in params.items() if any(other[name] != value for other in tried)}

    @property
    def name(self) -> str:
        """The whole line in words: ``vgg16 avg logreg``."""
        return f"{self.features} {self.head}"

    def to_json(self) -> dict[str, Any]:
        """One of the ``results`` of ``train --json`` and ``sweep --json``."""
        fit_seconds = self.cost.fit_seconds
        return {
            "backbone": self.backbone,
            "fingerprints": list(self.fingerprints),
            "pooling": self.pooling,
            "preprocessing": self.preprocessing,
            "views": self.views,
            "head": self.head,
            "params": dict(self.choice.chosen.params),
            "chosen_on": self.choice.on,
            "held_out": self.held_out.to_json(),
            "held_out_variants": self.held_out_variants.to_json() if self.held_out_variants else None,
            "test": self.test.to_json() if self.test else None,
            "test_variants": self.test_variants.to_json() if self.test_variants else None,
            "feature_bytes": self.cost.feature_bytes,
            "image_seconds": self.cost.image_seconds,
            "choose_seconds": round(self.cost.choose_seconds, 3),
            "fit_seconds": None if fit_seconds is None else round(fit_seconds, 3),
            "bundle": str(self.bundle) if self.bundle else None,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Every head that was compared, best first; ``notes`` say what was left out and how it was chosen.

    pairs : the best against each other head on the held-out images, by McNemar's test.
    leaks : images of validation and test that train holds a copy of. report : the page that shows it all, if written.
    """

    results: tuple[Result, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()
    leaks: tuple[Leak, ...] = ()
    report: Path | None = None

    @property
    def best(self) -> Result:
        """The chosen head."""
        return self.results[0]

    def to_json(self) -> dict[str, Any]:
        """``{"results": [...], "pairs": [...], "leaks": [...], "notes": [...], "report"}``, best first."""
        return {
            "results": [result.to_json() for result in self.results],
            "pairs": [pair.to_json() for pair in self.pairs],
            "leaks": [leak.to_json() for leak in self.leaks],
            "notes": list(self.notes),
            "report": str(self.report) if self.report else None,
        }


def ranked(results: list[Result]) -> tuple[Result, ...]:
    """Best first by held-out accuracy, of equals by held-out log loss: a test score would be choosing on it."""
    return tuple(sorted(results, key=lambda result: (-result.held_out.accuracy.value, result.held_out.log_loss.value)))
