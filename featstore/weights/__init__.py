"""Where a base's weights come from, and proof that they are the right ones."""

from __future__ import annotations

from featstore.weights.base import Base, Layer, tensor_digest
from featstore.weights.cache import Verdict, cached_base, list_weights, read_tensors, verify_weights
from featstore.weights.resolve import pull, resolve

__all__ = [
    "Base",
    "Layer",
    "Verdict",
    "cached_base",
    "list_weights",
    "pull",
    "read_tensors",
    "resolve",
    "tensor_digest",
    "verify_weights",
]
