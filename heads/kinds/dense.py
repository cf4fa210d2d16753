"""A dense head: layers of weights, relu between them, and numpy alone from features to logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError
from heads.kinds.head import Arrays, Features, Logits, in_blocks, product

_MOST_LAYERS = 100

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class DenseHead:
    """h = relu(h · weights + biases) for every layer but the last, whose result are the logits.

    weights : float32 (in, out), one a layer; the first takes D features, the last gives K logits. Of two classes the
        first has zeros, so that the softmax is the sigmoid of the second.
    biases : float32 (out,), one a layer.
    Raises InputError if the shapes do not fit or a number is not finite.
    """

    format: ClassVar[str] = "dense"

    weights: tuple[_Floats, ...]
    biases: tuple[_Floats, ...]

    def __post_init__(self) -> None:
        """Check the arrays once, here, so that no prediction has to."""
        shapes = ", ".join(f"{w.shape} {b.shape}" for w, b in zip(self.weights, self.biases, strict=False))
        fits = (
            1 <= len(self.weights) == len(self.biases) <= _MOST_LAYERS
            and all(w.ndim == 2 and b.shape == w.shape[1:] for w, b in zip(self.weights, self.biases, strict=True))
            and all(one.shape[1] == two.shape[0] for one, two in pairwise(self.weights))
        )
        if not fits or min(min(w.shape) for w in self.weights) < 1 or self.weights[-1].shape[1] < 2:
            raise InputError(
                "a dense head's arrays do not fit", expected="(D, H) (H,), …, (H, K) (K,), K > 1", received=shapes
            )
        if not all(np.isfinite(array).all() for array in (*self.weights, *self.biases)):
            raise InputError("a dense head holds numbers that are not finite", received=shapes)

    @property
    def width(self) -> int:
        """D, the number of features it expects."""
        return int(self.weights[0].shape[0])

    @property
    def outputs(self) -> int:
        """K, the number of classes it tells apart."""
        return len(self.biases[-1])

    def logits(self, X: Features) -> Logits:
        """float64 (N, K) for features (N, D); raises InputError if D is not the head's."""
        *hidden, last = zip(map(product, self.weights), self.biases, strict=True)

        def of_rows(rows: npt.NDArray[np.floating]) -> Logits:
            for products, bias in hidden:
                rows = np.maximum(products(rows) + bias, 0.0)
            return last[0](rows) + last[1]

        return in_blocks(of_rows, X, self)

    def to_arrays(self) -> tuple[Arrays, Mapping[str, Any]]:
        """``weights_0``, ``biases_0``, ``weights_1``, …, and nothing else."""
        pairs = enumerate(zip(self.weights, self.biases, strict=True))
        return {f"{name}_{i}": array for i, pair in pairs for name, array in zip(_NAMES, pair, strict=True)}, {}

    @classmethod
    def from_arrays(cls, arrays: Arrays, config: Mapping[str, Any]) -> DenseHead:
        """The head written by :meth:`to_arrays`; raises InputError if these cannot be one."""
        layers = len(arrays) // len(_NAMES)
        names = [[f"{name}_{i}" for i in range(layers)] for name in _NAMES]
        if {name for row in names for name in row} != set(arrays) or config:
            raise InputError("a dense head's arrays do not fit", expected="weights_0, biases_0, weights_1, …")
        if any(array.dtype != np.float32 for array in arrays.values()):
            raise InputError("a dense head's arrays do not fit", expected="float32")
        weights, biases = (tuple(arrays[name] for name in row) for row in names)
        return cls(weights, biases)


_NAMES = ("weights", "biases")
