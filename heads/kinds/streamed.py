"""Logistic regression and linear support vector machines on rows that stay in the store, batch by batch.

Minimised is what :mod:`heads.kinds.newton` minimises, |w|² / (2 · C · N) + the mean loss of standardised rows, by Adam
(Kingma & Ba, 2015) with a rate that falls to nothing; what is found is the average of the points of the second half
(Polyak & Juditsky, 1992): around the least point, and of no block's classes more than of another's. All values of C
step on the same batches, in one product: an epoch reads the rows once, however long the grid is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from heads.kinds.blocks import Rows, moments
from heads.kinds.head import Labels, Params
from heads.kinds.linear import LinearHead
from heads.kinds.problem import Fit, Problem

_BATCH = 256

_RATE = 3e-3
"""Of the first step."""

_INTERCEPT = np.float32(10)
"""In the column of the intercepts: they have ten times as far to go as the weight of a standardised feature."""

_EPOCHS = 10
_STEPS = 3000
"""The fewest epochs, and the fewest steps: a table of few batches is gone through more often."""

_Floats = npt.NDArray[np.float32]

_Slope = Callable[[_Floats, Labels, _Floats], _Floats]
"""The gradient of a loss by the decision values (n, outputs, grid), given y (n,) and what each row counts (n,)."""


def stream_logistic(problem: Problem, grid: Sequence[Params]) -> tuple[Fit, ...]:
    """Logistic regression for each C of the ``grid``. Memory grows with the width of the rows, not with their number.

    Where C is so large that thousands of steps do not reach the least point, it is a little more regular than that.
    """
    return _stream(problem, grid, _logistic_slope, intercept_costs=False)


def stream_svm(problem: Problem, grid: Sequence[Params]) -> tuple[Fit, ...]:
    """Linear support vector machines, squared hinge, one against the rest; the rest as in :func:`stream_logistic`."""
    return _stream(problem, grid, _hinge_slope, intercept_costs=True)


def _stream(problem: Problem, grid: Sequence[Params], slope: _Slope, *, intercept_costs: bool) -> tuple[Fit, ...]:
    mean, scale = moments(problem.X)
    rows = Rows(problem.X, problem.y, mean, scale, np.asarray)
    outputs = 1 if problem.classes == 2 else problem.classes
    count, width = problem.X.shape
    costs = np.tile([1 / (params["C"] * count) for params in grid], (width + 1, outputs)).astype(np.float32)
    costs[-1] *= intercept_costs * _INTERCEPT**2
    descent = _Descent(costs, outputs, slope)
    random, row_weights = np.random.default_rng(problem.seed), problem.row_weights.astype(np.float32)
    epochs = max(_EPOCHS, -(-_STEPS // -(-count // _BATCH)))
    seen, averaged, total = 0, 0, np.zeros(costs.shape)
    for _ in range(epochs):
        for chosen, X, y in rows.blocks(random):
            order = random.permutation(len(chosen))
            for start in range(0, len(order), _BATCH):
                batch = order[start : start + _BATCH]
                rate = _RATE * (1 - seen / (epochs * count))
                descent.step(X[batch], y[batch], row_weights[chosen[batch]], rate)
                seen += len(batch)
                if 2 * seen > epochs * count:
                    total += descent.point
                    averaged += 1
    found = (total / averaged).reshape(width + 1, outputs, len(grid))
    raw, bias = found[:-1] / scale[:, None, None], found[-1] * _INTERCEPT
    heads = (LinearHead.from_decision(raw[..., i].T, bias[:, i] - mean @ raw[..., i]) for i in range(len(grid)))
    return tuple(map(Fit, heads, grid))


class _Descent:
    """Adam, with Keras's constants, for outputs × grid linear functions of standardised rows (n, D).

    point : float32 (D + 1, outputs · grid), the last row the intercepts divided by _INTERCEPT. costs : of that shape,
        twice what the square of each costs.
    """

    def __init__(self, costs: _Floats, outputs: int, slope: _Slope) -> None:
        self.point = np.zeros_like(costs)
        self._costs, self._outputs, self._slope = costs, outputs, slope
        self._mean, self._square, self._steps = np.zeros_like(costs), np.zeros_like(costs), 0

    def step(self, X: _Floats, y: Labels, row_weights: _Floats, rate: float) -> None:
        """One step on a batch."""
        decisions = (X @ self.point[:-1] + _INTERCEPT * self.point[-1]).reshape(len(X), self._outputs, -1)
        slope = self._slope(decisions, y, row_weights).reshape(len(X), -1) / np.float32(len(X))
        gradient = self._costs * self.point
        gradient[:-1] += X.T @ slope
        gradient[-1] += _INTERCEPT * slope.sum(axis=0)
        self._steps += 1
        self._mean += np.float32(0.1) * (gradient - self._mean)
        self._square += np.float32(0.001) * (gradient**2 - self._square)
        rate *= (1 - 0.999**self._steps) ** 0.5 / (1 - 0.9**self._steps)
        self.point -= np.float32(rate) * self._mean / (np.sqrt(self._square) + np.float32(1e-7))


def _logistic_slope(decisions: _Floats, y: Labels, row_weights: _Floats) -> _Floats:
    """Of −log of the right one's probability: what is said less what is right."""
    from scipy.special import expit, softmax

    if decisions.shape[1] == 1:
        slope = expit(decisions) - (y == 1)[:, None, None].astype(np.float32)
    else:
        slope = softmax(decisions, axis=1)
        slope[np.arange(len(y)), y] -= 1
    return np.asarray(slope * row_weights[:, None, None], np.float32)


def _hinge_slope(decisions: _Floats, y: Labels, row_weights: _Floats) -> _Floats:
    """Of max(0, 1 − sign · decision)²; weighed is a class and not the rest against it, as in LIBLINEAR."""
    outputs = decisions.shape[1]
    mine = (y[:, None] == (np.arange(outputs) if outputs > 1 else [1]))[..., None]
    signs = np.where(mine, np.float32(1), np.float32(-1))
    weights = np.where(mine | (outputs == 1), row_weights[:, None, None], np.float32(1))
    return np.asarray(-2 * signs * weights * np.maximum(0, 1 - signs * decisions), np.float32)
