"""Train heads on cached tables: fit each, score it, save it, and report."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from featstore.errors import InputError
from featstore.progress import Progress, silent
from featstore.spec import Spec
from featstore.table import Table
from featstore.versions import installed_versions
from heads.bundle import write_bundle
from heads.card import Card, Origin
from heads.catalog import HeadKind, find
from heads.evaluate import Score
from heads.fit import FittedHead, fit_head


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """The tables of one dataset and one spec, by the name of their split, and how to get their base again."""

    tables: Mapping[str, Table]
    origin: Origin

    @property
    def train(self) -> Table:
        """The training split; raises InputError if there is none."""
        if "train" not in self.tables:
            raise InputError(
                "there is no training image", where=self.origin.backbone, received=", ".join(self.tables) or "no split"
            )
        return self.tables["train"]


@dataclass(frozen=True, slots=True)
class Result:
    """A trained head, as a line of the leaderboard.

    held_out : the score it was chosen by, on what ``chosen_on`` names ("validation", "5 folds of train").
    validation, test : None without such a split, or without a label in it.
    seconds, fit_seconds : choosing and fitting, and the last fit alone; scoring and saving are not counted.
    bundle : the folder it was saved in, None if it was not.
    """

    backbone: str
    pooling: str
    head: str
    params: Mapping[str, float]
    chosen_on: str
    held_out: Score
    validation: Score | None
    test: Score | None
    seconds: float
    fit_seconds: float
    bundle: Path | None
    spec: Spec

    def to_json(self) -> dict[str, Any]:
        """One of the ``results`` of ``train --json``."""
        return {
            "backbone": self.backbone,
            "fingerprint": self.spec.fingerprint,
            "pooling": self.pooling,
            "head": self.head,
            "params": dict(self.params),
            "chosen_on": self.chosen_on,
            "held_out": self.held_out.to_json(),
            "validation": self.validation.to_json() if self.validation else None,
            "test": self.test.to_json() if self.test else None,
            "seconds": round(self.seconds, 3),
            "fit_seconds": round(self.fit_seconds, 3),
            "bundle": str(self.bundle) if self.bundle else None,
        }


@dataclass(frozen=True, slots=True)
class TrainReport:
    """Everything that was trained, in the order asked for."""

    results: tuple[Result, ...]

    def ranked(self) -> tuple[Result, ...]:
        """Best first, by the held-out score: ranking by the test score would be choosing on it."""
        return tuple(sorted(self.results, key=lambda result: -result.held_out.accuracy))

    def to_json(self) -> dict[str, Any]:
        """``{"results": [...]}`` as ``train --json`` prints it."""
        return {"results": [result.to_json() for result in self.results]}


def train(
    sets: Sequence[TrainingSet],
    heads: Sequence[str],
    *,
    bundles: Path | None,
    seed: int = 0,
    progress: Progress = silent,
) -> TrainReport:
    """Train each of the ``heads`` (names of :data:`heads.catalog.HEADS`) on each of the ``sets``.

    bundles : the folder to save the heads in, None to keep none.
    Raises InputError for an unknown head before any work, and what :func:`heads.fit.fit_head` and
    :func:`heads.bundle.write_bundle` raise.
    """
    import sklearn.linear_model
    import sklearn.model_selection
    import sklearn.svm  # noqa: F401 - before any clock runs: loading scikit-learn is no part of training a head

    kinds = [find(name) for name in dict.fromkeys(heads)]
    results = []
    with progress("training", len(sets) * len(kinds), "heads") as advance:
        for training_set in sets:
            for kind in kinds:
                results.append(_train_one(training_set, kind, bundles, seed))
                advance(1)
    return TrainReport(tuple(results))


def _train_one(training_set: TrainingSet, kind: HeadKind, bundles: Path | None, seed: int) -> Result:
    table = training_set.train
    fitted = fit_head(kind, table, training_set.tables.get("validation"), seed=seed)
    test = training_set.tables.get("test")
    result = Result(
        backbone=table.spec.backbone,
        pooling=table.spec.pooling,
        head=kind.name,
        params=fitted.chosen.params,
        chosen_on=fitted.chosen_on,
        held_out=fitted.chosen.score,
        validation=fitted.chosen.score if fitted.chosen_on == "validation" else None,
        test=fitted.score(test) if test is not None else None,
        seconds=fitted.seconds,
        fit_seconds=fitted.fit_seconds,
        bundle=None,
        spec=table.spec,
    )
    if bundles is None:
        return result
    return replace(result, bundle=write_bundle(bundles, _card(fitted, result, training_set), fitted.head))


def _card(fitted: FittedHead, result: Result, training_set: TrainingSet) -> Card:
    rows, rows_digest = _identify_rows(training_set.train)
    return Card(
        kind=fitted.kind,
        params=fitted.chosen.params,
        factor=fitted.factor,
        seed=fitted.seed,
        spec=result.spec,
        origin=training_set.origin,
        classes=fitted.classes,
        trials=fitted.trials,
        chosen_on=fitted.chosen_on,
        validation=result.validation,
        test=result.test,
        rows=rows,
        rows_digest=rows_digest,
        snapshot=training_set.train.snapshot,
        versions={
            **installed_versions(),
            "python": platform.python_version(),
            "scikit-learn": version("scikit-learn"),
        },
    )


def _identify_rows(table: Table) -> tuple[int, str]:
    """How many labelled rows, and the SHA-256 (hex) of their sorted "digest class" lines: order does not matter."""
    lines = sorted(
        digest.tobytes().hex() + " " + table.classes[label]
        for digest, label in zip(table.digests, table.y, strict=True)
        if label >= 0
    )
    return len(lines), hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
