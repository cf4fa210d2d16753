"""Stacking (Wolpert, 1992): a head for each backbone's features, and one on what they say.

The last head is fitted on logits of rows that the heads below it were not fitted on, by folds; for predictions the
heads below are fitted on all rows. As every part is linear, so is the whole: it is given back as one linear head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from featstore.errors import InputError
from heads.kinds.folds import first_rows, folds_of
from heads.kinds.head import Labels, Logits, Params
from heads.kinds.linear import LinearHead
from heads.kinds.problem import Fit, FitGrid, Problem

FOLDS = 5
"""Stratified folds whose logits the last head is fitted on; fewer if a class has fewer rows."""

_LAST: Params = {"C": 1.0}
"""The last head sees few columns, so that its regularisation hardly matters."""


def fit_stacking(fit: FitGrid, problem: Problem, grid: Sequence[Params]) -> tuple[Fit, ...]:
    """A fit for each value of the ``grid``, which regularises the heads of all blocks alike; ``fit`` fits linear heads.

    Raises InputError if there are fewer than two blocks of columns or a class has a single image.
    """
    if len(problem.blocks) < 2:
        raise InputError("stacking combines backbones", expected="at least two, as vgg16+xception", received=1)
    columns = _columns(problem.blocks)
    everything = np.arange(len(problem.y))
    whole = [fit(_part(problem, everything, column), grid) for column in columns]
    unseen = _unseen_logits(fit, problem, grid, columns)
    fits = []
    for value in range(min(len(unseen), *map(len, whole))):
        last = _with_rows(problem, unseen[value])
        [top] = fit(last, [_LAST])
        heads = [found[value].head for found in whole]
        fits.append(Fit(_composed(top.head, heads), grid[value]))
    return tuple(fits)


def _with_rows(problem: Problem, X: Logits) -> Problem:
    """The same problem with other features of the same rows."""
    return replace(problem, X=X, blocks=(X.shape[1],), held_out=None)


def _unseen_logits(fit: FitGrid, problem: Problem, grid: Sequence[Params], columns: list[slice]) -> list[Logits]:
    """For each value of the grid what heads say of rows they never saw: (N, blocks · K)."""
    image = np.arange(len(problem.y)) if problem.image is None else problem.image
    classes, folds = problem.classes, min(FOLDS, int(np.bincount(problem.y[first_rows(image)]).min()))
    if folds < 2:
        raise InputError("stacking needs two images of every class", received=folds)
    out = [np.empty((len(problem.y), len(columns) * classes)) for _ in grid]
    for fitted_on, held_out in folds_of(image, problem.y, folds, problem.seed):
        for place, column in enumerate(columns):
            found = fit(_part(problem, fitted_on, column), grid)
            del out[len(found) :]
            for logits, one in zip(out, found, strict=False):
                said = one.head.logits(problem.X[held_out][:, column])
                logits[held_out, place * classes : (place + 1) * classes] = said
    return out


def _composed(top: object, heads: Sequence[object]) -> LinearHead:
    """One linear head that does what ``top`` does on the logits of ``heads``."""
    if not isinstance(top, LinearHead) or not all(isinstance(head, LinearHead) for head in heads):
        raise TypeError("only linear heads become one linear head")
    linear = [head for head in heads if isinstance(head, LinearHead)]
    shares = np.split(top.weights, len(linear), axis=1)
    weights = np.concatenate([share @ head.weights for share, head in zip(shares, linear, strict=True)], axis=1)
    bias = top.bias + sum(share @ head.bias for share, head in zip(shares, linear, strict=True))
    return LinearHead(weights, bias)


def _part(problem: Problem, rows: Labels, column: slice) -> Problem:
    X = problem.X[rows][:, column]
    return replace(problem, X=X, y=problem.y[rows], blocks=(X.shape[1],), held_out=None, image=None)


def _columns(blocks: Sequence[int]) -> list[slice]:
    ends = np.cumsum(blocks).tolist()
    return [slice(end - width, end) for end, width in zip(ends, blocks, strict=True)]
