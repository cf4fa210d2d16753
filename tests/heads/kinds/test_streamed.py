from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from heads.kinds import blocks, streamed
from heads.kinds.catalog import HEADS
from heads.kinds.newton import solve_logistic, solve_svm
from heads.kinds.problem import Problem
from heads.kinds.streamed import stream_logistic, stream_svm
from tests.featstore.test_shuffling import scattered
from tests.memory import mib_taken_by
from tests.reliability.campaign import FULL

GRID = tuple({"C": C} for C in (1e-4, 1e-3, 1e-2))


def centred(logits: np.ndarray) -> np.ndarray:
    """What all classes have in common changes no probability."""
    return logits - logits.mean(axis=1, keepdims=True)


@pytest.mark.parametrize("balanced", [False, True], ids=["plain", "balanced"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(("stream", "solve"), [(stream_logistic, solve_logistic), (stream_svm, solve_svm)])
def test_a_streamed_head_is_nearly_the_solved_one(stream, solve, classes: int, balanced: bool, table, stored) -> None:
    train, new = table(900, 30, classes, noise=3.0), table(900, 30, classes, seed=1, noise=3.0)
    train = train.select(np.flatnonzero((train.y > 0) | (np.arange(900) % 5 == 0)))
    exact = solve(Problem(train.X, train.y, (30,), balanced), GRID)
    close = stream(Problem(stored(train.X), train.y, (30,), balanced), GRID)
    assert [fit.params for fit in close] == list(GRID)
    for one, other in zip(exact, close, strict=True):
        expected, found = (centred(fit.head.logits(new.X)) for fit in (one, other))
        right = [(logits.argmax(axis=1) == new.y).mean() for logits in (expected, found)]
        assert right[1] == pytest.approx(right[0], abs=0.01)
        assert np.sqrt(((found - expected) ** 2).mean()) < 0.01 + 0.05 * np.sqrt((expected**2).mean())


def test_rows_are_read_in_bounded_blocks_and_the_same_seed_gives_the_same_head(
    table, stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "READ_NUMBERS", 8 * 40)
    monkeypatch.setattr(streamed, "_STEPS", 100)
    train = table(200)
    order = np.argsort(train.y, kind="stable")  # a class after another, as folders are
    rows = stored(train.X[order])
    one = Problem(rows, train.y[order], (8,))
    logits = [
        stream_logistic(replace(one, seed=seed), GRID)[-1].head.logits(train.X).argmax(axis=1) for seed in (1, 1, 2)
    ]
    assert rows.most == 40
    np.testing.assert_array_equal(logits[0], logits[1])
    assert (logits[0] == train.y).mean() > 0.9
    assert (logits[2] == train.y).mean() > 0.9


def test_the_average_of_the_points_is_nearer_than_the_last_of_them_would_be(stored) -> None:
    random = np.random.default_rng(0)
    centres = random.normal(size=(10, 40))
    (X, y), (new, _) = (
        ((centres[labels] + 2.5 * random.normal(size=(n, 40))).astype(np.float32), labels)
        for n in (20_000, 1000)
        for labels in [random.integers(0, 10, n)]
    )
    exact, close = (
        [centred(fit.head.logits(new)) for fit in fits]
        for fits in (
            solve_logistic(Problem(X, y, (40,)), GRID),
            stream_logistic(Problem(stored(X), y, (40,)), GRID),
        )
    )
    for one, other in zip(exact, close, strict=True):
        assert np.sqrt(((one - other) ** 2).mean() / (one**2).mean()) < 0.008  # the last point: 0.011


def test_columns_of_any_size_are_standardised_and_folded_into_the_head(table, stored) -> None:
    train, new = table(90), table(90, seed=1)
    sizes = 10.0 ** np.arange(-4, 4)

    def strange(X: np.ndarray) -> np.ndarray:
        X = (X * sizes + 100 * sizes).astype(np.float32)
        X[:, 3] = 7  # a column that never changes
        return X

    [fit] = stream_logistic(Problem(stored(strange(train.X)), train.y, (8,)), [{"C": 0.1}])
    found = fit.head.logits(strange(new.X))
    assert (found.argmax(axis=1) == new.y).mean() > 0.9


@pytest.mark.parametrize("name", ["logreg", "linear-svm"])
def test_only_rows_in_the_store_are_streamed(name: str, table, stored) -> None:
    train, kind = table(300), HEADS[name]
    streamed, solved, in_memory = (
        fits(Problem(X, train.y, (8,)), kind.grid[:1])[0].head.logits(train.X)
        for X, fits in ((stored(train.X), kind.fits), (train.X, kind.fit), (train.X, kind.fits))
    )
    np.testing.assert_array_equal(in_memory, solved)
    assert not np.array_equal(streamed, solved)


def test_few_steps_of_a_short_table_are_made_up_for_by_epochs(table, stored, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[float] = []
    real = streamed._Descent.step

    def step(self, X, y, row_weights, rate) -> None:
        taken.append(rate)
        real(self, X, y, row_weights, rate)

    monkeypatch.setattr(streamed._Descent, "step", step)
    stream_logistic(Problem(stored(table(60).X), table(60).y, (8,)), GRID)
    assert len(taken) == streamed._STEPS
    assert taken == sorted(taken, reverse=True)
    assert taken[-1] < taken[0] / 1000, "it ends at the least point, and not around it"


LARGE = """
import sys
from pathlib import Path
import numpy as np
from heads.kinds import streamed
from heads.kinds.catalog import HEADS
from heads.kinds.problem import Problem
from tests.featstore.test_shuffling import opened
table = opened(Path(sys.argv[1]))
few = table.select(np.arange(300))
streamed._EPOCHS, streamed._STEPS = 2, 1
def fit(table):
    HEADS["logreg"].fits(Problem(table.X, table.y, table.widths), [{"C": 0.01}])
fit(few)  # what is imported and indexed once
"""


@pytest.mark.skipif(not FULL, reason="half a minute of reading: a part of the whole campaign")
def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    scattered(tmp_path, segments=288, rows=192, width=2048)
    taken = mib_taken_by(LARGE, "fit(table)", tmp_path)
    assert taken < 250, "of a table of 432 MiB, of which 64 are read at a time"
