"""The images of a head: those it was fitted on, and how it called those that were held out. No pixels, no paths."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from featstore.records import DIGEST_BYTES, Digests, as_text
from heads.kinds.head import Arrays, Labels

_Codes = npt.NDArray[np.int32]
_Chances = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class FittedImages:
    """The N images that a head was fitted on.

    digests : uint8 (N, 32), sorted, each once. labels : int32 (N,), the columns of their classes.
    """

    digests: Digests
    labels: _Codes

    @classmethod
    def of(cls, digests: Digests, labels: Labels) -> FittedImages:
        """Of images in any order; one that is there twice counts with its first label."""
        unique, first = np.unique(digests, axis=0, return_index=True)
        return cls(unique, labels[first].astype(np.int32))

    def label_of(self, digest: bytes) -> int | None:
        """The column of an image's class; None if the head was not fitted on it."""
        key = np.array([digest], f"S{DIGEST_BYTES}")
        [at] = np.searchsorted(as_text(self.digests), key)
        return int(self.labels[at]) if at < len(self.labels) and self.digests[at].tobytes() == digest else None

    def to_arrays(self) -> Arrays:
        """By their names in the bundle's file."""
        return asdict(self)

    @classmethod
    def from_arrays(cls, arrays: Arrays, classes: int) -> FittedImages:
        """The images in ``arrays``; raises ValueError unless they are such, with labels below ``classes``."""
        found = cls(**arrays)
        _check_digests(found.digests)
        _check(found.labels, np.int32, len(found.digests), classes)
        keys = as_text(found.digests)
        if not (keys[1:] > keys[:-1]).all():
            raise ValueError("the digests are not sorted, or one is there twice")
        return found


@dataclass(frozen=True, slots=True, eq=False)
class JudgedImages:
    """The M images that a head's ``held_out`` metrics are of, each calibrated without its own answer.

    digests : uint8 (M, 32). truth, said : int32 (M,), their class and the likeliest one, by place in the metrics'
    ``per_class``. confidence, of_truth : float32 (M,), the probabilities of these two: of ``said``, of ``truth``.
    """

    digests: Digests
    truth: _Codes
    said: _Codes
    confidence: _Chances
    of_truth: _Chances

    @classmethod
    def of(cls, digests: Digests, answers: Labels, probabilities: npt.NDArray[np.float64]) -> JudgedImages:
        """From the probabilities (M, C) that the metrics were taken of."""
        rows, said = np.arange(len(answers)), probabilities.argmax(axis=1)
        return cls(
            digests=digests,
            truth=answers.astype(np.int32),
            said=said.astype(np.int32),
            confidence=probabilities[rows, said].astype(np.float32),
            of_truth=probabilities[rows, answers].astype(np.float32),
        )

    def worst(self, most: int) -> list[int]:
        """Up to ``most`` rows called wrongly, those first whose right class was thought the least likely."""
        wrong = np.flatnonzero(self.said != self.truth)
        return [int(row) for row in wrong[np.argsort(self.of_truth[wrong], kind="stable")][:most]]

    def to_arrays(self) -> Arrays:
        """By their names in the bundle's file."""
        return asdict(self)

    @classmethod
    def from_arrays(cls, arrays: Arrays, count: int, classes: int) -> JudgedImages:
        """The images in ``arrays``; raises ValueError unless they are ``count`` such, with labels below ``classes``."""
        found = cls(**arrays)
        _check_digests(found.digests)
        for labels in (found.truth, found.said):
            _check(labels, np.int32, count, classes)
        for chances in (found.confidence, found.of_truth):
            _check(chances, np.float32, count, 1 + 1e-6)
        return found


def _check_digests(digests: Digests) -> None:
    if digests.dtype != np.uint8 or digests.ndim != 2 or digests.shape[1] != DIGEST_BYTES:
        raise ValueError("these are no digests")


def _check(values: _Codes | _Chances, dtype: type[np.generic], count: int, below: float) -> None:
    if values.dtype != dtype or values.shape != (count,) or not ((values >= 0) & (values < below)).all():
        raise ValueError(f"expected {count} numbers from 0 to below {below:g}")
