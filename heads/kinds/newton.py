"""Logistic regression and linear support vector machines by Newton's method, for a whole grid of C on the same rows.

Minimised is ½|w|² + C · Σ loss, as scikit-learn has it: the logistic loss (of a softmax for more than two classes) with
a free intercept, as LogisticRegression does; or the squared hinge, one against the rest, with the intercept penalised
like a weight, as LinearSVC does. Each step is found by conjugate gradients (Lin, Weng & Keerthi, 2008), which only have
to point the right way: they multiply in float32, while values and gradients are float64. Along orthogonal coordinates
they are scaled by the curvature, which spares most of them where features are alike. Each C starts where the
solutions before it, as a curve over log C, lead to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError
from heads.kinds.head import Params
from heads.kinds.problem import Fit, Problem
from heads.kinds.rowspace import RowSpace

_OFF = 1e-4
"""How far a decision value may be from the exact solution's, by a bound that is ten times too high or more."""

_STEPS = 100
"""Newton steps. Most C need two or three."""

_DIRECTIONS = 500
"""Conjugate gradients to a step; a direction that is cut short still descends."""

_Floats = npt.NDArray[np.float64]
_Rough = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Bend:
    """A loss at decision values (N, outputs): its value, its gradient, and its second derivative.

    product : float32 (N, outputs) → (N, outputs), the second derivative times a change of the decision values.
    curvature : the mean of the second derivative's diagonal. One number, as classes must stay alike: a softmax leaves
        it open how high all intercepts are together, and the steps leave it at 0.
    """

    value: float
    slope: _Floats
    product: Callable[[_Rough], _Rough]
    curvature: float


class Loss(Protocol):
    """A convex loss of decision values (N, outputs). ``penalty`` is what the intercept's square costs, 0 or 1."""

    outputs: int
    penalty: float

    def at(self, decisions: _Floats) -> Bend:
        """The loss there, and how it bends."""


class Logistic:
    """−log of the right one's probability of two classes, rows weighed by ``row_weights``."""

    outputs = 1
    penalty = 0.0

    def __init__(self, problem: Problem) -> None:
        self._weights = problem.row_weights[:, None]
        self._signs = np.where(problem.y == 1, 1.0, -1.0)[:, None]

    def at(self, decisions: _Floats) -> Bend:
        """As :class:`Loss` has it."""
        from scipy.special import expit

        margins = self._signs * decisions
        wrong = expit(-margins)
        value = float((self._weights * np.logaddexp(0.0, -margins)).sum())
        return _separate(value, -self._signs * self._weights * wrong, self._weights * wrong * (1 - wrong))


class Softmax:
    """−log of the right one's probability of more than two classes, rows weighed by ``row_weights``."""

    penalty = 0.0

    def __init__(self, problem: Problem) -> None:
        self.outputs = problem.classes
        self._weights = problem.row_weights[:, None]
        self._right = np.arange(len(problem.y)), problem.y

    def at(self, decisions: _Floats) -> Bend:
        """As :class:`Loss` has it."""
        logs = decisions - decisions.max(axis=1, keepdims=True)
        shares = np.exp(logs)
        totals = shares.sum(axis=1, keepdims=True)
        shares /= totals
        value = float((self._weights[:, 0] * (np.log(totals[:, 0]) - logs[self._right])).sum())
        slope = self._weights * shares
        curvature = float((slope * (1 - shares)).mean())
        rough, weighed = shares.astype(np.float32), slope.astype(np.float32)
        slope[self._right] -= self._weights[:, 0]

        def product(change: _Rough) -> _Rough:
            mean = np.einsum("nk,nk->n", rough, change)[:, None]
            return np.asarray(weighed * (change - mean), np.float32)

        return Bend(value, slope, product, curvature)


