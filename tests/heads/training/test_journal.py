from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from heads.kinds.catalog import HEADS
from heads.kinds.problem import Curve
from heads.training.choice import Choice, choose, prepare
from heads.training.journal import Journal, key_of

LOGREG = HEADS["logreg"]


@pytest.fixture
def choice(table) -> Choice:
    found = choose(LOGREG, prepare(table(), table(30, split="validation", seed=1)))
    trials = (replace(found.trials[0], params={"hidden": (256, 64), "C": 0.1}), *found.trials[1:])
    return replace(found, trials=trials, curve=Curve((0.5, 0.25), (0.7, 0.75), (0.6, 0.5), (0.6, 0.7)))


def test_a_choice_comes_back_as_it_was(choice: Choice, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "choices")
    journal.write("a", choice)
    again = journal.read("a")
    assert again is not None
    assert (again.kind, again.trials, again.best, again.on) == (choice.kind, choice.trials, choice.best, choice.on)
    assert again.curve == choice.curve
    for name in ("logits", "columns", "rows", "labels"):
        np.testing.assert_array_equal(getattr(again, name), getattr(choice, name))
    assert [path.name for path in (tmp_path / "choices").iterdir()] == ["a.npz"]


def test_what_is_missing_damaged_or_pickled_is_no_choice(choice: Choice, tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.read("a") is None
    journal.write("a", choice)
    whole = (tmp_path / "a.npz").read_bytes()
    for damaged in (b"", b"nonsense", whole[:200], whole[: len(whole) // 2]):
        (tmp_path / "a.npz").write_bytes(damaged)
        assert journal.read("a") is None
    np.savez(tmp_path / "a.npz", rest=np.array([{}], dtype=object))
    assert journal.read("a") is None


def test_no_folder_keeps_nothing(choice: Choice) -> None:
    Journal(None).write("a", choice)
    assert Journal(None).read("a") is None


def test_the_key_knows_everything_that_a_choice_depends_on(table, spec) -> None:
    train, validation = table(), table(30, split="validation", seed=1)
    plain = {"balanced": False, "seed": 0}
    keys = [
        key_of(LOGREG, train, validation, **plain),
        key_of(LOGREG, train, None, **plain),
        key_of(LOGREG, train, validation, balanced=True, seed=0),
        key_of(LOGREG, train, validation, balanced=False, seed=1),
        key_of(replace(LOGREG, grid=LOGREG.grid[:2]), train, validation, **plain),
        key_of(HEADS["linear-svm"], train, validation, **plain),
        key_of(LOGREG, replace(train, y=np.roll(train.y, 1)), validation, **plain),
        key_of(LOGREG, train, replace(validation, digests=validation.digests[::-1]), **plain),
        key_of(LOGREG, replace(train, specs=(spec.but(resize="nearest"),)), validation, **plain),
    ]
    assert len(set(keys)) == len(keys)
    assert key_of(LOGREG, train, validation, **plain) == keys[0]
