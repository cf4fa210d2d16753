"""The heads that can be trained, by name: plain data. To add one, add an entry here and nothing elsewhere."""

from __future__ import annotations

from functools import partial
from typing import Any

from featstore.errors import unknown_name
from heads.kinds.discriminant import fit_discriminant
from heads.kinds.head import Params
from heads.kinds.kernel import fit_kernel
from heads.kinds.neighbours import fit_neighbours
from heads.kinds.problem import HeadKind
from heads.kinds.solve import solve_linear
from heads.kinds.stacking import fit_stacking

_MAX_ITER = 2_000
"""Solver steps. Standardised features need tens to hundreds; a solver that needs more than this will not converge."""


def _logreg(params: Params, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(**params, max_iter=_MAX_ITER, random_state=seed, warm_start=True)


def _linear_svm(params: Params, seed: int) -> Any:
    from sklearn.svm import LinearSVC

    # The primal solver copes with many images and with correlated features, where the dual one never converges.
    return LinearSVC(**params, dual=False, max_iter=_MAX_ITER, random_state=seed)


def _ridge(params: Params, seed: int) -> Any:
    from sklearn.linear_model import RidgeClassifier

    del seed  # the closed form draws nothing
    return RidgeClassifier(**params, solver="cholesky")


def _powers_of_ten(name: str, powers: range) -> tuple[Params, ...]:
    return tuple({name: 10.0**power} for power in powers)


_LOGREG_GRID = _powers_of_ten("C", range(-4, 2))

HEADS: dict[str, HeadKind] = {
    kind.name: kind
    for kind in (
        HeadKind("logreg", "logistic regression, L2", _LOGREG_GRID, partial(solve_linear, _logreg)),
        HeadKind(
            "linear-svm",
            "linear support vector machine, squared hinge, one against the rest",
            _powers_of_ten("C", range(-5, -1)),  # weaker than 0.01 chose no better on any table tried, and is slow
            partial(solve_linear, _linear_svm),
            tempered=True,
        ),
        HeadKind(
            "ridge",
            "least squares on the classes, L2",
            _powers_of_ten("alpha", range(6, -1, -1)),
            partial(solve_linear, _ridge),
            tempered=True,
        ),
        HeadKind(
            "lda",
            "linear discriminant analysis with a shrunk covariance",
            tuple({"shrinkage": shrinkage} for shrinkage in (0.99, 0.9, 0.7, 0.5, 0.3, 0.1)),
            fit_discriminant,
        ),
        HeadKind(
            "rbf-svm",
            "support vector machine with a Gaussian kernel, one against the rest",
            tuple({"C": C, "gamma": gamma} for C in (0.1, 1.0, 10.0, 100.0) for gamma in (0.1, 0.3, 1.0)),
            fit_kernel,
            tempered=True,
            widest=65_536,
        ),
        HeadKind(
            "knn",
            "the nearest training images by standardised distance, weighed alike or by distance",
            tuple({"k": k, "weights": weights} for k in (31, 15, 7, 3) for weights in ("uniform", "distance")),
            fit_neighbours,
            tempered=True,
            widest=65_536,
        ),
        HeadKind(
            "stacking",
            "a logistic regression for each backbone, and one on what they say",
            _LOGREG_GRID,
            partial(fit_stacking, partial(solve_linear, _logreg)),
            blocks=2,
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
