from __future__ import annotations

import numpy as np
import pytest

from heads.kinds.head import BLOCK, product


@pytest.mark.parametrize("columns", [1, 2, 37, 150, 1003, 2049])
@pytest.mark.parametrize("width", [3, 100, 512])
def test_a_row_is_rounded_alike_at_every_place_of_a_block(width: int, columns: int) -> None:
    random = np.random.default_rng(0)
    matrix, row = random.normal(size=(width, columns)), random.normal(size=width)
    products = product(matrix)(np.tile(row, (BLOCK, 1)))
    assert products.shape == (BLOCK, columns)
    assert (products == products[0]).all()
    np.testing.assert_allclose(products[0], row @ matrix, rtol=1e-9, atol=1e-9)
