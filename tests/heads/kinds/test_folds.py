from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from heads.kinds.folds import first_rows, folds_of

Y = np.arange(40) % 2


def test_rows_of_their_own_are_folded_as_scikit_learn_does() -> None:
    theirs = StratifiedKFold(5, shuffle=True, random_state=3).split(Y, Y)
    for (outside, inside), (train, test) in zip(folds_of(np.arange(40), Y, 5, 3), theirs, strict=True):
        np.testing.assert_array_equal(outside, train)
        np.testing.assert_array_equal(inside, test)


def test_all_rows_of_an_image_are_in_one_fold_and_every_row_in_one() -> None:
    image = np.concatenate([np.arange(40), np.arange(40), [0, 0]])
    folds = list(folds_of(image, Y[image], 5, 0))
    assert sorted(np.concatenate([inside for _, inside in folds]).tolist()) == list(range(82))
    for outside, inside in folds:
        assert not set(image[outside]) & set(image[inside])


def test_first_rows_are_in_order() -> None:
    np.testing.assert_array_equal(first_rows(np.array([7, 3, 7, 1, 3])), [0, 1, 3])


def test_a_class_with_fewer_images_than_folds_is_refused() -> None:
    with pytest.raises(ValueError, match="n_splits"):
        list(folds_of(np.zeros(40, int), Y, 5, 0))
