from __future__ import annotations

import numpy as np
import pytest

from featstore.errors import InputError
from featstore.runtime import BATCH_SIZE
from featstore.runtime.graph import padded


def test_a_short_batch_is_filled_with_black(images: np.ndarray) -> None:
    batch = padded(images, (40, 48))
    assert batch.shape == (BATCH_SIZE, 40, 48, 3)
    assert np.array_equal(batch[:5], images)
    assert not batch[5:].any()


def test_a_full_batch_is_made_contiguous() -> None:
    images = np.zeros((BATCH_SIZE, 3, 40, 48), np.uint8).transpose(0, 2, 3, 1)
    assert padded(images, (40, 48)).flags.c_contiguous


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((5, 48, 40, 3), np.uint8),
        np.zeros((5, 40, 48, 4), np.uint8),
        np.zeros((5, 40, 48, 3), np.float32),
        np.zeros((0, 40, 48, 3), np.uint8),
        np.zeros((BATCH_SIZE + 1, 40, 48, 3), np.uint8),
        np.zeros((40, 48, 3), np.uint8),
    ],
)
def test_a_wrong_batch_is_an_input_error(wrong: np.ndarray) -> None:
    with pytest.raises(InputError, match="wrong shape"):
        padded(wrong, (40, 48))
