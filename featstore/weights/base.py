"""A base whose weights are known: all that a spec needs, without Keras being loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.catalog import Backbone
from featstore.errors import unknown_name

Tensors = list[npt.NDArray[np.float32]]
"""A base's tensors, float32, in the order of Keras's ``get_weights()``."""


def tensor_digest(tensors: Iterable[npt.NDArray[Any]]) -> str:
    """SHA-256 (hex) over the tensors, one after the other, as contiguous little-endian float32.

    So the same weights have the same digest wherever they come from.
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(np.ascontiguousarray(tensor, "<f4").data)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer whose output can be features: (H, W, ``channels``) an image."""

    name: str
    channels: int


@dataclass(frozen=True, slots=True)
class Base:
    """A backbone with its weights.

    ``origin`` is what was asked for ("imagenet", "random:7" or a path) and ``source`` where it was found, for people.
    ``digest`` is the :func:`tensor_digest` in hex. ``layers`` are all that can give features, in the model's order.
    ``tensors`` is the cached file: ``.npz``, or ``.keras`` for somebody's own model.
    """

    backbone: Backbone
    origin: str
    digest: str
    layers: tuple[Layer, ...]
    tensors: Path
    source: str

    @property
    def spec_name(self) -> str:
        """The architecture's name in a spec: ``vgg16``, or ``NAME@<16 hex digits of the config>`` for an own model."""
        return self.backbone.name

    def to_json(self) -> dict[str, object]:
        """What ``weights ls --json`` prints of it; ``bytes`` is the size of the cached file."""
        return {
            "backbone": self.spec_name,
            "origin": self.origin,
            "digest": self.digest,
            "source": self.source,
            "path": str(self.tensors),
            "bytes": self.tensors.stat().st_size,
        }

    def layer(self, name: str | None = None) -> Layer:
        """The layer called ``name``, by default the last; raises InputError with the nearest names."""
        wanted = name or self.backbone.last_layer
        for layer in self.layers:
            if layer.name == wanted:
                return layer
        raise unknown_name("layer", wanted, [layer.name for layer in self.layers], f"--layer of {self.backbone.name}")
