"""The reading stage: files → digests and pixels, in threads, in order, with bounded memory.

Each file is read once and decoded once, however many specs want it; digest and pixels come from the same bytes.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from featstore.augmentation import Policy, augment
from featstore.dataset import Dataset
from featstore.formats import MAX_FILE_BYTES
from featstore.records import Reason, Rejected, Stamp
from featstore.spec import PixelSpec


@dataclass(frozen=True, slots=True)
class Picture:
    """What is wanted of an image: which pixels, of which view. ``policy`` is None for view 0, the image itself."""

    pixels: PixelSpec
    view: int = 0
    policy: Policy | None = None


Wanted = Callable[[int, bytes], frozenset[Picture]]
"""Which pictures are still wanted of the image at this index, with this digest; called from several threads."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Prepared:
    """One image, read.

    ``digest`` is None if the file could not be read (then ``rejected`` says why); ``pixels`` holds uint8 (H, W, 3)
    for every Picture that was ``wanted``, and is empty if none was, or if decoding failed. Times in seconds.
    """

    index: int
    stamp: Stamp | None = None
    digest: bytes | None = None
    wanted: frozenset[Picture] = frozenset()
    pixels: Mapping[Picture, npt.NDArray[np.uint8]] = field(default_factory=dict)
    rejected: Rejected | None = None
    read_seconds: float = 0.0
    decode_seconds: float = 0.0


def prepare(dataset: Dataset, index: int, wanted: Wanted) -> Prepared:
    """Read image ``index``, take its digest and decode what is wanted of it. Never raises for a bad image."""
    started = time.perf_counter()
    path = dataset.paths[index]
    try:
        stamp = dataset.source.stamp(path)
        data = dataset.source.read(path, MAX_FILE_BYTES)
    except Rejected as unreadable:
        return Prepared(index, rejected=unreadable)
    digest = hashlib.sha256(data).digest()
    read = time.perf_counter()
    pictures = wanted(index, digest)
    rejected: Rejected | None = None
    pixels: dict[Picture, npt.NDArray[np.uint8]] = {}
    if pictures:
        try:
            pixels = _make(pictures, data, digest)
        except Rejected as caught:
            if caught.reason is Reason.UNREADABLE:  # the machine's state (no memory), not the file's: nothing to keep
                return Prepared(index, rejected=caught)
            rejected = caught
    return Prepared(index, stamp, digest, pictures, pixels, rejected, read - started, time.perf_counter() - read)


def _make(pictures: frozenset[Picture], data: bytes, digest: bytes) -> dict[Picture, npt.NDArray[np.uint8]]:
    from featstore import decode  # Pillow, which a run that computes nothing need not load

    specs = sorted({picture.pixels for picture in pictures}, key=repr)
    plain = dict(zip(specs, decode.decode(data, specs), strict=True))
    return {
        picture: augment(plain[picture.pixels], picture.policy, digest, picture.view)
        if picture.policy
        else plain[picture.pixels]
        for picture in pictures
    }


def in_order(
    function: Callable[[_Item], _Result], items: Iterable[_Item], *, workers: int, ahead: int
) -> Iterator[_Result]:
    """Apply ``function`` in threads, yield results in the order of ``items``, at most ``ahead`` of them waiting."""
    waiting: deque[Future[_Result]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="featstore-read")
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
