from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featstore.dataset import Dataset, DatasetOptions
from featstore.dataset.dataset import BY_DIGEST, split_by_digest
from featstore.dataset.sources import FolderSource
from featstore.errors import InputError
from featstore.records import Digests

FRACTIONS = (0.7, 0.15, 0.15)


def digests_of(*contents: object) -> Digests:
    joined = b"".join(hashlib.sha256(str(c).encode()).digest() for c in contents)
    return np.frombuffer(joined, np.uint8).reshape(-1, 32)


def dataset(count: int = 4) -> Dataset:
    return Dataset(
        name="d",
        source=FolderSource("/d"),
        paths=tuple(f"{i}.jpg" for i in range(count)),
        ids=tuple(map(str, range(count))),
        labels=np.arange(count) % 2,
        classes=("a", "b"),
        splits=np.full(count, BY_DIGEST, np.int8),
        layout="class folders",
    )


def test_the_digest_split_is_the_one_that_is_documented() -> None:
    digest = digests_of("one")[0]
    number = int.from_bytes(hashlib.sha256(b"7:" + digest.tobytes()).digest()[:8], "big") / 2**64
    expected = 0 if number < 0.7 else 1 if number < 0.85 else 2
    assert split_by_digest(digest[None], 7, FRACTIONS).tolist() == [expected]


def test_the_digest_split_never_changes_between_versions() -> None:
    """Changing it would move images between train and test of every dataset there is."""
    assert split_by_digest(digests_of(*range(12)), 0, FRACTIONS).tolist() == [0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]


def test_the_fractions_are_met() -> None:
    counts = np.bincount(split_by_digest(digests_of(*range(4000)), 1, FRACTIONS))
    assert np.abs(counts / 4000 - FRACTIONS).max() < 0.025


def test_another_seed_gives_another_split() -> None:
    digests = digests_of(*range(100))
    assert (split_by_digest(digests, 0, FRACTIONS) != split_by_digest(digests, 1, FRACTIONS)).any()


@pytest.mark.parametrize(("fractions", "split"), [((1.0, 0.0, 0.0), 0), ((0.0, 1.0, 0.0), 1), ((0.0, 0.0, 1.0), 2)])
def test_a_fraction_of_zero_gets_no_image(fractions: tuple[float, float, float], split: int) -> None:
    assert set(split_by_digest(digests_of(*range(300)), 0, fractions).tolist()) == {split}


def test_no_digest_gives_no_split() -> None:
    assert split_by_digest(np.zeros((0, 32), np.uint8), 0, FRACTIONS).shape == (0,)


@given(st.lists(st.integers(0, 50), max_size=20), st.lists(st.integers(0, 50), max_size=20), st.integers())
def test_copies_share_a_split_and_new_images_move_none(old: list[int], new: list[int], seed: int) -> None:
    before = split_by_digest(digests_of(*old), seed, FRACTIONS)
    after = split_by_digest(digests_of(*old, *new), seed, FRACTIONS)
    assert (after[: len(old)] == before).all()
    by_content = {c: set() for c in (*old, *new)}
    for content, split in zip((*old, *new), after.tolist(), strict=True):
        by_content[content].add(split)
    assert all(len(splits) == 1 for splits in by_content.values())


def test_splits_that_folders_decide_are_kept() -> None:
    data = dataset()
    fixed = Dataset(**{**vars(data), "splits": np.array([0, 1, BY_DIGEST, 3], np.int8)})
    resolved = fixed.split_of(digests_of(*range(4)))
    assert resolved[[0, 1, 3]].tolist() == [0, 1, 3]
    assert resolved[2] == split_by_digest(digests_of(2), 0, FRACTIONS)[0]
    assert resolved.dtype == np.int8
    assert fixed.splits[2] == BY_DIGEST


def test_selected_images_keep_what_belongs_to_them() -> None:
    chosen = dataset().select([3, 0])
    assert chosen.paths == ("3.jpg", "0.jpg")
    assert chosen.ids == ("3", "0")
    assert chosen.labels.tolist() == [1, 0]
    assert chosen.classes == ("a", "b")
    assert len(chosen) == 2


def test_a_dataset_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        dataset().labels[0] = 1


def test_all_that_is_wrong_with_options_is_said_at_once() -> None:
    with pytest.raises(InputError) as caught:
        DatasetOptions(fractions=(0.5, 0.1, 0.1), label_pattern="(")
    assert "0.7" in str(caught.value)
    assert "label_pattern='('" in str(caught.value)


@pytest.mark.parametrize("fractions", [(-0.5, 1.0, 0.5), (0.5, 0.5), (float("nan"), 0.5, 0.5)])
def test_fractions_that_are_none_are_refused(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(InputError, match="three numbers"):
        DatasetOptions(fractions=fractions)


def test_a_pattern_needs_a_group() -> None:
    with pytest.raises(InputError, match="no group"):
        DatasetOptions(label_pattern="cat")
