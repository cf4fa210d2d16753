"""Train dense heads in TensorFlow, a family of them at a time in one compiled loop.

Heads that differ only in dropout, learning rate or seed share their batches: each step of the loop updates all of them,
so that a batch is cut once and the start-up paid once. The update rules are Keras's (tests hold them to ``model.fit``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError
from featstore.table import StoredRows
from featstore.weights.keras_io import import_keras
from heads.kinds.blocks import Rows, moments
from heads.kinds.dense import DenseHead
from heads.kinds.head import Params
from heads.kinds.problem import Curve, Fit, HeldOut, Problem

_SHARED = ("hidden", "optimizer", "epochs", "batch_size", "patience", "standardise")
"""What the members of a family have in common; ``dropout``, ``learning_rate`` and ``seed`` may differ."""

_Floats = npt.NDArray[np.float32]
_Sums = npt.NDArray[np.float64]


def fit_dense(problem: Problem, grid: Sequence[Params]) -> tuple[Fit, ...]:
    """A fit for each value of the grid.

    hidden : sizes of the hidden layers. dropout : share of the last layer's inputs that are dropped in training.
    optimizer : "adam" or "rmsprop", with Keras's defaults. learning_rate, epochs, batch_size : as in Keras.
    patience : epochs without a better held-out loss after which training stops, the best epoch's weights being kept
        (and its number given back as ``epochs``); 0, or no held-out rows: all epochs.
    standardise : by the rows' mean and deviation, folded into the first layer afterwards.
    seed : optional, for several heads that differ in nothing else.
    The fits end before the first value whose weights grew beyond all numbers; raises InputError if that is the first.
    """
    families: dict[tuple[Any, ...], list[int]] = {}
    for place, params in enumerate(grid):
        families.setdefault(tuple(params[name] for name in _SHARED), []).append(place)
    fits: dict[int, Fit | None] = {}
    for places in families.values():
        fits.update(zip(places, _fit_family(problem, [grid[place] for place in places]), strict=True))
    found = [fit for fit in takewhile(lambda fit: fit is not None, (fits[i] for i in range(len(grid)))) if fit]
    if grid and not found:
        raise InputError(
            "the weights of a dense head grew beyond all numbers",
            where=f"learning_rate = {grid[0]['learning_rate']:g}",
            todo="try a lower learning rate, or another head or pooling",
        )
    return tuple(found)


@dataclass(slots=True)
class _Member:
    """One head of a family: its variables, what its optimiser remembers, and the best that it has been."""

    params: Params
    weights: list[Any]
    biases: list[Any]
    slots: list[tuple[Any, Any]]
    seed: int
    curve: list[tuple[float, float, float, float]] = field(default_factory=list)
    best: tuple[int, list[_Floats]] | None = None
    going_on: bool = True

    @property
    def variables(self) -> list[Any]:
        """All weights, then all biases."""
        return self.weights + self.biases

    @property
    def arrays(self) -> list[_Floats]:
        """Their values now."""
        return [variable.numpy() for variable in self.variables]

    def end_epoch(self, train: _Sums, held_out: _Sums, patience: int) -> None:
        """Note an epoch's losses and accuracies (2,); with ``patience`` keep the best; decide whether to go on."""
        self.curve.append((float(train[0]), float(train[1]), float(held_out[0]), float(held_out[1])))
        if not patience:
            return
        epoch, loss = len(self.curve), self.curve[-1][2]
        if self.best is None or loss < self.curve[self.best[0] - 1][2]:
            self.best = (epoch, self.arrays)
        self.going_on = epoch - self.best[0] < patience


