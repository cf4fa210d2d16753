"""Writing bundles for tests: two fitted images, and thirty that were held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from featstore.records import Digests
from heads.bundles import bundle
from heads.bundles.card import Card
from heads.bundles.images import FittedImages, JudgedImages
from heads.kinds.head import Head

DIGESTS: Digests = np.arange(64, dtype=np.uint8).reshape(2, 32)
FITTED = FittedImages.of(DIGESTS, np.array([1, 0]))


def judged_of(card: Card, seed: int = 0) -> JudgedImages:
    """As many as the card's metrics are of; every third is called wrongly."""
    count, classes = card.held_out.n, len(card.held_out.per_class)
    y = np.arange(count) % classes
    said = np.where(np.arange(count) % 3 == 0, (y + 1) % classes, y)
    digests = np.random.default_rng(seed).integers(0, 256, (count, 32), dtype=np.uint8)
    return JudgedImages.of(digests, y, np.eye(classes)[said] * 0.7 + 0.3 / classes)


def write_bundle(folder: Path, card: Card, head: Head, fitted: FittedImages = FITTED, seed: int = 0) -> Path:
    """A bundle of this head, whose digests are :data:`DIGESTS` and some that ``seed`` draws."""
    return bundle.write_bundle(folder, card, head, fitted, judged_of(card, seed))
