"""Which images a base is calibrated on for int8: some of those to train on, chosen by their content.

A graph is calibrated once, on the first dataset that asks for it: its digest is part of every spec that it computes, so
the rows of two calibrations never mix, and images that come later find the rows of the first ones still valid.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np

from featstore.backbone import GraphSpec
from featstore.dataset import Dataset
from featstore.errors import InputError
from featstore.formats import MAX_FILE_BYTES
from featstore.progress import Progress, silent
from featstore.records import SPLITS, Digests, Rejected
from featstore.runtime import Images
from featstore.runtime.graph_files import calibrations, card_of, is_sound
from featstore.spec import PixelSpec

IMAGES = 192
"""Pictures that a base is calibrated on, if there are so many."""

SEED = 0
"""Part of what puts the images in the order in which they are taken."""


def calibration_for(
    graph: GraphSpec, pixels: PixelSpec, dataset: Dataset, digests: Digests, progress: Progress = silent
) -> str:
    """The digest (hex) of the calibrated graph for ``graph`` on pictures of ``pixels``: the one that is kept, or a new
    one from images of ``dataset``, whose digests uint8 (N, 32) are given.

    Raises InputError if NNCF is not installed or no image can be decoded, StorageError if the graph cannot be kept.
    """
    key = _key(graph, pixels)
    if found := find_calibration(key):
        return found
    from featstore.runtime.calibrate import calibrate

    pictures = dict(_pictures(pixels, dataset, digests))
    if not pictures:
        raise InputError(
            "int8 is calibrated on images, and none of these can be decoded", where=dataset.source.location
        )
    about = {"seed": SEED, "images": list(pictures), "data": dataset.source.location}
    return calibrate(graph, key, np.stack(list(pictures.values())), about, progress)


def find_calibration(key: str) -> str | None:
    """The digest of the calibrated graph that was made under this key: of several the first; None if there is none."""
    cards = ((card_of(path), path) for path in calibrations().glob("[!.]*"))
    made = sorted((float(card.get("made", 0)), path.name) for card, path in cards if card.get("key") == key)
    return next((name for _, name in made if is_sound(calibrations() / name)), None)


def _key(graph: GraphSpec, pixels: PixelSpec) -> str:
    parts = {"graph": graph.key(), "pixels": asdict(pixels)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _pictures(pixels: PixelSpec, dataset: Dataset, digests: Digests) -> Iterator[tuple[str, Images]]:
    """By their digest the first images that can be decoded, of train or, without one, of all: uint8 (H, W, 3)."""
    train = np.flatnonzero(dataset.split_of(digests) == SPLITS.index("train"))
    keys = {digests[i].tobytes(): i for i in (train if len(train) else np.arange(len(dataset))).tolist()}
    order = sorted(keys, key=lambda digest: hashlib.sha256(bytes([SEED]) + digest).digest())
    from featstore.decode import decode  # Pillow, which only a first calibration needs

    count = 0
    for digest in order:
        try:
            data = dataset.source.read(dataset.paths[keys[digest]], MAX_FILE_BYTES)
            if hashlib.sha256(data).digest() != digest:  # changed since: another image
                continue
            [picture] = decode(data, [pixels])
        except (Rejected, OSError):
            continue
        yield digest.hex(), picture
        count += 1
        if count == IMAGES:
            return
