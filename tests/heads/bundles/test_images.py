from __future__ import annotations

import numpy as np

from heads.bundles.images import FittedImages, JudgedImages


def test_fitted_images_are_sorted_and_each_is_there_once_with_its_label() -> None:
    digests = np.array([[9] * 32, [1] * 32, [9] * 32, [4] * 32], np.uint8)
    found = FittedImages.of(digests, np.array([2, 0, 2, 1]))
    assert found.digests[:, 0].tolist() == [1, 4, 9]
    assert found.labels.tolist() == [0, 1, 2]


def test_judged_images_say_what_was_said_how_surely_and_which_are_worst() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.95, 0.05], [0.2, 0.8]])
    found = JudgedImages.of(np.zeros((4, 32), np.uint8), np.array([0, 1, 1, 1]), probabilities)
    assert found.said.tolist() == [0, 0, 0, 1]
    np.testing.assert_allclose(found.confidence, [0.9, 0.6, 0.95, 0.8], rtol=1e-6)
    np.testing.assert_allclose(found.of_truth, [0.9, 0.4, 0.05, 0.8], rtol=1e-6)
    assert found.worst(9) == [2, 1]
    assert found.worst(1) == [2]
