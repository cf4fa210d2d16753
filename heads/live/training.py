"""Train a network in stages, epoch by epoch, so that a kill costs at most the epoch it struck.

Everything that an epoch depends on is a pure function of the seed and the epoch's number (the order of the images,
their views) or is kept in the checkpoint (weights, the state of the optimiser and of dropout): training that was killed
and goes on ends with the weights of training that was not.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError
from featstore.progress import Progress, silent
from featstore.weights.keras_io import import_keras
from heads.kinds.head import Labels
from heads.kinds.problem import Curve
from heads.live.batches import Batches, Views, order_of
from heads.live.checkpoint import Arrays, State, group, read_checkpoint, write_checkpoint
from heads.live.logs import Logs
from heads.live.plan import LiveOptions, Stage

_VERSION = 1
"""Rises when an older checkpoint must not be gone on from."""

_MACHINES_OWN = ("seconds", "tensorboard", "devices")
"""Options that decide where and how long it is trained, not what."""

_Arrays = list[npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished training.

    curve : its learning curve. seconds : the wall time of each epoch. images : how many went through, in all epochs.
    cut_short : whether a stage ended for want of time, and not for its number of epochs or its patience.
    before : how many of the epochs an earlier call had done.
    """

    curve: Curve
    seconds: tuple[float, ...]
    images: int
    cut_short: bool
    before: int


def train_network(
    model: Any,
    prepare_stage: Callable[[Stage], None],
    stages: Sequence[Stage],
    train: Batches,
    held_out: Batches | None,
    views: Views,
    options: LiveOptions,
    *,
    checkpoint: Path | None = None,
    key: str = "",
    label: str = "training",
    progress: Progress = silent,
) -> Trained:
    """Train ``model``, which gives logits, through all ``stages``; ``prepare_stage`` sets which layers are in training.

    checkpoint : a file to go on from, if it was written for the same ``key``, and to write after every epoch.
    Raises InputError if the loss is not a number any more, ReadOnlyError, NoSpaceError or StorageError.
    """
    run = Run(model, train, held_out, views, options)
    state, kept = read_checkpoint(checkpoint, _key(key, stages, options))
    before = state.epoch
    total = run.images * (sum(stage.epochs for stage in stages) - state.epoch)
    cut_short = False
    with progress(label, total) as advance:
        for number in range(state.stage, len(stages)):
            stage = stages[number]
            prepare_stage(stage)
            run.compile(stage)
            best = run.restore(kept) if kept is not None else None
            kept = None
            until = _share(options.seconds, stages, number)
            while state.epochs_of_stage < stage.epochs and not run.is_over(state) and _in_time(state, until):
                improved = run.epoch(state, advance)
                best = run.weights() if improved else best
                if checkpoint is not None:
                    write_checkpoint(checkpoint, _key(key, stages, options), state, run.arrays(best))
            cut_short |= state.epochs_of_stage < stage.epochs and not run.is_over(state)
            advance(run.images * (stage.epochs - state.epochs_of_stage))
            if best is not None and options.patience:
                run.set_weights(best)
            state.stage, state.epochs_of_stage, state.best_loss = number + 1, 0, None
    loss, accuracy, held_loss, held_accuracy = zip(*state.curve, strict=True) if state.curve else ((), (), (), ())
    curve = Curve(loss, accuracy, held_loss, held_accuracy) if held_out is not None else Curve(loss, accuracy)
    return Trained(curve, tuple(state.seconds), state.epoch * run.images, cut_short, before)


