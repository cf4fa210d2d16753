"""The heads that can be trained, by name: plain data. To add one, add an entry here and nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.errors import unknown_name
from heads.linear import Features, LinearHead
from heads.solve import Params, solve_linear

FitGrid = Callable[[Features, npt.NDArray[np.int64], Sequence[Params], int], tuple[LinearHead, ...]]
"""(X, y, grid, seed) → a fitted head for each value of the grid, or for the first ones if the rest cannot be fitted.

It gets the grid whole so that it can share work between the values."""

_MAX_ITER = 2_000
"""Solver steps. Standardised features need tens to hundreds; a solver that needs more than this will not converge."""


@dataclass(frozen=True, slots=True)
class HeadKind:
    """A kind of classifier and the values tried for its hyperparameters.

    name, about : as people type it; what it is, in a few words.
    grid : from the strongest regularisation to the weakest; of equally good values the first is chosen.
    fit : fits heads for any part of the grid.
    tempered : True if its logits are no log-odds by themselves, so that a temperature is fitted on held-out rows.
    """

    name: str
    about: str
    grid: tuple[Params, ...]
    fit: FitGrid
    tempered: bool = False


def _logreg(params: Params, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(**params, max_iter=_MAX_ITER, random_state=seed)


def _linear_svm(params: Params, seed: int) -> Any:
    from sklearn.svm import LinearSVC

    # The primal solver copes with many images and with correlated features, where the dual one never converges.
    return LinearSVC(**params, dual=False, max_iter=_MAX_ITER, random_state=seed)


def _powers_of_ten(low: int, high: int) -> tuple[Params, ...]:
    return tuple({"C": 10.0**power} for power in range(low, high + 1))


HEADS: dict[str, HeadKind] = {
    kind.name: kind
    for kind in (
        HeadKind("logreg", "logistic regression, L2", _powers_of_ten(-4, 1), partial(solve_linear, _logreg)),
        HeadKind(
            "linear-svm",
            "linear support vector machine, squared hinge, one against the rest",
            _powers_of_ten(-5, -2),  # weaker regularisation than 0.01 chose no better on any table tried, and is slow
            partial(solve_linear, _linear_svm),
            tempered=True,
        ),
    )
}
"""Every kind of head, by name."""


def find(name: str) -> HeadKind:
    """The kind called ``name`` (case, ``_`` and ``-`` do not matter); raises InputError with the nearest names."""
    kind = HEADS.get(name.strip().lower().replace("_", "-"))
    if kind is None:
        raise unknown_name("head", name, HEADS, "--head")
    return kind
