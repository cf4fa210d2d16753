"""The heads that can be trained, by name: plain data. To add one, add an entry here and nothing elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from featstore.errors import unknown_name
from heads.kinds.discriminant import fit_discriminant
from heads.kinds.head import Params
from heads.kinds.kernel import fit_kernel
from heads.kinds.neighbours import fit_neighbours
from heads.kinds.newton import solve_logistic, solve_svm
from heads.kinds.problem import Fit, HeadKind, Problem
from heads.kinds.ridge import fit_ridge
from heads.kinds.stacking import fit_stacking
from heads.kinds.streamed import stream_logistic, stream_svm


def _powers_of_ten(name: str, powers: range) -> tuple[Params, ...]:
    return tuple({name: 10.0**power} for power in powers)


def _fit_dense(problem: Problem, grid: Sequence[Params]) -> tuple[Fit, ...]:
    from heads.kinds.dense_training import fit_dense  # TensorFlow takes seconds to load, and is not always wanted

    return fit_dense(problem, grid)


def _preset(**params: Any) -> tuple[Params, ...]:
    """One setting, as a tutorial has it: features as they are, every epoch trained."""
    return ({"patience": 0, "standardise": False, **params},)


_DENSE_GRID: tuple[Params, ...] = tuple(
    {
        "hidden": (128,),
        "dropout": dropout,
        "optimizer": "adam",
        "learning_rate": rate,
        "epochs": 40,
        "batch_size": 64,
        "patience": 5,
        "standardise": True,
    }
    for rate in (1e-4, 1e-3)
    for dropout in (0.5, 0.2)
)
_LOGREG_GRID = _powers_of_ten("C", range(-4, 2))

HEADS: dict[str, HeadKind] = {
    kind.name: kind
    for kind in (
        HeadKind("logreg", "logistic regression, L2", _LOGREG_GRID, solve_logistic, stream=stream_logistic),
        HeadKind(
            "linear-svm",
            "linear support vector machine, squared hinge, one against the rest",
            _powers_of_ten("C", range(-5, -1)),  # weaker than 0.01 chose no better on any table tried, and is slow
            solve_svm,
            tempered=True,
            stream=stream_svm,
        ),
        HeadKind(
            "ridge",
            "least squares on the classes, L2",
            _powers_of_ten("alpha", range(6, -1, -1)),
            fit_ridge,
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
            longest=20_000,  # all pairs of rows, several times: 3 GB each
        ),
        HeadKind(
            "knn",
            "the nearest training images by standardised distance, weighed alike or by distance",
            tuple({"k": k, "weights": weights} for k in (31, 15, 7, 3) for weights in ("uniform", "distance")),
            fit_neighbours,
            tempered=True,
            widest=65_536,
            longest=100_000,
        ),
        HeadKind(
            "dense",
            "a network with a hidden layer of relu, standardised features, stopped where the held-out loss is least",
            _DENSE_GRID,
            _fit_dense,
            tempered=True,
            poolings=frozenset({"avg", "max"}),
            stream=_fit_dense,
            every_core=True,
        ),
        HeadKind(
            "linear",
            "the tutorials' dropout and one layer, on average-pooled features",
            _preset(hidden=(), dropout=0.2, optimizer="adam", learning_rate=1e-3, epochs=20, batch_size=32),
            _fit_dense,
            poolings=frozenset({"avg"}),
            stream=_fit_dense,
            every_core=True,
        ),
        HeadKind(
            "chollet",
            "the cats-versus-dogs tutorials' network on flattened features: 256 relu, dropout, sigmoid",
            _preset(hidden=(256,), dropout=0.5, optimizer="rmsprop", learning_rate=2e-5, epochs=30, batch_size=20),
            _fit_dense,
            poolings=frozenset({"flatten", "map"}),
            widest=65_536,
            stream=_fit_dense,
            every_core=True,
        ),
        HeadKind(
            "stack",
            "the tutorials' four layers of 1024, 1024, 1024, 512 on average-pooled features",
            _preset(
                hidden=(1024, 1024, 1024, 512),
                dropout=0.0,
                optimizer="adam",
                learning_rate=1e-3,
                epochs=10,
                batch_size=32,
            ),
            _fit_dense,
            poolings=frozenset({"avg"}),
            stream=_fit_dense,
            every_core=True,
        ),
        HeadKind(
            "stacking",
            "a logistic regression for each backbone, and one on what they say",
            _LOGREG_GRID,
            partial(fit_stacking, solve_logistic),
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
