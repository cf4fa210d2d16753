"""What every runtime does with a graph."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from featstore.backbone import BATCH_SIZE
from featstore.errors import InputError
from featstore.spec import Precision

Images = npt.NDArray[np.uint8]
"""RGB images, uint8 (n, H, W, 3)."""


class Runtime(Protocol):
    """A compiled graph. ``feature_shape`` is (C,), or (h, w, C) for maps."""

    name: str
    device: str
    precision: Precision
    feature_shape: tuple[int, ...]

    def __call__(self, images: Images) -> npt.NDArray[np.float32]:
        """Features float32 (n, *feature_shape) of at most ``BATCH_SIZE`` images; an array of the caller's own."""
        ...


def padded(images: Images, image_size: tuple[int, int]) -> Images:
    """The images, contiguous, filled up to ``BATCH_SIZE`` with black ones; raises InputError for a wrong shape."""
    count = len(images)
    if images.dtype != np.uint8 or images.shape[1:] != (*image_size, 3) or not 1 <= count <= BATCH_SIZE:
        raise InputError(
            "a batch of images has the wrong shape",
            where="runtime",
            expected=f"uint8 (1 to {BATCH_SIZE}, {image_size[0]}, {image_size[1]}, 3)",
            received=f"{images.dtype} {images.shape}",
        )
    if count == BATCH_SIZE:
        return np.ascontiguousarray(images)
    batch = np.zeros((BATCH_SIZE, *images.shape[1:]), np.uint8)
    batch[:count] = images
    return batch
