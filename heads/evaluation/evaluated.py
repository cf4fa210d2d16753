"""What an evaluation came to: plain data between the composer and every report of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.wording import printable
from heads.evaluation.compare import Pair
from heads.evaluation.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Seen:
    """An image that is judged on although the head was fitted on it, or on one nearly like it.

    train_path : the image it was fitted on, where the dataset has that; None elsewhere.
    cosine : of their standardised features; 1 for an exact copy.
    """

    path: str
    train_path: str | None
    cosine: float
    exact: bool

    def to_json(self) -> dict[str, Any]:
        """One of the ``leaks`` of ``evaluate --json``."""
        return {
            "path": printable(self.path),
            "train_path": None if self.train_path is None else printable(self.train_path),
            "cosine": self.cosine,
            "exact": self.exact,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """One head on the N images of an evaluation.

    bundle : where it is. strangers : classes of these images that it does not know, each with its number of images.
    metrics : of its probabilities, in the columns of its own classes and then the strangers (always 0).
    uncalibrated : the same without its calibration; None if it has none.
    seen : the images that it was fitted on, exactly or nearly; without_seen : the metrics without these, None if there
        are none, or no others.
    fitted, searched : the images that it was fitted on, and those of them that near copies were looked for among.
    right : bool (N,), which images it calls rightly.
    """

    bundle: str
    strangers: tuple[tuple[str, int], ...]
    metrics: Metrics
    uncalibrated: Metrics | None
    seen: tuple[Seen, ...]
    without_seen: Metrics | None
    fitted: int
    searched: int
    right: npt.NDArray[np.bool_]

    def to_json(self) -> dict[str, Any]:
        """One of the ``results`` of ``evaluate --json``."""
        return {
            "bundle": printable(self.bundle),
            "metrics": self.metrics.to_json(),
            "uncalibrated": self.uncalibrated.to_json() if self.uncalibrated else None,
            "leaks": [seen.to_json() for seen in self.seen],
            "without_leaks": self.without_seen.to_json() if self.without_seen else None,
            "fitted": self.fitted,
            "searched": self.searched,
            "unknown_classes": dict(self.strangers),
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Heads on the same N images of a dataset, in the order given.

    split : which were taken; images : N. threshold : the cosine from which on two images count as near copies.
    unlabelled, rejected : images of the dataset, and of the split, that were left out.
    comparisons : McNemar's test of every two heads.
    """

    dataset: str
    split: str
    images: int
    unlabelled: int
    rejected: int
    threshold: float
    results: tuple[Evaluated, ...]
    comparisons: tuple[Pair, ...]
    notes: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """The object that ``featstore evaluate --json`` prints; described in docs/JSON.md."""
        return {
            "split": self.split,
            "images": self.images,
            "unlabelled": self.unlabelled,
            "rejected": self.rejected,
            "results": [result.to_json() for result in self.results],
            "comparisons": [
                {**pair.to_json(), "first": printable(pair.first), "second": printable(pair.second)}
                for pair in self.comparisons
            ],
            "threshold": self.threshold,
            "notes": list(self.notes),
        }
