"""Stratified folds of rows in which all rows of one image stay together: copies of it, and its augmented views."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from heads.kinds.head import Labels


def first_rows(image: Labels) -> Labels:
    """The first row of every image, ascending; ``image`` int64 (N,) numbers the image of each row."""
    return np.sort(np.unique(image, return_index=True)[1])


def folds_of(image: Labels, y: Labels, count: int, seed: int) -> Iterator[tuple[Labels, Labels]]:
    """For each of ``count`` folds the rows outside and inside of it; the class of an image is that of its first row.

    So that a fold never judges what others were fitted on, rows go where the first of their image goes. Where every row
    is an image of its own, these are scikit-learn's StratifiedKFold. Raises ValueError if a class has fewer images.
    """
    from sklearn.model_selection import StratifiedKFold

    firsts = first_rows(image)
    for _, fold in StratifiedKFold(count, shuffle=True, random_state=seed).split(firsts, y[firsts]):
        inside = np.isin(image, image[firsts[fold]])
        yield np.flatnonzero(~inside), np.flatnonzero(inside)
