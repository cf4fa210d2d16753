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
    """A compiled graph for ``batch_size`` images at once; ``feature_shape`` is (C,), or (h, w, C) for maps."""

    name: str
    device: str
    precision: Precision
    feature_shape: tuple[int, ...]
    batch_size: int

    def __call__(self, images: Images) -> npt.NDArray[np.float32]:
        """Features float32 (n, *feature_shape) of at most ``batch_size`` images; an array of the caller's own."""
        ...


def padded(images: Images, image_size: tuple[int, int], batch_size: int = BATCH_SIZE) -> Images:
    """The images, contiguous, filled up to ``batch_size`` with black ones; raises InputError for a wrong shape."""
    count = len(images)
    if images.dtype != np.uint8 or images.shape[1:] != (*image_size, 3) or not 1 <= count <= batch_size:
        raise InputError(
            "a batch of images has the wrong shape",
            where="runtime",
            expected=f"uint8 (1 to {batch_size}, {image_size[0]}, {image_size[1]}, 3)",
            received=f"{images.dtype} {images.shape}",
        )
    if count == batch_size:
        return np.ascontiguousarray(images)
    batch = np.zeros((batch_size, *images.shape[1:]), np.uint8)
    batch[:count] = images
    return batch
