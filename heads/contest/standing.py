"""What a comparison of ways came to: plain data between the runs and every table of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from heads.contest.plan import Way
from heads.evaluation.compare import Pair
from heads.evaluation.metrics import Metrics
from heads.kinds.head import Labels


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """One way, run with one seed.

    probabilities, answers, paths : float64 (M, C), int64 (M,) and names of the validation images.
    base_seconds : running the base over what is cached of it, by its measured rate (None if not measured);
        train_seconds : everything after. base_images : how many pictures go through the base.
    peak_bytes : the most memory of its process. bytes : cached features, or what was saved.
    epochs : that were trained, and how many were planned; 0 for cached heads. cut_short : whether some are missing for
        want of time. bundle : where it was saved, if it was.
    """

    probabilities: npt.NDArray[np.float64]
    answers: Labels
    paths: tuple[str, ...]
    classes: tuple[str, ...]
    base_seconds: float | None
    train_seconds: float
    base_images: int
    peak_bytes: int
    bytes: int
    epochs: tuple[int, int] = (0, 0)
    cut_short: bool = False
    bundle: Path | None = None

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Which validation images it calls rightly, (M,)."""
        return np.asarray(self.probabilities.argmax(axis=1) == self.answers)

    @property
    def seconds(self) -> float | None:
        """All of it; None if nobody knows how long the base takes."""
        return None if self.base_seconds is None else self.base_seconds + self.train_seconds

    def only(self, paths: Sequence[str]) -> Outcome:
        """On these validation images alone, in this order."""
        places = {path: place for place, path in enumerate(self.paths)}
        rows = np.array([places[path] for path in paths], np.int64)
        return replace(self, probabilities=self.probabilities[rows], answers=self.answers[rows], paths=tuple(paths))


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One way in the table: the runs of all seeds, the metrics of the first, and its test against the cheapest way."""

    way: Way
    outcomes: tuple[Outcome, ...]
    held_out: Metrics
    pair: Pair | None = None
    test: Metrics | None = None

    @property
    def accuracies(self) -> tuple[float, ...]:
        """On validation, one a seed."""
        return tuple(float(outcome.right.mean()) for outcome in self.outcomes)

    @property
    def accuracy(self) -> float:
        """The mean of the seeds."""
        return float(np.mean(self.accuracies))

    @property
    def seconds(self) -> float | None:
        """The mean of the seeds; None if nobody knows how long the base takes."""
        known = [outcome.seconds for outcome in self.outcomes if outcome.seconds is not None]
        return float(np.mean(known)) if len(known) == len(self.outcomes) else None

    def to_json(self) -> dict[str, Any]:
        """One of the ``results`` of ``featstore compare --json``."""
        first = self.outcomes[0]
        return {
            "name": self.way.name,
            "head": self.way.head,
            "accuracies": list(self.accuracies),
            "held_out": self.held_out.to_json(),
            "against_cheapest": self.pair.to_json() if self.pair else None,
            "test": self.test.to_json() if self.test else None,
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "base_seconds": first.base_seconds,
            "train_seconds": round(first.train_seconds, 3),
            "base_images": first.base_images,
            "peak_bytes": first.peak_bytes,
            "bytes": first.bytes,
            "epochs": list(first.epochs),
            "cut_short": any(outcome.cut_short for outcome in self.outcomes),
            "bundle": str(first.bundle) if first.bundle else None,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """The finished contest, in the order of the ways, the cheapest first.

    notes : how it was done, and what was left out or cut short.
    """

    dataset: str
    images: int
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def best(self) -> Line:
        """By validation accuracy, the mean of the seeds; of equals the first, for the ways begin with the cheapest."""
        return max(self.lines, key=lambda line: round(line.accuracy, 12))

    def to_json(self) -> dict[str, Any]:
        """The object that ``featstore compare --json`` prints."""
        results = [line.to_json() for line in self.lines]
        return {
            "dataset": self.dataset, "images": self.images, "results": results, "best": self.best.way.name,
            "notes": list(self.notes),
        }  # fmt: skip