def _fit_family(problem: Problem, grid: Sequence[Params]) -> list[Fit | None]:
    import_keras()
    import tensorflow as tf

    shared = grid[0]
    mean, scale = moments(problem.X) if shared["standardise"] else (None, None)
    members = [_member(problem, params) for params in grid]
    run_block, judge = _compiled(members, problem.classes, problem.X.shape[1])
    rows = Rows(problem.X, problem.y, mean, scale, tf.constant)
    held_out = _usable(problem.held_out, mean, scale)
    patience = shared["patience"] if held_out is not None else 0
    random = np.random.default_rng(problem.seed)
    row_weights = problem.row_weights.astype(np.float32)
    step = 0
    for _ in range(shared["epochs"]):
        sums = np.zeros((len(members), 2))
        for chosen, X, y in rows.blocks(random):
            order, size = random.permutation(len(chosen)), shared["batch_size"]
            numbers = map(tf.constant, (X, y, row_weights[chosen], order, np.int64(size), np.int64(step)))
            sums += run_block(*numbers).numpy()
            step += -(-len(chosen) // size)
        judged = _judge(judge, held_out, len(members))
        for member, train, held in zip(members, sums / len(problem.y), judged, strict=True):
            if member.going_on:  # else it is as it was when it stopped, though it trains on beside the others
                member.end_epoch(train, held, patience)
        if not any(member.going_on for member in members):
            break
    return [_fit(member, mean, scale, held_out is not None) for member in members]


def _member(problem: Problem, params: Params) -> _Member:
    """Variables as Keras starts them: Glorot's uniform weights (2010), biases of 0."""
    import tensorflow as tf

    random = np.random.default_rng([problem.seed, params.get("seed", 0)])
    outputs = 1 if problem.classes == 2 else problem.classes
    sizes = [problem.X.shape[1], *params["hidden"], outputs]
    weights, biases = [], []
    for inputs, units in pairwise(sizes):
        limit = np.sqrt(6 / (inputs + units))
        weights.append(tf.Variable(random.uniform(-limit, limit, (inputs, units)).astype(np.float32)))
        biases.append(tf.Variable(np.zeros(units, np.float32)))
    slots = [(tf.Variable(tf.zeros_like(v)), tf.Variable(tf.zeros_like(v))) for v in weights + biases]
    return _Member(params, weights, biases, slots, seed=int(random.integers(2**31)))


def _compiled(members: Sequence[_Member], classes: int, width: int) -> tuple[Any, Any]:
    """Two compiled functions: train all members on a block of rows; judge all of them on some.

    Each is traced once, for blocks of any number of rows; concrete, so that TensorFlow does not warn of the next fit's.
    """
    import tensorflow as tf

    features, integers = tf.TensorSpec((None, width)), tf.TensorSpec((None,), tf.int64)
    numbers, integer = tf.TensorSpec((None,)), tf.TensorSpec((), tf.int64)

    @tf.function(  # type: ignore[untyped-decorator] # TensorFlow has no types
        input_signature=(features, integers, numbers, integers, integer, integer)
    )
    def run_block(X: Any, y: Any, row_weights: Any, order: Any, batch_size: Any, step: Any) -> Any:
        """Sums (members, 2) over the rows of the loss and of right answers, while training on them."""
        sums = tf.zeros((len(members), 2))
        for start in tf.range(0, tf.shape(order, tf.int64)[0], batch_size):
            step += 1
            rows = order[start : start + batch_size]
            batch = tf.gather(X, rows), tf.gather(y, rows), tf.gather(row_weights, rows)
            sums += tf.stack([_step(member, batch, classes, step) for member in members])
        return sums

    @tf.function(input_signature=(features, integers))  # type: ignore[untyped-decorator]
    def judge(X: Any, y: Any) -> Any:
        """Sums (members, 2) over the rows of the loss and of right answers."""
        return tf.stack([_sums(*_losses(_logits(member, X), y, classes)) for member in members])

    return run_block.get_concrete_function(), judge.get_concrete_function()


def _step(member: _Member, batch: tuple[Any, Any, Any], classes: int, step: Any) -> Any:
    """Train on one batch; sums (2,) of the loss and of right answers, before the update as in Keras."""
    import tensorflow as tf

    X, y, row_weights = batch
    with tf.GradientTape() as tape:
        losses, right = _losses(_logits(member, X, step), y, classes)
        loss = tf.reduce_mean(losses * row_weights)
    gradients = tape.gradient(loss, member.variables)
    for variable, slots, gradient in zip(member.variables, member.slots, gradients, strict=True):
        _UPDATES[member.params["optimizer"]](variable, slots, gradient, member.params["learning_rate"], step)
    return _sums(losses * row_weights, right)


def _logits(member: _Member, X: Any, step: Any = None) -> Any:
    """Logits (n, K), or (n, 1) for two classes; with a ``step`` as in training, with dropout."""
    import tensorflow as tf

    values = X
    for weights, bias in zip(member.weights[:-1], member.biases[:-1], strict=True):
        values = tf.nn.relu(tf.matmul(values, weights) + bias)
    if step is not None and member.params["dropout"]:
        values = tf.nn.experimental.stateless_dropout(values, member.params["dropout"], [member.seed, step])
    return tf.matmul(values, member.weights[-1]) + member.biases[-1]


def _losses(logits: Any, y: Any, classes: int) -> tuple[Any, Any]:
    """Cross-entropy (n,) in nats and whether each answer is right, float32 (n,)."""
    import tensorflow as tf

    if classes == 2:
        truth = tf.cast(y, tf.float32)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(truth, logits[:, 0])
        said = tf.cast(logits[:, 0] > 0, tf.int64)
    else:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
        said = tf.argmax(logits, axis=1)
    return losses, tf.cast(said == y, tf.float32)


def _sums(losses: Any, right: Any) -> Any:
    import tensorflow as tf

    return tf.stack([tf.reduce_sum(losses), tf.reduce_sum(right)])


def _adam(variable: Any, slots: tuple[Any, Any], gradient: Any, rate: float, step: Any) -> None:
    """Adam (Kingma & Ba, 2015) with Keras's constants, in one pass over the numbers."""
    import tensorflow as tf

    beta_1, beta_2, count = tf.constant(0.9), tf.constant(0.999), tf.cast(step, tf.float32)
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle, m=slots[0].handle, v=slots[1].handle, grad=gradient, lr=rate, epsilon=1e-7,
        beta1=beta_1, beta2=beta_2, beta1_power=beta_1**count, beta2_power=beta_2**count,
    )  # fmt: skip


