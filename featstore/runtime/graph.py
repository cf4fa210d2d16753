"""What a graph is made of, and what every runtime does with one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError
from featstore.spec import Precision, Preprocessing
from featstore.versions import installed_versions
from featstore.weights import Base

BATCH_SIZE = 32
"""Every forward pass has this many images, padded if need be: so a row never depends on its neighbours or its run."""

Images = npt.NDArray[np.uint8]
"""RGB images, uint8 (n, H, W, 3)."""


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """A frozen graph: which base, which layer, what goes in and how the maps are pooled ("avg", "max" or "map")."""

    base: Base
    layer: str
    image_size: tuple[int, int]
    preprocessing: Preprocessing
    pooling: str
    precision: Precision

    def key(self, **versions: object) -> str:
        """The converted graph's name (SHA-256, hex): all but the precision, which a runtime sets when it compiles."""
        parts = {
            "backbone": self.base.spec_name,
            "weights": self.base.digest,
            "layer": self.layer,
            "image_size": self.image_size,
            "preprocessing": self.preprocessing,
            "pooling": self.pooling,
            "batch": BATCH_SIZE,
            **versions,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Runtime(Protocol):
    """A compiled graph. ``feature_shape`` is (C,), or (h, w, C) for maps; ``versions`` are those of its libraries."""

    name: str
    device: str
    precision: Precision
    feature_shape: tuple[int, ...]
    versions: Mapping[str, str]

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


def feature_shape(graph: GraphSpec) -> tuple[int, ...] | None:
    """The shape of one image's features, (C,), if it is known without building the graph; None for maps."""
    return None if graph.pooling == "map" else (graph.base.layer(graph.layer).channels,)


def library_versions(*packages: str) -> dict[str, str]:
    """The versions of installed packages, without importing them; "none" for one that is not installed."""
    return {package: installed_versions().get(package, "none") for package in packages}
