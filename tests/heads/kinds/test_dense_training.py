from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from featstore.errors import InputError
from featstore.weights.keras_io import import_keras
from heads.kinds import blocks, dense_training
from heads.kinds.dense_training import fit_dense
from heads.kinds.head import Params
from heads.kinds.problem import HeldOut, Problem


def params(**changes: Any) -> Params:
    usual = {
        "hidden": (16,),
        "dropout": 0.0,
        "optimizer": "adam",
        "learning_rate": 1e-2,
        "epochs": 3,
        "batch_size": 16,
        "patience": 0,
        "standardise": False,
    }
    return {**usual, **changes}


def problem(train, **changes: Any) -> Problem:
    return replace(Problem(train.X / 10, train.y, (train.X.shape[1],)), **changes)


def ready(random: np.random.Generator, count: int, epochs: int) -> list[np.ndarray]:
    return [random.permutation(count) for _ in range(epochs)]


@pytest.mark.parametrize("balanced", [False, True], ids=["plain", "balanced"])
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_head_is_the_one_that_keras_fit_trains(classes: int, optimizer: str, balanced: bool, table) -> None:
    """The same start, the same order of rows, no dropout: the same logits."""
    train = table(60, classes=classes)
    train = train.select(np.flatnonzero((train.y > 0) | (np.arange(60) % 4 > 0)))
    one = problem(train, balanced=balanced)
    setting = params(optimizer=optimizer)
    keras, count = import_keras(), len(one.y)
    start = dense_training._member(one, setting).arrays
    outputs = 1 if classes == 2 else classes
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(outputs)])
    model.set_weights([start[0], start[2], start[1], start[3]])
    loss = keras.losses.BinaryCrossentropy if classes == 2 else keras.losses.SparseCategoricalCrossentropy
    rule = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop}[optimizer]
    model.compile(rule(setting["learning_rate"]), loss(from_logits=True))
    weights = one.row_weights.astype(np.float32)
    for order in ready(np.random.default_rng(one.seed), count, setting["epochs"]):
        model.fit(
            one.X[order], one.y[order, None], sample_weight=weights[order], batch_size=16, shuffle=False, verbose=0
        )
    [fit] = fit_dense(one, [setting])
    expected = np.asarray(model(one.X))
    found = fit.head.logits(one.X)
    np.testing.assert_allclose(found[:, 1:] if classes == 2 else found, expected, atol=1e-4)


def test_members_of_a_family_are_as_if_trained_alone(table) -> None:
    one = problem(table(60))
    grid = [params(learning_rate=1e-2, dropout=0.5), params(learning_rate=1e-3), params(seed=3), params(hidden=(4, 4))]
    together = fit_dense(one, grid)
    for setting, fit in zip(grid, together, strict=True):
        [alone] = fit_dense(one, [setting])
        np.testing.assert_allclose(fit.head.logits(one.X), alone.head.logits(one.X), atol=1e-5)
        assert fit.params == setting
    assert not np.allclose(together[0].head.logits(one.X), together[1].head.logits(one.X))


def test_many_short_fits_make_no_noise(table, caplog: pytest.LogCaptureFixture) -> None:
    for count in range(30, 42):
        fit_dense(problem(table(count), held_out=HeldOut(table(count).X, table(count).y)), [params(epochs=1)])
    assert caplog.text == ""


def test_dropout_is_for_training_alone_and_differs_from_none(table) -> None:
    one = problem(table(60))
    [with_it], [without] = fit_dense(one, [params(dropout=0.5)]), fit_dense(one, [params()])
    assert not np.allclose(with_it.head.logits(one.X), without.head.logits(one.X))
    np.testing.assert_array_equal(with_it.head.logits(one.X), with_it.head.logits(one.X))


