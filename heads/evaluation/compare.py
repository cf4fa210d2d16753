"""Are two heads different, or is it chance: McNemar's exact test (1947) on the images that only one of them gets right.

Of n such images each head has half by chance: the p-value is the two-sided binomial one. Of many comparisons some look
small by chance, so p-values are given again as adjusted by Holm (1979), who bounds the chance of any false alarm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError

SIGNIFICANT = 0.05
"""Adjusted p-values below this are called a difference."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two heads on the same images.

    only_first, only_second : images that only one of them gets right. p : of McNemar's exact test.
    adjusted : the same for all pairs together, by Holm.
    """

    first: str
    second: str
    only_first: int
    only_second: int
    p: float
    adjusted: float

    def to_json(self) -> dict[str, Any]:
        """One of the ``pairs`` of ``--json``."""
        return asdict(self)


def compare(names: Sequence[str], right: npt.NDArray[np.bool_]) -> tuple[Pair, ...]:
    """Every pair of R heads, given which of N images each gets right, bool (R, N); in the order of ``names``.

    Raises InputError if names and rows differ in number.
    """
    if right.ndim != 2 or len(names) != len(right):
        raise InputError("names and rows do not belong together", expected=f"({len(names)}, N)", received=right.shape)
    from scipy.stats import binomtest

    found = []
    for i, j in combinations(range(len(names)), 2):
        one, two = int((right[i] & ~right[j]).sum()), int((right[j] & ~right[i]).sum())
        p = float(binomtest(one, one + two).pvalue) if one + two else 1.0
        found.append((names[i], names[j], one, two, p))
    adjusted = _holm([pair[-1] for pair in found])
    return tuple(Pair(*pair, value) for pair, value in zip(found, adjusted, strict=True))


def against_first(names: Sequence[str], right: npt.NDArray[np.bool_]) -> tuple[Pair, ...]:
    """The first of R heads, named beforehand and not for its success, with each other one: adjusted for these alone."""
    pairs = [compare([names[0], names[i]], right[[0, i]])[0] for i in range(1, len(names))]
    adjusted = _holm([pair.p for pair in pairs])
    return tuple(replace(pair, adjusted=value) for pair, value in zip(pairs, adjusted, strict=True))


def _holm(p: Sequence[float]) -> list[float]:
    order = np.argsort(p)
    out, highest = [0.0] * len(p), 0.0
    for place, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - place) * p[i]))
        out[i] = highest
    return out
