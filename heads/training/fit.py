"""Fit what was chosen, on all the rows that it may see, and make its probabilities right."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError
from featstore.records import Digests
from featstore.table import Table
from heads.bundles.images import FittedImages
from heads.evaluation.calibration import Calibration
from heads.kinds.head import Features, Head, Labels, Logits
from heads.kinds.problem import HeadKind, Problem
from heads.training.choice import Choice, labelled


@dataclass(frozen=True, slots=True, eq=False)
class FittedHead:
    """A head fitted with what was chosen.

    calibration : from its logits to probabilities, fitted on held-out rows.
    labels : int64 (K,), each column's class as an index into ``all_classes``: only classes that have training images.
    fitted_on : the splits whose images it was fitted on, views of them included; ``digests`` uint8 (N, 32) are these
        images, ``y`` their labels.
    seconds : what this last fit took.
    """

    head: Head
    calibration: Calibration
    labels: Labels
    all_classes: tuple[str, ...]
    fitted_on: tuple[str, ...]
    digests: Digests
    y: Labels
    seconds: float

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the K classes that it can tell apart, in the order of its columns."""
        return tuple(self.all_classes[label] for label in self.labels)

    @property
    def images(self) -> FittedImages:
        """The images that it was fitted on, with the columns of their classes."""
        return FittedImages.of(self.digests, np.searchsorted(self.labels, self.y))

    def logits(self, X: Features) -> Logits:
        """float64 (N, K). ``X`` (N, D) may stay stored."""
        return self.head.logits(X)

    def probabilities(self, logits: Logits, *, calibrated: bool = True) -> npt.NDArray[np.float64]:
        """float64 (N, C) from logits (N, K), in the columns of all classes, those it does not know at 0."""
        calibration = self.calibration if calibrated else Calibration()
        return over_all_classes(calibration.probabilities(logits), self.labels, len(self.all_classes))


def refit(
    kind: HeadKind, choice: Choice, table: Table, calibration: Calibration, *, balanced: bool = False, seed: int = 0
) -> FittedHead:
    """Fit the chosen value on the labelled rows of ``table``, "train" or "train+validation".

    Raises InputError if the table has classes that the choice was not made for, or what the kind's solver raises.
    """
    started = time.perf_counter()
    rows = labelled(table)
    used = table if len(rows) == len(table) else table.select(rows)
    labels, codes = np.unique(used.y, return_inverse=True)
    if not np.isin(choice.labels, labels).all():
        raise InputError("this table lacks classes that the head was chosen for", where=f"the {table.split} split")
    _, image = np.unique(used.digests, axis=0, return_inverse=True)
    problem = Problem(used.X, codes, used.widths, balanced, seed, image=image)
    [fitted] = kind.fits(problem, (choice.chosen.params,))
    originals = used.views == 0
    return FittedHead(
        head=fitted.head,
        calibration=calibration if len(labels) == len(choice.labels) else Calibration(),
        labels=labels,
        all_classes=table.classes,
        fitted_on=tuple(table.split.split("+")),
        digests=used.digests[originals],
        y=used.y[originals],
        seconds=time.perf_counter() - started,
    )


def over_all_classes(probabilities: npt.NDArray[np.float64], labels: Labels, count: int) -> npt.NDArray[np.float64]:
    """Probabilities (N, K) of the classes ``labels`` (K,) in the columns of all ``count`` classes, others at 0."""
    out = np.zeros((len(probabilities), count))
    out[:, labels] = probabilities
    return out