def test_training_stops_where_the_held_out_loss_is_least_and_says_when(table) -> None:
    train, held = table(40, noise=4.0), table(200, noise=4.0, seed=1)
    one = problem(train, held_out=HeldOut(held.X / 10, held.y))
    [fit] = fit_dense(one, [params(epochs=60, patience=4, hidden=(64,))])
    losses = fit.curve.held_out_loss
    assert fit.params["epochs"] == int(np.argmin(losses)) + 1 < len(losses) < 60
    [again] = fit_dense(replace(one, held_out=None), [fit.params])
    np.testing.assert_allclose(again.head.logits(held.X), fit.head.logits(held.X), atol=1e-4)


def test_the_curve_has_a_number_an_epoch_and_the_last_is_the_heads_own(table) -> None:
    train, held = table(60), table(30, seed=1)
    columns = held.y.copy()
    columns[:5] = -1  # a class that is not known: nobody can be right about it
    one = problem(train, held_out=HeldOut(held.X / 10, columns))
    [fit] = fit_dense(one, [params()])
    assert {len(fit.curve.loss), len(fit.curve.accuracy), len(fit.curve.held_out_loss)} == {3}
    said = fit.head.logits(held.X[5:] / 10).argmax(axis=1)
    assert fit.curve.held_out_accuracy[-1] == pytest.approx((said == held.y[5:]).mean())
    assert fit_dense(replace(one, held_out=None), [params()])[0].curve.held_out_loss == ()


def test_standardising_is_folded_into_the_head(table) -> None:
    train, new = table(90), table(90, seed=1)
    one = Problem(train.X * 1000 + 5000, train.y, (8,))
    [fit] = fit_dense(one, [params(standardise=True, epochs=8)])
    assert (fit.head.logits(new.X * 1000 + 5000).argmax(axis=1) == new.y).mean() > 0.9


def test_the_same_seed_gives_the_same_head_and_another_one_another(table) -> None:
    one, setting = problem(table(60)), params(dropout=0.5)
    logits = [fit_dense(replace(one, seed=seed), [setting])[0].head.logits(one.X) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(logits[0], logits[1])
    assert not np.allclose(logits[0], logits[2])
    starts = [dense_training._member(replace(one, seed=seed), setting).arrays[0] for seed in (1, 2)]
    assert not np.allclose(*starts)


def test_a_member_that_has_stopped_stays_as_it_was_while_others_go_on(table) -> None:
    train, held = table(40, noise=4.0), table(200, noise=4.0, seed=1)
    one = problem(train, held_out=HeldOut(held.X / 10, held.y))
    settings = [params(epochs=30, patience=2, learning_rate=rate) for rate in (3e-2, 1e-4)]
    quick, slow = fit_dense(one, settings)
    [alone] = fit_dense(one, settings[:1])
    assert len(quick.curve.loss) == len(alone.curve.loss) < len(slow.curve.loss)
    assert len(quick.curve.loss) == quick.params["epochs"] + 2
    np.testing.assert_allclose(quick.head.logits(one.X), alone.head.logits(one.X), atol=1e-4)


def test_the_fits_end_before_one_whose_weights_are_no_numbers(table) -> None:
    one = problem(table(60))
    grid = [params(), params(learning_rate=1e38), params(seed=1)]
    assert len(fit_dense(one, grid)) == 1
    with pytest.raises(InputError, match="beyond all numbers"):
        fit_dense(one, grid[1:])


def test_rows_in_the_store_are_learnt_from_in_blocks(table, stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "READ_NUMBERS", 8 * 40)
    train, held = table(200), table(90, seed=1)
    order = np.argsort(train.y, kind="stable")  # a class after another, as folders are
    rows, columns = stored(train.X[order]), held.y.copy()
    columns[:5] = -1
    one = Problem(rows, train.y[order], (8,), held_out=HeldOut(stored(held.X), columns))
    [fit] = fit_dense(one, [params(standardise=True, epochs=8)])
    assert rows.most == 40
    assert fit.curve.held_out_accuracy[-1] > 0.9
