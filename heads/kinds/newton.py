"""Logistic regression and the squared hinge by Newton's method, for a whole grid of C on the same rows.

Minimised is ½|w|² + C · Σ loss, as scikit-learn has it: the logistic loss (its softmax for more than two classes) with
a free intercept, as LogisticRegression does; or the squared hinge, one against the rest, with the intercept penalised
like a weight, as LinearSVC does. Each step solves for the Newton direction by conjugate gradients (Lin, Weng & Keerthi,
2008), scaled by the mean curvature c: in a Gram matrix's eigenvectors the Hessian is close to diag(1 + C·c·λ). Each C
starts where the one before it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError
from heads.kinds.head import Params
from heads.kinds.linear import LinearHead
from heads.kinds.problem import Fit, Problem

_OFF = 1e-4
"""How far a decision value may be from the exact solution's; see :func:`_descend`."""

_STEPS = 100
"""Newton steps. Warm starts need two to ten."""

_DIRECTIONS = 500
"""Conjugate gradients to a step; a direction that is cut short still descends."""

_Floats = npt.NDArray[np.float64]
_Product = Callable[[_Floats], _Floats]


class Loss(Protocol):
    """A convex loss of decision values (N, outputs)."""

    outputs: int
    penalty: float
    """What the square of the intercept is penalised by: 1 or 0."""

    def at(self, decisions: _Floats) -> tuple[float, _Floats, _Product, float]:
        """The loss, its gradient (N, outputs), the product with its second derivative, and the mean of that."""


class Logistic:
    """−log of the right class's probability, rows weighed by ``row_weights``; two classes have one output."""

    penalty = 0.0

    def __init__(self, problem: Problem) -> None:
        self.outputs = 1 if problem.classes == 2 else problem.classes
        self._weights = problem.row_weights[:, None]
        self._right = np.eye(problem.classes)[problem.y]

    def at(self, decisions: _Floats) -> tuple[float, _Floats, _Product, float]:
        """As :class:`Loss` has it."""
        from scipy.special import log_softmax

        weights = self._weights
        both = np.hstack([np.zeros_like(decisions), decisions]) if self.outputs == 1 else decisions
        logs = log_softmax(both, axis=1)
        shares = np.exp(logs)
        loss = -float((weights * self._right * logs).sum())
        slope = (weights * (shares - self._right))[:, -self.outputs :]
        curves = (weights * shares * (1 - shares))[:, -self.outputs :]
        if self.outputs == 1:
            return loss, slope, lambda change: curves * change, float(curves.mean())

        def product(change: _Floats) -> _Floats:
            return np.asarray(weights * shares * (change - (shares * change).sum(axis=1, keepdims=True)))

        return loss, slope, product, float(curves.mean())


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

    def at(self, decisions: _Floats) -> tuple[float, _Floats, _Product, float]:
        """As :class:`Loss` has it."""
        short = np.maximum(0.0, 1 - self._signs * decisions)
        pulls = self._weights * short
        curves = 2 * self._weights * (short > 0)
        slope = -2 * self._signs * pulls
        return float((pulls * short).sum()), slope, lambda change: curves * change, float(curves.mean())


def solve_logistic(problem: Problem, grid: Sequence[Params], *, intercept: bool = True) -> tuple[Fit, ...]:
    """Logistic regression for each C of the ``grid``, which rises; see :func:`_solve`."""
    return _solve("logistic regression", Logistic(problem), problem, grid, intercept)


def solve_svm(problem: Problem, grid: Sequence[Params], *, intercept: bool = True) -> tuple[Fit, ...]:
    """Linear support vector machines for each C of the ``grid``, which rises; see :func:`_solve`."""
    return _solve("the linear support vector machine", SquaredHinge(problem), problem, grid, intercept)


