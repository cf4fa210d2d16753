"""Augmentation: which altered version of an image a view is. View 0 is the image itself.

View k is a pure function of the image's digest, k and the policy: the same pixels in any order, process and batch, so
that a view can be cached like the image itself. The transformations, the order in which they are put together and their
names are those of Keras's ``ImageDataGenerator``, which the well-known tutorials use; unlike it, nothing depends on a
generator's state.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError, unknown_name

VIEW_VERSION = 1
"""Rises when the same policy gives other pixels; part of a policy's text, and so of the fingerprint."""

MAX_VIEWS = 1000
"""Views of one image that may be asked for."""

FillMode = Literal["nearest", "reflect", "constant", "wrap"]

_Pixels = npt.NDArray[np.uint8]
"""uint8 (H, W, C)."""

_Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Policy:
    """The ranges that a view's transformation is drawn from, each uniformly; 0 and False leave it out.

    rotation_range : degrees, up to this much either way.
    width_shift_range, height_shift_range : shares of the side, either way.
    shear_range : degrees, either way.
    zoom_range : width and height are each divided by 1 - zoom to 1 + zoom.
    horizontal_flip, vertical_flip : half of the views are mirrored.
    fill_mode : what is outside of the picture, in SciPy's words: "nearest" repeats the edge, "reflect" mirrors,
        "constant" is black, "wrap" begins again.
    """

    rotation_range: float = 0.0
    width_shift_range: float = 0.0
    height_shift_range: float = 0.0
    shear_range: float = 0.0
    zoom_range: float = 0.0
    horizontal_flip: bool = False
    vertical_flip: bool = False
    fill_mode: FillMode = "nearest"

    def __post_init__(self) -> None:
        """Check every value; raises InputError with all problems at once."""
        limits = {
            "rotation_range": 180.0, "width_shift_range": 1.0, "height_shift_range": 1.0, "shear_range": 80.0,
            "zoom_range": 0.9,
        }  # fmt: skip
        problems = [
            f"{name}={getattr(self, name)!r} (a number from 0 to {most:g})"
            for name, most in limits.items()
            if not 0 <= getattr(self, name) <= most
        ]
        if self.fill_mode not in get_args(FillMode):
            problems.append(f"fill_mode={self.fill_mode!r} (one of {', '.join(get_args(FillMode))})")
        if problems:
            raise InputError("this augmentation cannot be done", where="--augment", received="; ".join(problems))

    @property
    def ranges(self) -> Mapping[str, float | bool]:
        """What it varies: the fields that are not 0 or False, by name."""
        return {name: value for name, value in asdict(self).items() if value and name != "fill_mode"}

    def to_text(self) -> str:
        """Canonical JSON: what a spec holds as its ``augmentation``."""
        return json.dumps({**asdict(self), "version": VIEW_VERSION}, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Policy:
        """The policy written by :meth:`to_text`; raises InputError for anything else, other versions among it."""
        try:
            data = json.loads(text)
            if data.pop("version") != VIEW_VERSION:
                raise ValueError("another version")
            policy = cls(**data)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                "this augmentation cannot be read", where="augmentation", received=text, todo="use a newer featstore"
            ) from error
        return policy


POLICIES: Mapping[str, Policy] = {
    "tutorial": Policy(40.0, 0.2, 0.2, 0.2, 0.2, True),
    "flip": Policy(horizontal_flip=True),
    "keras-guide": Policy(rotation_range=36.0, horizontal_flip=True, fill_mode="reflect"),
}
"""What the cats-versus-dogs tutorials do, the mirror alone, and what Keras's guide to transfer learning does."""

DEFAULT_POLICY = "tutorial"


def parse_policy(text: str) -> Policy:
    """A policy's name, or ``name=value`` separated by commas: ``rotation_range=20,horizontal_flip=true``.

    Raises InputError for names and values that do not exist.
    """
    if "=" not in text:
        if text not in POLICIES:
            raise unknown_name("augmentation policy", text, POLICIES, "--augment")
        return POLICIES[text]
    kinds = {field.name: type(getattr(Policy(), field.name)) for field in fields(Policy)}
    given: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in kinds:
            raise unknown_name("augmentation", name, kinds, "--augment")
        try:
            given[name] = _read(kinds[name], value)
        except ValueError as error:
            raise InputError(
                f"this is no value of {name}",
                where="--augment",
                expected="true or false" if kinds[name] is bool else "a number",
                received=value or "nothing",
            ) from error
    return Policy(**given)


