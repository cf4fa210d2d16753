"""Small pictures for tests, made and not copied."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image


def pixels(seed: int, size: int = 40) -> np.ndarray:
    """uint8 (size, size, 3): coloured blocks, different for every seed."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(blocks).resize((size, size), Image.Resampling.BICUBIC))


def png(seed: int, size: int = 40) -> bytes:
    """A PNG file of :func:`pixels`."""
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed, size)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def class_folders(root: Path, splits: tuple[str, ...] = ("train", "validation", "test"), count: int = 6) -> Path:
    """SPLIT/{cats,dogs}/N.png under ``root``: ``count`` pictures a class and split, all different."""
    seed = 0
    for split in splits:
        for name in ("cats", "dogs"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                seed += 1
                (folder / f"{i}.png").write_bytes(png(seed))
    return root