class SquaredHinge:
    """max(0, 1 − sign · decision)². Balanced, a class is weighed and the rest against it is not, as in LIBLINEAR."""

    penalty = 1.0

    def __init__(self, problem: Problem) -> None:
        codes = np.arange(problem.classes) if problem.classes > 2 else np.array([1])
        mine = problem.y[:, None] == codes
        self.outputs = len(codes)
        self._signs = np.where(mine, 1.0, -1.0)
        rows = problem.row_weights[:, None]
        self._weights = np.where(mine, rows, 1.0) if self.outputs > 1 else rows

    def at(self, decisions: _Floats) -> Bend:
        """As :class:`Loss` has it."""
        short = np.maximum(0.0, 1 - self._signs * decisions)
        pulls = self._weights * short
        return _separate(float((pulls * short).sum()), -2 * self._signs * pulls, 2 * self._weights * (short > 0))


def _separate(value: float, slope: _Floats, curves: _Floats) -> Bend:
    """A loss whose decision values do not mix: its second derivative is ``curves``, one by one."""
    rough = curves.astype(np.float32)
    return Bend(value, slope, lambda change: rough * change, float(curves.mean()))


def solve_logistic(problem: Problem, grid: Sequence[Params], *, intercept: bool = True) -> tuple[Fit, ...]:
    """Logistic regression for each C of the ``grid``, which rises; see :func:`_solve`."""
    loss = Logistic(problem) if problem.classes == 2 else Softmax(problem)
    return _solve("logistic regression", loss, problem, grid, intercept)


def solve_svm(problem: Problem, grid: Sequence[Params], *, intercept: bool = True) -> tuple[Fit, ...]:
    """Linear support vector machines for each C of the ``grid``, which rises; see :func:`_solve`."""
    return _solve("the linear support vector machine", SquaredHinge(problem), problem, grid, intercept)


def _solve(name: str, loss: Loss, problem: Problem, grid: Sequence[Params], intercept: bool) -> tuple[Fit, ...]:
    """A fit for each C, up to the first that does not converge; raises InputError if that is the very first."""
    rows = problem.rows
    solved: list[_Floats] = []
    with rows.threads():
        objective = _Objective.of(rows, loss, intercept)
        for params in grid:
            objective = replace(objective, C=params["C"])
            point, off = _descend(objective, _start(objective, [p["C"] for p in grid], solved))
            if not off <= _OFF:
                if solved:
                    break
                raise InputError(
                    f"{name} does not converge on these features",
                    where=f"C = {params['C']:g}",
                    expected=f"decision values within {_OFF:g} of the solution's",
                    received=f"{off:.2g} after {_STEPS} Newton steps at most",
                    todo="try another head or pooling, and look at the images of the smallest class",
                )
            solved.append(point.weights)
    heads = rows.heads([(weights[:-1].T, weights[-1]) for weights in solved])
    return tuple(map(Fit, heads, grid))


@dataclass(frozen=True, slots=True)
class _Point:
    """Weights (R + 1, outputs), the last row the intercept; their decision values, and the objective there."""

    weights: _Floats
    decisions: _Floats
    value: float
    bend: Bend


@dataclass(frozen=True, slots=True)
class _Objective:
    """½|w|² + C · loss(A · w + intercept).

    rough : A with a column for the intercept, of zeros if it has none.
    squares : (R + 1, 1), of the columns that are orthogonal, the intercept's among them; zeros for the others.
    """

    A: _Floats
    rough: _Rough
    squares: _Floats
    penalty: _Floats
    longest: float
    loss: Loss
    C: float = 0.0

    @classmethod
    def of(cls, rows: RowSpace, loss: Loss, intercept: bool) -> _Objective:
        A = rows.coordinates
        rough = np.empty((len(A), A.shape[1] + 1), np.float32)
        rough[:, :-1], rough[:, -1] = A, float(intercept)
        squares = np.append(rows.squares, len(A))[:, None]
        longest = np.sqrt(1 + np.einsum("ij,ij->i", A, A).max())
        return cls(A, rough, squares, np.append(np.ones(A.shape[1]), loss.penalty)[:, None], float(longest), loss)

    def decisions(self, weights: _Floats) -> _Floats:
        return np.asarray(self.A @ weights[:-1] + self.rough[0, -1] * weights[-1])

    def point(self, weights: _Floats, decisions: _Floats) -> _Point:
        bend = self.loss.at(decisions)
        return _Point(weights, decisions, 0.5 * float((self.penalty * weights**2).sum()) + self.C * bend.value, bend)

    def gradient(self, point: _Point) -> _Floats:
        slope = point.bend.slope
        back = np.vstack([self.A.T @ slope, self.rough[0, -1] * slope.sum(axis=0)])
        return np.asarray(self.penalty * point.weights + self.C * back)

    def scale(self, point: _Point) -> _Floats:
        """What the directions are scaled by (R + 1, 1): the Hessian's diagonal, were the loss bent alike everywhere.

        Of columns that are not orthogonal it tells too little, and they are left as they are.
        """
        return np.asarray(self.penalty + self.C * max(point.bend.curvature, 1e-12) * self.squares)