def _read(kind: type, value: str) -> object:
    if kind is bool:
        return {"true": True, "false": False}[value.lower()] if value.lower() in ("true", "false") else float("no")
    return kind(value)


@dataclass(frozen=True, slots=True)
class Transformation:
    """One drawn transformation, seen from the output: rotation and shear in degrees, shifts as shares of the side.

    ``height_zoom`` and ``width_zoom`` above 1 show more than the picture, below 1 less.
    """

    rotation: float = 0.0
    height_shift: float = 0.0
    width_shift: float = 0.0
    shear: float = 0.0
    height_zoom: float = 1.0
    width_zoom: float = 1.0
    mirrored: bool = False
    upside_down: bool = False


def draw(policy: Policy, digest: bytes, view: int) -> Transformation:
    """The transformation of view ``view`` of the image with this digest (32 bytes).

    SHA-256 of the policy's text, the view's number and the digest is eight numbers of 32 bits: these are the draws.
    """
    hashed = hashlib.sha256(f"{policy.to_text()}\n{view}\n".encode() + digest).digest()
    numbers = (np.frombuffer(hashed, ">u4") / 2**32).tolist()  # in [0, 1), exact in float64
    either_way = [2 * number - 1 for number in numbers]
    return Transformation(
        rotation=policy.rotation_range * either_way[0],
        height_shift=policy.height_shift_range * either_way[1],
        width_shift=policy.width_shift_range * either_way[2],
        shear=policy.shear_range * either_way[3],
        height_zoom=1 + policy.zoom_range * either_way[4],
        width_zoom=1 + policy.zoom_range * either_way[5],
        mirrored=policy.horizontal_flip and numbers[6] < 0.5,
        upside_down=policy.vertical_flip and numbers[7] < 0.5,
    )


def augment(pixels: _Pixels, policy: Policy, digest: bytes, view: int) -> _Pixels:
    """View ``view`` of the image whose pixels, uint8 (H, W, C), are given; of the same shape. View 0 is ``pixels``."""
    return pixels if view == 0 else transformed(pixels, draw(policy, digest, view), policy.fill_mode)


def transformed(pixels: _Pixels, how: Transformation, fill_mode: FillMode) -> _Pixels:
    """The pixels uint8 (H, W, C) under one transformation, interpolated linearly and rounded."""
    from scipy.ndimage import affine_transform

    height, width = pixels.shape[:2]
    matrix = _matrix(how, height, width)
    if not np.array_equal(matrix, np.eye(3)):
        planes = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
        out = np.empty_like(planes)
        for plane, target in zip(planes, out, strict=True):
            affine_transform(plane, matrix[:2, :2], matrix[:2, 2], output=target, order=1, mode=fill_mode)
        pixels = np.moveaxis(out, 0, -1)
    pixels = pixels[:, ::-1] if how.mirrored else pixels
    return np.ascontiguousarray(pixels[::-1] if how.upside_down else pixels)


def _matrix(how: Transformation, height: int, width: int) -> _Matrix:
    """From (row, column, 1) of the output to that of the input: rotation · shift · shear · zoom about the middle.

    Put together in (x, y, 1), as Keras's ``apply_affine_transform`` does; only then are the axes swapped.
    """
    turn, lean = np.deg2rad(how.rotation), np.deg2rad(how.shear)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    shift = np.array([[1, 0, how.width_shift * width], [0, 1, how.height_shift * height], [0, 0, 1]])
    shear = np.array([[1, -np.sin(lean), 0], [0, np.cos(lean), 0], [0, 0, 1]])
    zoom = np.diag([how.width_zoom, how.height_zoom, 1])
    middle = np.array([[1, 0, width / 2 - 0.5], [0, 1, height / 2 - 0.5], [0, 0, 1]])
    back = np.array([[1, 0, 0.5 - width / 2], [0, 1, 0.5 - height / 2], [0, 0, 1]])
    matrix = middle @ rotation @ shift @ shear @ zoom @ back
    return np.asarray(matrix[[1, 0, 2]][:, [1, 0, 2]])