def _solve(name: str, loss: Loss, problem: Problem, grid: Sequence[Params], intercept: bool) -> tuple[Fit, ...]:
    """A fit for each C, up to the first that does not converge; raises InputError if that is the very first."""
    rows = problem.rows
    objective = _Objective(rows.coordinates, loss, intercept)
    found = np.zeros((rows.coordinates.shape[1] + 1, loss.outputs))
    solved: list[_Floats] = []
    for params in grid:
        with rows.threads():
            found, off = _descend(partial(objective.at, params["C"]), found, objective.longest)
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
        solved.append(found.T)
    weights, bias = rows.lift(np.vstack(solved)[:, :-1], np.vstack(solved)[:, -1])  # reads the table once for them all
    heads = zip(np.split(weights, len(solved)), np.split(bias, len(solved)), strict=True)
    return tuple(Fit(LinearHead.from_decision(*head), params) for head, params in zip(heads, grid, strict=False))


@dataclass(frozen=True, slots=True)
class _Point:
    """The objective at some weights: value, gradient, Hessian's product, and the root of its scaled diagonal."""

    value: float
    gradient: _Floats
    hessian: _Product
    scale: _Floats


class _Objective:
    """½|w|² + C · loss(A · w + intercept); weights (R + 1, outputs), the last row the intercept."""

    def __init__(self, A: _Floats, loss: Loss, intercept: bool) -> None:
        squares = np.einsum("ij,ij->j", A, A)
        self.longest = float(np.sqrt(1 + np.einsum("ij,ij->i", A, A).max()))
        self._A, self._loss, self._free = A, loss, float(intercept)
        self._squares = np.append(squares, len(A))[:, None]
        self._penalty = np.append(np.ones(A.shape[1]), loss.penalty)[:, None]

    def at(self, C: float, weights: _Floats) -> _Point:
        loss, slope, product, curve = self._loss.at(self._ahead(weights))
        pull = self._penalty * weights
        return _Point(
            float(0.5 * (weights * pull).sum() + C * loss),
            pull + C * self._back(slope),
            lambda change: self._penalty * change + C * self._back(product(self._ahead(change))),
            np.sqrt(self._penalty + C * max(curve, 1e-12) * self._squares),
        )

    def _ahead(self, weights: _Floats) -> _Floats:
        return np.asarray(self._A @ weights[:-1] + self._free * weights[-1])

    def _back(self, slope: _Floats) -> _Floats:
        return np.vstack([self._A.T @ slope, self._free * slope.sum(axis=0)])


def _descend(at: Callable[[_Floats], _Point], start: _Floats, longest: float) -> tuple[_Floats, float]:
    """The least point, and how far a decision value may be off there.

    The penalty makes the objective strongly convex with modulus 1: weights are off by at most the gradient's norm, and
    decision values by that times the longest row. A free intercept has its mean curvature instead of the penalty.
    """

    def off(point: _Point) -> float:
        return float(np.linalg.norm(point.gradient / np.minimum(1, point.scale**2))) * longest

    here, point = start, at(start)
    for _ in range(_STEPS):
        if off(point) <= _OFF:
            break
        step = _direction(point)
        fall = float((step * point.gradient).sum())
        rounding = 1e-14 * abs(point.value)
        share = 1.0
        while (there := at(here + share * step)).value > point.value + 1e-4 * share * fall + rounding and share > 1e-6:
            share /= 2
        here, point = here + share * step, there
    return here, off(point)


def _direction(point: _Point) -> _Floats:
    """−Hessian⁻¹ · gradient, ever more exactly towards the end (Dembo, Eisenstat & Steihaug, 1982)."""
    from scipy.sparse.linalg import LinearOperator, cg

    shape, scale = point.gradient.shape, point.scale
    target = (-point.gradient / scale).ravel()

    def product(change: _Floats) -> _Floats:
        return (point.hessian(change.reshape(shape) / scale) / scale).ravel()

    norm = float(np.linalg.norm(target))
    operator = LinearOperator((target.size, target.size), matvec=product, dtype=np.float64)
    step, _ = cg(operator, target, rtol=min(0.1, norm**0.5), maxiter=_DIRECTIONS)
    return np.asarray(step).reshape(shape) / scale
