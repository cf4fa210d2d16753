"""The leak guard: images that are judged on although an earlier split holds them, as exact copies or near ones.

A head is fitted on train and chosen on validation, and may be fitted again on both: so validation is compared with
train, and test with both.

Exact copies have the same digest. Near copies (another JPEG quality or size, a slight crop, a mirror image) have nearly
the same features: the cosine of the features, standardised by the training split, reaches :data:`THRESHOLD`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.progress import Progress, silent
from featstore.records import as_text
from featstore.table import Table
from featstore.wording import printable
from heads.kinds.blocks import moments

THRESHOLD = 0.9
"""The cosine from which on two images count as near copies.

Measured with average pooling on 1,399 photographs of cats and dogs and 200 altered copies: of different photographs the
nearest reach 0.69 (VGG16) and 0.87 (Xception); copies of lower JPEG quality or 0.7 times the size at least 0.90, most
mirrored, cropped (8 %) and brighter ones as well.
"""

_EQUAL = 1e-5
"""Cosines that differ by less are equal: a row's product has other last bits at another place of a matrix.

Of equally similar images the first one is named, and of splits the earlier.
"""

MOST_PRODUCTS = 2**41
"""Multiplications of the search in two splits, at most: about a minute on two cores. Beyond, near copies of a part of
the images are looked for; exact ones always of all.
"""

_CHUNK_NUMBERS = 2**24
_KNOWN, _ASKED = 2**14, 2**10
"""Features held at a time, and rows of either split: bounds the memory of the search, and of tables that stay in the
store.
"""

_Floats = npt.NDArray[np.float32]
_Wide = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Leak:
    """An image of ``split`` that is a copy, or nearly one, of the image ``original`` of the split ``of``.

    cosine : of their standardised features; 1 for an exact copy. same_label : whether both have one label.
    """

    split: str
    path: str
    of: str
    original: str
    cosine: float
    exact: bool
    same_label: bool

    def to_json(self) -> dict[str, Any]:
        """One of the ``leaks`` of ``train --json``."""
        return {**asdict(self), "path": printable(self.path), "original": printable(self.original)}


def find_leaks(
    tables: Mapping[str, Table], threshold: float = THRESHOLD, progress: Progress = silent
) -> tuple[Leak, ...]:
    """Every image of validation and test that has a copy, or a near one, in an earlier split; the nearest is named.

    Cost grows with the product of the splits' sizes, in matrix products, up to :data:`MOST_PRODUCTS` for two splits,
    beyond which near copies are missed (see :func:`unsearched`); memory does not grow.
    """
    pairs = _pairs(tables)
    if not pairs:
        return ()
    mean, scale = moments(tables["train"].X)
    found: dict[str, dict[str, Leak]] = {split: {} for _, split in pairs}
    with progress("looking for copies", len(pairs), "splits") as advance:
        for earlier, split in pairs:
            for leak in _between(earlier, tables[earlier], split, tables[split], mean, scale, threshold):
                known = found[split].get(leak.path)
                if known is None or (leak.exact, leak.cosine) > (known.exact, known.cosine + _EQUAL):
                    found[split][leak.path] = leak
            advance(1)
    return tuple(leaks[path] for split, leaks in found.items() for path in tables[split].paths if path in leaks)


def unsearched(tables: Mapping[str, Table]) -> Iterator[str]:
    """What is to be said of splits that are too large to look for near copies of every image."""
    for earlier, split in _pairs(tables):
        searched, count = _searched(tables[earlier], tables[split]), len(tables[split])
        if searched < count:
            yield (
                f"near copies in {earlier} were looked for of {searched:,} of the {count:,} images of {split}, drawn "
                "by their content: of all it would take too long. Exact copies were looked for of all"
            )


def _pairs(tables: Mapping[str, Table]) -> list[tuple[str, str]]:
    """The splits that are there, each with every one that is judged later; none without train."""
    present = [split for split in ("train", "validation", "test") if split in tables]
    if "train" not in present:
        return []
    return [(earlier, split) for place, split in enumerate(present) for earlier in present[:place]]


def _searched(earlier: Table, table: Table) -> int:
    """Of how many images of ``table`` near copies are looked for in ``earlier``."""
    count, width = earlier.X.shape
    return min(len(table), max(1, MOST_PRODUCTS // max(1, int(count) * int(width))))


def _between(
    of: str, earlier: Table, split: str, table: Table, mean: _Wide, scale: _Wide, threshold: float
) -> Iterator[Leak]:
    """The images of ``table`` that have a copy, or a near one, in ``earlier``."""
    copies = {digest.tobytes(): row for row, digest in reversed(list(enumerate(earlier.digests)))}
    nearest, cosines = np.zeros(len(table), np.int64), np.full(len(table), -2.0, np.float32)
    count = _searched(earlier, table)
    rows = np.arange(len(table)) if count == len(table) else np.sort(np.argsort(as_text(table.digests))[:count])
    nearest[rows], cosines[rows] = _nearest(earlier.X, table.select(rows).X, mean, scale)
    for row, digest in enumerate(table.digests):
        copy = copies.get(digest.tobytes())
        if copy is None and cosines[row] < threshold:
            continue
        place = int(nearest[row]) if copy is None else copy
        cosine = 1.0 if copy is not None else min(1.0, float(cosines[row]))
        same_label = bool(table.y[row] == earlier.y[place])
        yield Leak(split, table.paths[row], of, earlier.paths[place], cosine, copy is not None, same_label)


def _nearest(train: Any, X: Any, mean: _Wide, scale: _Wide) -> tuple[npt.NDArray[np.int64], _Floats]:
    """For each row of ``X`` (M, D) the most similar row of ``train`` (N, D), int64 (M,), and their cosine (M,)."""
    nearest, best = np.zeros(len(X), np.int64), np.full(len(X), -2.0, np.float32)
    for known in _parts(train, _KNOWN):
        directions = _directions(train[known], mean, scale)
        for asked in _parts(X, _ASKED):
            cosines = _directions(X[asked], mean, scale) @ directions.T
            found = cosines.max(axis=1)
            places = (cosines >= found[:, None] - _EQUAL).argmax(axis=1)  # the first one
            better = found > best[asked] + _EQUAL
            nearest[asked] = np.where(better, known.start + places, nearest[asked])
            best[asked] = np.where(better, found, best[asked])
    return nearest, best


def _directions(X: _Floats, mean: _Wide, scale: _Wide) -> _Floats:
    """The standardised rows, each of length 1."""
    standard = ((X - mean) / scale).astype(np.float32)
    lengths = np.linalg.norm(standard, axis=1, keepdims=True)
    return np.asarray(standard / np.maximum(lengths, np.finfo(np.float32).tiny), np.float32)


def _parts(X: Any, most: int) -> list[slice]:
    step = max(1, min(most, _CHUNK_NUMBERS // X.shape[1]))
    return [slice(start, min(start + step, len(X))) for start in range(0, len(X), step)]
