from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore import whole
from featstore.errors import InputError, ReadOnlyError
from featstore.weights.keras_io import float32_policy, import_keras
from heads.live import training as module
from heads.live.batches import MapBatches, Views
from heads.live.plan import LiveOptions, Stage
from heads.live.training import Trained, train_network
from tests.heads.conftest import make_table, with_views
from tests.reliability.campaign import takes_long

STAGES = (Stage(3, 1e-2), Stage(4, 1e-3, "adam", unfreeze="all"))


def network(classes: int = 2, width: int = 8) -> tuple[Any, Any]:
    """A small network with dropout, and what sets its layers: the first is trained only in stages with ``unfreeze``."""
    keras = import_keras()
    keras.utils.set_random_seed(0)
    with float32_policy():
        inputs = keras.Input((width,))
        first = keras.layers.Dense(6, activation="relu")
        values = keras.layers.Dropout(0.3, seed=5)(first(inputs))
        model = keras.Model(inputs, keras.layers.Dense(1 if classes == 2 else classes)(values))

    def prepare(stage: Stage) -> None:
        first.trainable = stage.unfreeze is not None

    return model, prepare


def batches(classes: int = 2, split: str = "train", seed: int = 0) -> MapBatches:
    table = with_views(make_table(60, classes=classes, split=split, seed=seed), 2 if split == "train" else 1)
    return MapBatches(table, table.y[:60], (8,))


def trained(model: Any, prepare: Any, classes: int = 2, *, stages: Any = STAGES, **given: Any) -> Trained:
    options = given.pop("options", LiveOptions(batch_size=16))
    held_out = batches(classes, "validation", seed=1)
    return train_network(model, prepare, stages, batches(classes), held_out, Views(2), options, **given)


def logits_of(model: Any, given: MapBatches) -> np.ndarray:
    """Of view 0 of all images, (N, K); of two classes the first has 0."""
    [(inputs, _)] = given.read(np.arange(len(given.y)), 0, 1000)
    found = model.predict_on_batch(inputs)
    return found if found.shape[1] > 1 else np.concatenate([np.zeros_like(found), found], axis=1)


def weights(model: Any) -> list[np.ndarray]:
    return [variable.numpy() for variable in model.variables]


@pytest.mark.parametrize("classes", [2, 3])
def test_it_learns_and_says_how(classes: int) -> None:
    model, prepare = network(classes)
    done = trained(model, prepare, classes, stages=(Stage(30, 1e-2, "adam", "all"),))
    assert len(done.curve.loss) == len(done.seconds) == 30
    assert done.curve.loss[-1] < done.curve.loss[0]
    assert done.curve.held_out_accuracy[-1] > 0.8
    assert done.images == 30 * 60
    logits = logits_of(model, batches(classes, "validation", seed=1))
    assert logits.shape == (60, classes)
    right = (logits.argmax(axis=1) == batches(classes, "validation", seed=1).y).mean()
    assert right == pytest.approx(done.curve.held_out_accuracy[-1])


def test_what_is_frozen_in_a_stage_does_not_change() -> None:
    model, prepare = network()
    before = weights(model)
    trained(model, prepare, stages=STAGES[:1])
    after = weights(model)
    assert np.array_equal(before[0], after[0])
    assert not np.array_equal(before[2], after[2])