def _start(objective: _Objective, grid: Sequence[float], solved: Sequence[_Floats]) -> _Point:
    """Where the last three solutions lead to as a parabola over log C, or the last one if that is better."""
    if not solved:
        shape = (objective.rough.shape[1], objective.loss.outputs)
        return objective.point(np.zeros(shape), np.zeros((len(objective.A), shape[1])))
    known = range(max(0, len(solved) - 3), len(solved))
    logs = np.log(grid)
    led = np.zeros_like(solved[-1])
    for i in known:
        led += solved[i] * np.prod([(logs[len(solved)] - logs[j]) / (logs[i] - logs[j]) for j in known if j != i])
    points = [objective.point(weights, objective.decisions(weights)) for weights in (solved[-1], led)]
    return min(points, key=lambda point: point.value)


def _descend(objective: _Objective, point: _Point) -> tuple[_Point, float]:
    """The least point, and how far a decision value may be off there.

    The penalty makes the objective strongly convex with modulus 1: weights are off by at most the gradient's norm, and
    decision values by that times the longest row. A free intercept has its mean curvature instead of the penalty.
    """
    for step in range(_STEPS + 1):
        gradient, scale = objective.gradient(point), objective.scale(point)
        off = float(np.linalg.norm(gradient / np.minimum(1, scale))) * objective.longest
        if off <= _OFF or step == _STEPS:
            break
        point = _search(objective, point, _direction(objective, point, gradient, scale), gradient)
    return point, off


def _search(objective: _Objective, here: _Point, step: _Floats, gradient: _Floats) -> _Point:
    """The first point of the whole step, its half, a quarter, … where the objective falls as it should (Armijo)."""
    change, fall = objective.decisions(step), float((step * gradient).sum())
    rounding = 1e-12 * abs(here.value)
    share = 1.0
    while True:
        there = objective.point(here.weights + share * step, here.decisions + share * change)
        if there.value <= here.value + 1e-4 * share * fall + rounding or share < 1e-6:
            return there
        share /= 2


def _direction(objective: _Objective, point: _Point, gradient: _Floats, scale: _Floats) -> _Floats:
    """−Hessian⁻¹ · gradient, ever more exactly towards the end (Dembo, Eisenstat & Steihaug, 1982)."""
    inverse = (1 / np.sqrt(scale)).astype(np.float32)
    penalty = objective.penalty.astype(np.float32) * inverse**2
    forward, back = objective.rough, np.float32(objective.C) * inverse

    def hessian(change: _Rough) -> _Rough:
        return penalty * change + back * (forward.T @ point.bend.product(forward @ (inverse * change)))

    target = (-gradient).astype(np.float32) * inverse
    size = float(np.linalg.norm(target))
    return np.asarray(inverse * _conjugate(hessian, target, min(0.1, size**0.5) * size), np.float64)


def _conjugate(matrix: Callable[[_Rough], _Rough], target: _Rough, end: float) -> _Rough:
    """The x with |matrix(x) − target| ≤ ``end``, by conjugate gradients (Hestenes & Stiefel, 1952).

    SciPy's takes as long for its own bookkeeping as a product of a thousand rows takes here.
    """
    x, left = np.zeros_like(target), target.copy()
    along, square = left.copy(), float(np.vdot(left, left))
    for _ in range(_DIRECTIONS):
        if square <= end**2:
            break
        bent = matrix(along)
        share = np.float32(square / float(np.vdot(along, bent)))
        x += share * along
        left -= share * bent
        before, square = square, float(np.vdot(left, left))
        along *= np.float32(square / before)
        along += left
    return x
