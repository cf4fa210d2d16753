"""What a head is fitted on, and what a fit gives back: the one agreement between the catalogue and every solver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featstore.table import StoredRows
from heads.kinds.head import Features, Head, Labels, Params

if TYPE_CHECKING:
    from heads.kinds.rowspace import RowSpace


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Rows that a fit is judged on and never fitted on: X float32 (M, D), columns int64 (M,), -1: a class not known."""

    X: Features
    columns: Labels


@dataclass(frozen=True, eq=False)
class Problem:
    """The rows of one fit. Made once for all kinds of heads that are fitted on the same rows, which so share its work.

    X : float32 (N, D); a :class:`featstore.table.StoredRows` if it is larger than memory.
    y : int64 (N,), codes 0 to K - 1, each of them present.
    blocks : the widths of the blocks of columns, one a backbone; they sum to D.
    balanced : weigh rows inversely to the size of their class, N / (K · count), as scikit-learn's "balanced".
    image : int64 (N,), the image of each row, a number that its copies and views share; None if each has its own.
    held_out : what the fit will be judged on, for learning curves and for choosing when to stop; None in a last fit.
    """

    X: Any
    y: Labels
    blocks: tuple[int, ...]
    balanced: bool = False
    seed: int = 0
    held_out: HeldOut | None = None
    image: Labels | None = None

    @property
    def classes(self) -> int:
        """K."""
        return int(self.y.max()) + 1

    @property
    def row_weights(self) -> npt.NDArray[np.float64]:
        """float64 (N,): what each row counts, 1 on average."""
        if not self.balanced:
            return np.ones(len(self.y))
        counts = np.bincount(self.y)
        return np.asarray((len(self.y) / (len(counts) * counts))[self.y], np.float64)

    @cached_property
    def rows(self) -> RowSpace:
        """The standardised rows and what is shared between solvers, computed on first use."""
        from heads.kinds.rowspace import RowSpace

        return RowSpace(self.X)


@dataclass(frozen=True, slots=True)
class Curve:
    """A learning curve: one number an epoch, all tuples equally long; held-out ones are empty without such rows."""

    loss: tuple[float, ...]
    accuracy: tuple[float, ...]
    held_out_loss: tuple[float, ...] = ()
    held_out_accuracy: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A fitted head.

    params : what to fit it with again; of a head that stopped early, with the number of epochs that it took.
    """

    head: Head
    params: Params
    curve: Curve | None = None


FitGrid = Callable[[Problem, Sequence[Params]], tuple[Fit, ...]]
"""(problem, grid) → a fit for each value of the grid, or for the first ones if the rest cannot be fitted.

It gets the grid whole so that it can share work between the values."""


@dataclass(frozen=True, slots=True)
class HeadKind:
    """A kind of classifier and the values tried for its hyperparameters.

    name, about : as people type it; what it is, in a few words.
    grid : from the simplest (the strongest regularisation) on; of equally good values the first is chosen.
    fit : fits heads for any part of the grid.
    tempered : True if its logits are no log-odds by themselves, so that a temperature is fitted on held-out rows.
    poolings : the poolings that a sweep tries it on.
    widest : the most features that a sweep tries it on; None for any number.
    longest : the most rows that it is tried on; None for any number.
    blocks : the fewest blocks of columns that it needs (2 for what combines backbones).
    stream : fits it on rows that are read from the store batch by batch; None if it needs them in memory.
    every_core : True if a fit uses every core by itself.
    """

    name: str
    about: str
    grid: tuple[Params, ...]
    fit: FitGrid
    tempered: bool = False
    poolings: frozenset[str] = field(default=frozenset({"avg", "max", "flatten", "map"}))
    widest: int | None = None
    longest: int | None = None
    blocks: int = 1
    stream: FitGrid | None = None
    every_core: bool = False

    def fits(self, problem: Problem, grid: Sequence[Params]) -> tuple[Fit, ...]:
        """Fit any part of the grid, on rows in memory or in the store."""
        fit = self.stream if isinstance(problem.X, StoredRows) and self.stream else self.fit
        return fit(problem, grid)