class _Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("epoch", "patience"), [(1, 0), (4, 2), *(pytest.param(epoch, 0, marks=takes_long) for epoch in (3, 6))]
)
def test_training_that_was_killed_ends_as_if_it_had_not_been(
    epoch: int, patience: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = LiveOptions(batch_size=16, patience=patience)
    whole_model, prepare = network()
    whole = trained(whole_model, prepare, options=options)

    place, plain, seen = tmp_path / "state.npz", module.Run.epoch, 0

    def killed(self: Any, *given: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == epoch + 1:
            raise _Killed
        return plain(self, *given)

    monkeypatch.setattr(module.Run, "epoch", killed)
    model, prepare = network()
    with pytest.raises(_Killed):
        trained(model, prepare, options=options, checkpoint=place)
    monkeypatch.setattr(module.Run, "epoch", plain)
    model, prepare = network()
    again = trained(model, prepare, options=options, checkpoint=place)
    assert again.curve == whole.curve
    for one, other in zip(weights(model), weights(whole_model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_finished_training_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "state.npz"
    model, prepare = network()
    whole = trained(model, prepare, checkpoint=place)
    monkeypatch.setattr(module.Run, "epoch", None)
    again_model, prepare = network()
    assert trained(again_model, prepare, checkpoint=place).curve == whole.curve
    for one, other in zip(weights(model), weights(again_model), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("change", ["key", "stages", "options", "damage"])
def test_a_checkpoint_of_something_else_is_not_gone_on_from(change: str, tmp_path: Path) -> None:
    place = tmp_path / "state.npz"
    model, prepare = network()
    trained(model, prepare, checkpoint=place, stages=STAGES[:1])
    if change == "damage":
        place.write_bytes(place.read_bytes()[:200])
    other: dict[str, dict[str, Any]] = {
        "key": {"key": "other"},
        "stages": {"stages": (Stage(2, 0.5), *STAGES[1:])},
        "options": {"options": LiveOptions(batch_size=8)},
        "damage": {},
    }
    model, prepare = network()
    found = trained(model, prepare, **{"stages": STAGES[:1], "checkpoint": place, **other[change]})
    model, prepare = network()
    fresh = trained(model, prepare, **{"stages": STAGES[:1], **other[change]})
    assert found.curve == fresh.curve


def test_it_stops_early_and_keeps_the_best_weights() -> None:
    model, prepare = network()
    options = LiveOptions(batch_size=16, patience=3)
    done = trained(model, prepare, stages=(Stage(300, 5e-2, "adam", "all"),), options=options)
    losses = done.curve.held_out_loss
    assert len(losses) < 300
    assert len(losses) - 1 - int(np.argmin(losses)) == 3
    held_out = batches(2, "validation", seed=1)
    logits = logits_of(model, held_out)[:, 1]
    assert np.log1p(np.exp(-np.where(held_out.y == 1, logits, -logits))).mean() == pytest.approx(min(losses), rel=1e-4)


def test_a_limit_of_seconds_leaves_at_least_an_epoch_of_every_stage() -> None:
    model, prepare = network()
    done = trained(model, prepare, options=LiveOptions(batch_size=16, seconds=1e-9))
    assert (len(done.seconds), done.cut_short) == (2, True)
    model, prepare = network()
    done = trained(model, prepare, options=LiveOptions(batch_size=16, seconds=1e9))
    assert (len(done.seconds), done.cut_short) == (7, False)


def test_a_training_that_ends_for_its_patience_was_not_cut_short() -> None:
    model, prepare = network()
    options = LiveOptions(batch_size=16, patience=1, seconds=1e9)
    done = trained(model, prepare, stages=(Stage(300, 5e-2, "adam", "all"),), options=options)
    assert len(done.seconds) < 300
    assert not done.cut_short


def test_training_goes_on_whatever_time_it_is_given_the_next_time(tmp_path: Path) -> None:
    place = tmp_path / "state.npz"
    model, prepare = network()
    first = trained(model, prepare, options=LiveOptions(batch_size=16, seconds=1e-9), checkpoint=place)
    model, prepare = network()
    whole = trained(model, prepare, options=LiveOptions(batch_size=16, seconds=1e9), checkpoint=place)
    assert whole.seconds[: len(first.seconds)] == first.seconds
    assert whole.curve.loss[: len(first.curve.loss)] == first.curve.loss


def test_gradients_are_scaled_where_a_layer_computes_in_float16_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    keras = import_keras()
    scaled = []
    plain = keras.optimizers.LossScaleOptimizer
    monkeypatch.setattr(keras.optimizers, "LossScaleOptimizer", lambda inner: scaled.append(inner) or plain(inner))
    model, prepare = network()
    trained(model, prepare, stages=STAGES[:1])
    assert scaled == []
    model, prepare = network()
    model.layers[1].dtype_policy = keras.DTypePolicy("mixed_float16")
    done = trained(model, prepare, stages=(Stage(2, 1e-2, unfreeze="all"),))
    assert len(scaled) == 1
    assert np.isfinite(done.curve.loss).all()


def test_rare_classes_can_weigh_more() -> None:
    table = make_table(60, classes=2)
    rare = table.select(np.concatenate([np.flatnonzero(table.y == 0), np.flatnonzero(table.y == 1)[:3]]))
    said = []
    for balanced in (False, True):
        model, prepare = network()
        options = LiveOptions(batch_size=16, balanced=balanced)
        train_network(
            model, prepare, (Stage(5, 1e-2, "adam", "all"),), MapBatches(rare, rare.y, (8,)), None, Views(), options
        )
        said.append(logits_of(model, MapBatches(rare, rare.y, (8,)))[:, 1].mean())
    assert said[1] > said[0] + 0.3


def test_a_loss_that_is_no_number_is_said() -> None:
    model, prepare = network()
    with pytest.raises(InputError, match="lower learning rate"):
        trained(model, prepare, stages=(Stage(3, 1e38, "adam", "all"),))


def test_a_checkpoint_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any, **named: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(whole.os, "fsync", full)
    model, prepare = network()
    with pytest.raises(ReadOnlyError, match="keep a checkpoint"):
        trained(model, prepare, checkpoint=tmp_path / "state.npz")
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_s_logs_are_written_if_asked_for(tmp_path: Path) -> None:
    model, prepare = network()
    trained(model, prepare, options=LiveOptions(batch_size=16, tensorboard=tmp_path / "logs"))
    [file] = (tmp_path / "logs").iterdir()
    assert b"held_out_loss" in file.read_bytes()


def test_without_tensorboard_its_logs_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    model, prepare = network()
    with pytest.raises(InputError, match="pip install tensorboard"):
        trained(model, prepare, options=LiveOptions(tensorboard=tmp_path / "logs"))


def test_progress_counts_every_image_even_of_epochs_that_were_not_needed() -> None:
    from contextlib import contextmanager

    seen: list[int] = []

    @contextmanager
    def progress(label: str, total: int, unit: str = "images") -> Any:
        seen.append(-total)
        yield seen.append

    model, prepare = network()
    trained(model, prepare, progress=progress)
    assert sum(seen) == 0