def _rmsprop(variable: Any, slots: tuple[Any, Any], gradient: Any, rate: float, step: Any) -> None:
    """RMSprop (Tieleman & Hinton, 2012) with Keras's constants, in one pass over the numbers."""
    import tensorflow as tf

    del step
    tf.raw_ops.ResourceApplyRMSProp(
        var=variable.handle, ms=slots[0].handle, mom=slots[1].handle, grad=gradient, lr=rate, rho=0.9, momentum=0.0,
        epsilon=1e-7,
    )  # fmt: skip


_UPDATES = {"adam": _adam, "rmsprop": _rmsprop}


def _usable(held_out: HeldOut | None, mean: Any, scale: Any) -> Rows | None:
    """The held-out rows whose class is known; None if there are none."""
    import tensorflow as tf

    known = np.flatnonzero(held_out.columns >= 0) if held_out else ()
    if held_out is None or not len(known):
        return None
    X = held_out.X
    if len(known) < len(held_out.columns):
        X = X.select(known) if isinstance(X, StoredRows) else X[known]
    return Rows(X, held_out.columns[known], mean, scale, tf.constant)


def _judge(judge: Any, held_out: Rows | None, members: int) -> _Sums:
    """Mean loss and accuracy (members, 2) on the held-out rows; zeros without any."""
    import tensorflow as tf

    sums = np.zeros((members, 2))
    if held_out is None:
        return sums
    for _, X, y in held_out.blocks(np.random.default_rng(0)):
        sums += judge(X, tf.constant(y)).numpy()
    return sums / len(held_out)


def _fit(member: _Member, mean: Any, scale: Any, judged: bool) -> Fit | None:
    """The head of the best epoch; None if its weights are no numbers any more."""
    epochs, arrays = member.best or (len(member.curve), member.arrays)
    if not all(np.isfinite(array).all() for array in arrays):
        return None
    layers = len(member.weights)
    weights, biases = arrays[:layers], arrays[layers:]
    if mean is not None:
        first = weights[0] / scale[:, None]
        biases[0] = (biases[0] - mean @ first).astype(np.float32)
        weights[0] = first.astype(np.float32)
    if weights[-1].shape[1] == 1:
        weights[-1] = np.concatenate([np.zeros_like(weights[-1]), weights[-1]], axis=1)
        biases[-1] = np.concatenate([np.zeros(1, np.float32), biases[-1]])
    loss, accuracy, held_loss, held_accuracy = zip(*member.curve, strict=True)
    curve = Curve(loss, accuracy, held_loss, held_accuracy) if judged else Curve(loss, accuracy)
    return Fit(DenseHead(tuple(weights), tuple(biases)), {**member.params, "epochs": epochs}, curve)
