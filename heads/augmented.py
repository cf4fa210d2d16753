"""The composer of `featstore augment`: from an image file to a contact sheet of its views."""

from __future__ import annotations

from pathlib import Path

from featstore.augmentation import DEFAULT_POLICY, parse_policy
from featstore.dataset import open_dataset
from featstore.errors import InputError
from featstore.extraction.reader import Picture, prepare
from featstore.spec import PixelSpec

SIZE = 224
"""Pixels of the side of the pictures in a contact sheet."""

MOST_SIZE = 1024
"""Beyond that some fifty of them would take gigabytes."""


def contact_sheet_of(image: Path, augment: str = DEFAULT_POLICY, *, size: int | tuple[int, int] = SIZE) -> bytes:
    """A PNG file of the image's first views under a policy, and of each of the policy's ranges alone.

    Raises InputError for pictures that are too large, an unknown policy, one that changes nothing, or a file that
    is no image.
    """
    sides = (size, size) if isinstance(size, int) else size
    if max(sides) > MOST_SIZE:
        raise InputError(
            "so large a contact sheet helps nobody",
            where="--image-size",
            expected=f"at most {MOST_SIZE} pixels a side",
            received=f"{sides[0]} × {sides[1]}",
        )
    policy = parse_policy(augment)
    if not policy.ranges:
        raise InputError("this policy changes nothing", where="--augment", received=augment)
    picture = Picture(PixelSpec(sides))
    read = prepare(open_dataset([image]), 0, lambda *_: frozenset({picture}))
    if read.rejected is not None or read.digest is None:
        raise InputError("this is no image that can be read", where=image, received=read.rejected)
    from heads.report.contact import contact_sheet

    return contact_sheet(read.pixels[picture], read.digest, policy)
