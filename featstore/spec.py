"""A spec: everything that changes a vector, and its fingerprint.

Two rows may be compared only if their specs are equal; so whatever could change a number is a field here,
and whatever could not (the machine, the library versions, the batch) is recorded beside the rows instead.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from featstore.errors import InputError

SPEC_VERSION = 1
"""Rises when the meaning of a field changes; part of the fingerprint."""

DECODE_VERSION = 1
"""Rises when decoding or resizing changes pixels (colour rules, draft rule, orientation); part of the fingerprint."""

MOST_PIXELS_A_SIDE = 2048
"""The largest input: a batch of 32 such images takes 1.6 GB before the first layer. Bases are trained at 224 to 600."""

Resize = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Fit = Literal["stretch", "crop", "pad"]
Preprocessing = Literal["keras", "rescale", "none"]
Precision = Literal["float32", "bfloat16", "float16", "int8"]
Pooling = Literal["avg", "max", "flatten", "map"]
StoredDtype = Literal["float32", "float16"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "resize": get_args(Resize),
    "fit": get_args(Fit),
    "preprocessing": get_args(Preprocessing),
    "precision": get_args(Precision),
    "pooling": get_args(Pooling),
    "dtype": get_args(StoredDtype),
}


@dataclass(frozen=True, slots=True)
class PixelSpec:
    """How a file's bytes become pixels: uint8 (height, width, 3)."""

    image_size: tuple[int, int]
    resize: Resize = "bilinear"
    fit: Fit = "stretch"


@dataclass(frozen=True, slots=True)
class Spec:
    """All that changes a vector. ``image_size`` is (height, width) in pixels; ``weights`` is a tensor digest in hex.

    ``calibration`` is the digest in hex of the calibrated graph that int8 computes with; None at other precisions.
    """

    backbone: str
    weights: str
    layer: str
    image_size: tuple[int, int]
    resize: Resize = "bilinear"
    fit: Fit = "stretch"
    preprocessing: Preprocessing = "keras"
    precision: Precision = "float32"
    pooling: Pooling = "avg"
    dtype: StoredDtype = "float32"
    augmentation: str | None = None
    calibration: str | None = None
    decode_version: int = DECODE_VERSION
    spec_version: int = SPEC_VERSION

    def __post_init__(self) -> None:
        """Check every choice; raises InputError with all problems at once."""
        problems = [
            f"{name}={getattr(self, name)!r} (one of {', '.join(choices)})"
            for name, choices in _CHOICES.items()
            if getattr(self, name) not in choices
        ]
        if len(self.image_size) != 2 or not all(_is_side(side) for side in self.image_size):
            problems.append(f"image_size={self.image_size!r} (two numbers of pixels from 1 to {MOST_PIXELS_A_SIDE})")
        if (self.precision == "int8") != (self.calibration is not None):
            problems.append(f"calibration={self.calibration!r} (a calibrated graph's digest for int8, else None)")
        if problems:
            raise InputError("a spec has values that do not exist", where="spec", received="; ".join(problems))

    @property
    def pixels(self) -> PixelSpec:
        """The part that decoding needs."""
        return PixelSpec(self.image_size, self.resize, self.fit)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the canonical JSON: the name of this spec's namespace in a store."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, ASCII only. Equal specs give equal text on every machine.

        ``calibration`` is left out where it is None, as before there was such a field: fingerprints stay what they are.
        """
        told = {name: value for name, value in asdict(self).items() if (name, value) != ("calibration", None)}
        return json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Spec:
        """The spec written by :meth:`to_json`; raises InputError on unknown or missing fields."""
        try:
            data = json.loads(text)
            return cls(**{**data, "image_size": tuple(data["image_size"])})
        except (ValueError, TypeError, KeyError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                "this spec cannot be read", where="spec JSON", received=str(error), todo="use a newer featstore"
            ) from error

    def but(self, **changes: Any) -> Spec:
        """The spec with some fields changed."""
        return replace(self, **changes)

    def differences(self, other: Spec) -> dict[str, tuple[Any, Any]]:
        """The fields in which two specs differ: name → (mine, the other's)."""
        pairs = ((f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return {name: (mine, theirs) for name, mine, theirs in pairs if mine != theirs}


def _is_side(pixels: object) -> bool:
    """Whether a picture may be so high or wide. Specs come with stores and bundles of anybody, too."""
    return isinstance(pixels, int) and 1 <= pixels <= MOST_PIXELS_A_SIDE
