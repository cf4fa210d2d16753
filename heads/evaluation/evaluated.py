"""What an evaluation came to: plain data between the composer and every report of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.wording import counted, printable
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

    bundle : where it is. chosen_on : what its settings were chosen on.
    strangers : classes of these images that it does not know, each with its number of images.
    metrics : of its probabilities, in the columns of its own classes and then the strangers (always 0).
    uncalibrated : the same without its calibration; None if it has none.
    seen : the images that it was fitted on, exactly or nearly; without_seen : the metrics without these, None if there
        are none, or no others.
    fitted, searched : the images that it was fitted on, and those of them that near copies were looked for among.
    missed : what is to be said of images for which none were looked for.
    right : bool (N,), which images it calls rightly.
    """

    bundle: str
    chosen_on: str
    strangers: tuple[tuple[str, int], ...]
    metrics: Metrics
    uncalibrated: Metrics | None
    seen: tuple[Seen, ...]
    without_seen: Metrics | None
    fitted: int
    searched: int
    missed: tuple[str, ...]
    right: npt.NDArray[np.bool_]

    def notes(self, split: str, images: int, threshold: float) -> Iterator[str]:
        """What should be said of its score on these images."""
        for name, count in self.strangers:
            yield f"the head does not know {name!r}: its {counted(count, 'image')} here count as wrong"
        if self.seen:
            exact = sum(seen.exact for seen in self.seen)
            kinds = f"{exact} exactly, {len(self.seen) - exact} nearly (a cosine of {threshold:g} or more)"
            words = f"{len(self.seen)} of the {counted(images, 'image')} were seen in training: {kinds}"
            alone = "; no others are left, so this score says nothing of new images"
            yield words + ("; the score without them stands beside" if self.without_seen else alone)
        if not self.searched:
            yield "near copies were not looked for: the store holds no features of the images that it was fitted on"
        elif self.searched < self.fitted:
            yield (
                f"near copies were looked for among {self.searched} of the {counted(self.fitted, 'image')} that the "
                "head was fitted on: the store holds the features of these alone"
            )
        yield from self.missed
        if split == self.chosen_on == "validation":
            yield "settings were chosen on a validation split: if it is this one, this score flatters"

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


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Heads on the same N images of a dataset, in the order given.

    split : which were taken; was_asked : whether by request, by_content : whether the images' digests decide splits.
    images : N. unlabelled : images of the dataset without a label. reasons : why labelled images of the split were left
        out, each with its number of images.
    threshold : the cosine from which on two images count as near copies.
    comparisons : McNemar's test of every two heads.
    """

    dataset: str
    split: str
    was_asked: bool
    by_content: bool
    images: int
    unlabelled: int
    reasons: Mapping[str, int]
    threshold: float
    results: tuple[Evaluated, ...]
    comparisons: tuple[Pair, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the heads: their folders, without where these are if that tells them apart."""
        short = tuple(printable(Path(result.bundle).name) for result in self.results)
        return short if len(set(short)) == len(short) else tuple(printable(result.bundle) for result in self.results)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know beside the numbers: what was left out, and what makes them flatter."""
        return (*self._choice(), *self._left_out(), *self._of_heads())

    def _choice(self) -> Iterator[str]:
        if self.was_asked:
            return
        if self.split != "test":
            yield f"there is no test split: {'every labelled image' if self.split == 'all' else self.split} was scored"
        elif self.by_content:
            yield "these are the test images by their content; --split all scores every labelled image"

    def _left_out(self) -> Iterator[str]:
        if self.unlabelled:
            yield f"left out: {counted(self.unlabelled, 'unlabelled image')} of the dataset"
        if self.reasons:
            why = ", ".join(f"{count} {reason}" for reason, count in self.reasons.items())
            yield f"left out: {counted(sum(self.reasons.values()), 'rejected image')} of the split ({why})"

    def _of_heads(self) -> Iterator[str]:
        several = [tuple(result.notes(self.split, self.images, self.threshold)) for result in self.results]
        for sentence in dict.fromkeys(sentence for sentences in several for sentence in sentences):
            owners = [name for name, sentences in zip(self.names, several, strict=True) if sentence in sentences]
            yield sentence if len(owners) == len(self.results) else f"{', '.join(owners)}: {sentence}"

    def to_json(self) -> dict[str, Any]:
        """The object that ``featstore evaluate --json`` prints; described in docs/JSON.md."""
        return {
            "split": self.split,
            "images": self.images,
            "unlabelled": self.unlabelled,
            "reasons": dict(self.reasons),
            "results": [result.to_json() for result in self.results],
            "pairs": [
                {**pair.to_json(), "first": printable(pair.first), "second": printable(pair.second)}
                for pair in self.comparisons
            ],
            "threshold": self.threshold,
            "notes": list(self.notes),
        }