class Run:
    """A model with what it is trained and judged on; :func:`train_network` takes it through its epochs.

    ``images`` are those of an epoch: as many as the devices can share evenly. Keras would weigh those of a batch's
    smaller share more, and cannot begin with such a batch at all.
    """

    def __init__(
        self, model: Any, train: Batches, held_out: Batches | None, views: Views, options: LiveOptions
    ) -> None:
        self._model, self._train, self._held_out = model, train, held_out
        self._views, self._options = views, options
        self._shares = model.distribute_strategy.num_replicas_in_sync
        self.images = len(train.y) - len(train.y) % self._shares
        if not self.images:
            raise InputError(
                "there are fewer images to train on than devices",
                where="--devices",
                expected=f"at most {len(train.y)}",
                received=self._shares,
            )
        self._binary = model.output_shape[-1] == 1
        self._logs = Logs(options.tensorboard)

    def compile(self, stage: Stage) -> None:
        """A fresh optimiser for what is in training now."""
        keras = import_keras()
        make = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop}[stage.optimizer]
        optimizer = make(stage.learning_rate)
        if _in_float16(self._model):
            scaled = keras.optimizers.LossScaleOptimizer if self._shares == 1 else _scaled_alike()
            optimizer = scaled(optimizer)
        losses = keras.losses
        self._model.compile(
            optimizer,
            losses.BinaryCrossentropy(from_logits=True)
            if self._binary
            else losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[
                keras.metrics.BinaryAccuracy("accuracy", threshold=0.0)
                if self._binary
                else keras.metrics.SparseCategoricalAccuracy("accuracy")
            ],
        )
        optimizer.build(self._model.trainable_variables)

    def is_over(self, state: State) -> bool:
        """Whether the stage has gone ``patience`` epochs without a better loss."""
        patience, losses = self._options.patience, [row[2] for row in state.curve[-state.epochs_of_stage :]]
        if not patience or self._held_out is None or not state.epochs_of_stage:
            return False
        return len(losses) - 1 - int(np.argmin(losses)) >= patience

    def epoch(self, state: State, advance: Callable[[int], None]) -> bool:
        """Train one epoch and note it in ``state``; whether its held-out loss is the best of the stage."""
        started = time.perf_counter()
        epoch = state.epoch
        order = order_of(len(self._train.y), self._options.seed, epoch)[: self.images]
        data = self._data(self._train, order, self._views.of(epoch))
        history = self._model.fit(
            data, epochs=epoch + 1, initial_epoch=epoch, verbose=0, shuffle=False, class_weight=self._class_weight(),
            callbacks=[_ticks(advance, self._options.batch_size, self.images)],
        ).history  # fmt: skip
        loss, accuracy = float(history["loss"][-1]), float(history["accuracy"][-1])
        held_loss, held_accuracy = self._judge()
        if not np.isfinite(loss):
            raise InputError(
                "the loss is not a number any more",
                where=f"epoch {epoch + 1}",
                todo="try a lower learning rate; float16 and bfloat16 may need float32",
            )
        state.curve.append((loss, accuracy, held_loss, held_accuracy))
        state.seconds.append(time.perf_counter() - started)
        state.epoch, state.epochs_of_stage = epoch + 1, state.epochs_of_stage + 1
        self._logs.write(epoch, state.curve[-1])
        improved = self._held_out is not None and (state.best_loss is None or held_loss < state.best_loss)
        if improved:
            state.best_loss = held_loss
        return improved

    def weights(self) -> _Arrays:
        """What is in training, as it is now."""
        return [variable.numpy() for variable in self._model.trainable_variables]

    def set_weights(self, arrays: _Arrays) -> None:
        """Give what is in training these values."""
        for variable, array in zip(self._model.trainable_variables, arrays, strict=True):
            variable.assign(array)

    def arrays(self, best: _Arrays | None) -> Arrays:
        """All that a checkpoint needs to go on from here, and the best weights so far."""
        groups = {"now": self.weights(), "rest": self._rest(), "best": best or []}
        return {f"{name}_{i}": array for name, arrays in groups.items() for i, array in enumerate(arrays)}

    def restore(self, arrays: Arrays) -> _Arrays | None:
        """Go back to what :meth:`arrays` gave; the best weights so far are given back."""
        groups = {name: group(arrays, name) for name in ("now", "rest", "best")}
        self.set_weights(groups["now"])
        for variable, array in zip(self._others(), groups["rest"], strict=True):
            variable.assign(array)
        return groups["best"] or None

    def _others(self) -> list[Any]:
        seeds = [v for v in self._model.non_trainable_variables if "seed" in v.path]
        return [*seeds, *self._model.optimizer.variables]

    def _rest(self) -> _Arrays:
        return [variable.numpy() for variable in self._others()]

    def _data(self, batches: Batches, order: Labels, view: int) -> Any:
        import tensorflow as tf

        size = self._options.batch_size
        kinds = (tf.TensorSpec((None, *batches.shape), batches.dtype), tf.TensorSpec((None,), tf.int64))
        found = tf.data.Dataset.from_generator(lambda: batches.read(order, view, size), output_signature=kinds)
        return found.apply(tf.data.experimental.assert_cardinality(-(-len(order) // size))).prefetch(2)

    def _judge(self) -> tuple[float, float]:
        """Held-out loss and accuracy. Images left over from even shares are judged apart, each once in every share."""
        if self._held_out is None:
            return 0.0, 0.0
        rows = np.arange(len(self._held_out.y))
        even = len(rows) - len(rows) % self._shares
        parts = (rows[:even], np.repeat(rows[even:], self._shares))
        judged = [self._evaluate(self._held_out, part) for part in parts]
        loss, accuracy = np.average(judged, axis=0, weights=(even, len(rows) - even))
        return float(loss), float(accuracy)

    def _evaluate(self, batches: Batches, rows: Labels) -> tuple[float, float]:
        if not len(rows):
            return 0.0, 0.0
        found = self._model.evaluate(self._data(batches, rows, 0), verbose=0, return_dict=True)
        return float(found["loss"]), float(found["accuracy"])

    def _class_weight(self) -> dict[int, float] | None:
        if not self._options.balanced:
            return None
        counts = np.bincount(self._train.y)
        return {i: len(self._train.y) / (len(counts) * count) for i, count in enumerate(counts.tolist())}


def _scaled_alike() -> Any:
    """Keras's scaling of the loss for float16 (by less, and without a step, where gradients overflow), on all devices
    alike.

    Keras has each decide about that by its own gradients, before they are added up: where only some overflow, the
    others would go on, and the weights fall apart.
    """
    keras = import_keras()
    import tensorflow as tf

    class ScaledAlike(keras.optimizers.LossScaleOptimizer):  # type: ignore[misc,name-defined] # Keras has no types
        def check_finite(self, grads: Any) -> Any:
            overflowing = tf.cast(tf.logical_not(super().check_finite(grads)), "float32")
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, overflowing) == 0

    return ScaledAlike


def _in_float16(model: Any) -> bool:
    """Whether a layer computes in float16, whose least numbers small gradients would fall below."""
    return any(layer.compute_dtype == "float16" for layer in model._flatten_layers())


def _ticks(advance: Callable[[int], None], batch_size: int, count: int) -> Any:
    """A callback that tells of every batch."""
    keras = import_keras()

    def tick(batch: int, logs: object) -> None:
        del logs
        advance(min(batch_size, count - batch * batch_size))

    return keras.callbacks.LambdaCallback(on_train_batch_end=tick)


def _share(seconds: float | None, stages: Sequence[Stage], number: int) -> float | None:
    """When a stage has to be done, in seconds of training since the beginning of all."""
    if seconds is None:
        return None
    epochs = [stage.epochs for stage in stages]
    return seconds * sum(epochs[: number + 1]) / sum(epochs)


def _in_time(state: State, until: float | None) -> bool:
    return until is None or not state.epochs_of_stage or sum(state.seconds) + state.seconds[-1] <= until


def _key(key: str, stages: Sequence[Stage], options: LiveOptions) -> str:
    """SHA-256 (hex) of all that the weights depend on but the machine and the time that it was given."""
    told = {name: value for name, value in asdict(options).items() if name not in _MACHINES_OWN}
    words = {"version": _VERSION, "key": key, "stages": [asdict(stage) for stage in stages], "options": told}
    return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()
