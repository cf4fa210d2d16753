from __future__ import annotations

import numpy as np
import pytest

from featstore.dataset import Dataset, missing_classes, require_decodable, require_trainable
from featstore.dataset.sources import FolderSource
from featstore.errors import InputError


def dataset(labels: list[int], splits: list[int], classes: tuple[str, ...] = ("a", "b", "c")) -> Dataset:
    paths = tuple(str(i) for i in range(len(labels)))
    return Dataset(
        "d", FolderSource("/d"), paths, paths, np.array(labels), classes, np.array(splits, np.int8), "class folders"
    )


def test_a_class_that_a_split_lacks_is_named() -> None:
    said = missing_classes(("a", "b", "c"), np.array([0, 1, 0, 2]), np.array([0, 0, 1, 2], np.int8))
    assert said == (
        "c is seen only in test: no head can learn it",
        "validation has no image of b",
        "test has no image of a, b",
    )


def test_classes_that_train_never_sees_are_said_once_for_each_place() -> None:
    said = missing_classes(
        ("a", "b", "c", "d"), np.array([0, 1, 2, 3, 0, 1, 3]), np.array([0, 1, 1, 1, 1, 2, 2], np.int8)
    )
    assert said == (
        "b, d are seen only in validation and test: no head can learn them",
        "c is seen only in validation: no head can learn it",
        "test has no image of a",
    )


def test_a_class_without_any_image_is_a_gap_of_each_split() -> None:
    said = missing_classes(("a", "b"), np.array([0, 0]), np.array([0, 2], np.int8))
    assert said == ("train has no image of b", "test has no image of b")


def test_without_a_train_split_no_class_is_beyond_it() -> None:
    assert missing_classes(("a", "b"), np.array([0, 1]), np.array([2, 2], np.int8)) == ()


def test_a_split_that_is_not_used_lacks_nothing() -> None:
    assert missing_classes(("a", "b"), np.array([0, 1, -1]), np.array([0, 0, 3], np.int8)) == ()


def test_open_splits_are_not_judged() -> None:
    assert missing_classes(("a", "b"), np.array([0, 1]), np.array([-1, 0], np.int8)) == ()


@pytest.mark.parametrize("splits", [[0, 0], [-1, -1], [0, -1]])
def test_two_classes_in_train_can_be_trained_on(splits: list[int]) -> None:
    require_trainable(dataset([0, 1], splits))


@pytest.mark.parametrize(
    ("labels", "splits", "classes", "words"),
    [
        ([-1, -1], [3, 3], (), "no image has a label"),
        ([0, 0], [0, 2], ("a",), "one class only, a"),
        ([0, 1], [2, 1], ("a", "b"), "no labelled image is in the train split"),
        ([0, 1], [0, 2], ("a", "b"), "train has one class only, a; seen only outside of train: b"),
        ([], [], (), "no image has a label"),
    ],
)
def test_what_makes_training_impossible_is_said(
    labels: list[int], splits: list[int], classes: tuple[str, ...], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        require_trainable(dataset(labels, splits, classes))


def test_the_splits_that_the_digests_gave_are_what_counts() -> None:
    with pytest.raises(InputError, match="train has one class only"):
        require_trainable(dataset([0, 1], [-1, -1]), np.array([0, 2], np.int8))


def test_images_that_are_all_broken_are_said_to_be() -> None:
    data = dataset([0, 1, -1], [0, 0, 3])
    with pytest.raises(InputError, match="none of the images can be decoded") as refused:
        require_decodable(data, np.array([False, False, True]))
    assert refused.value.received == "2 broken images"
    require_decodable(data, np.array([True, False, False]))
    require_decodable(dataset([-1], [3], ()), np.array([False]))
