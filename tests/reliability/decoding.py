"""Decodes hostile pictures in a process of its own, and says what each became and what it took.

    python -m tests.reliability.decoding mutations FOLDER FIRST COUNT
    python -m tests.reliability.decoding file PATH WANTED…

Prints one JSON object: ``outcomes`` (a digest of the pixels, or the reject's code), the CPU ``seconds`` of each, and by
how many MiB the peak of resident memory grew, with the file's own bytes. WANTED is SIZE:RESIZE:VIEWS, several of them
with commas between for sizes that are made at once, as for several bases; VIEWS of each are augmented, beside the
picture itself. Or it is thumbnail:SIZE.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random

from featstore.augmentation import Policy
from featstore.decode import thumbnail
from featstore.extraction import reader
from featstore.extraction.reader import Picture
from featstore.formats import MAX_FILE_BYTES
from featstore.machine import peak_memory
from featstore.records import Rejected
from featstore.spec import PixelSpec

_POLICY = Policy(rotation_range=40, width_shift_range=0.2, shear_range=20, zoom_range=0.2, horizontal_flip=True)


def mutated(good: list[bytes], seed: int) -> bytes:
    """A good photograph after a flip of bits, a truncation, or a splice of another one into it."""
    choose = Random(seed)
    data = bytearray(choose.choice(good))
    kind = choose.randrange(4)
    if kind == 0:
        for _ in range(choose.choice((1, 8, 64))):
            data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
    elif kind == 1:
        del data[choose.randrange(len(data)) :]
    elif kind == 2:  # the head matters most
        for _ in range(choose.choice((1, 4))):
            data[choose.randrange(min(800, len(data)))] = choose.randrange(256)
    else:
        other = choose.choice(good)
        start, length = choose.randrange(len(other)), choose.randrange(1, 4096)
        at = choose.randrange(len(data))
        data[at : at + choose.choice((0, length))] = other[start : start + length]
    return bytes(data)


def outcome(make: Callable[[], Sequence[bytes]]) -> str:
    """What the picture becomes: a digest of what is made of it, or the reject's code."""
    try:
        made = make()
    except Rejected as reject:
        return reject.reason.code
    return hashlib.sha256(b"".join(made)).hexdigest()[:16]


def pixels(data: bytes, specs: Sequence[PixelSpec], views: int) -> list[bytes]:
    """The picture for all specs at once, as an extraction makes it, and so many augmented views of each."""
    wanted = [Picture(spec, view, _POLICY if view else None) for spec in specs for view in range(views + 1)]
    made = reader._make(frozenset(wanted), data, hashlib.sha256(data).digest())
    return [made[picture].tobytes() for picture in wanted]


def maker(data: bytes, wanted: str) -> Callable[[], Sequence[bytes]]:
    """What makes of a picture what is wanted of it."""
    if wanted.startswith("thumbnail:"):
        return lambda: [thumbnail(data, int(wanted.removeprefix("thumbnail:")))]
    asked = [word.split(":") for word in wanted.split(",")]
    specs = [PixelSpec((int(size), int(size)), resize) for size, resize, _ in asked]  # type: ignore[arg-type]
    return partial(pixels, data, specs, max(int(views) for *_, views in asked))


def main() -> None:
    """Decode what is asked for."""
    kind, place, *words = sys.argv[1:]
    first, count = map(int, words) if kind == "mutations" else (0, 0)
    wanted = ["64:bilinear:0"] if kind == "mutations" else words
    for one in wanted:  # what is loaded for the first picture is not the picture's doing
        outcome(maker(_TINY, one))
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what is held now
    before = peak_memory()
    makers: Iterator[Callable[[], Sequence[bytes]]]
    if kind == "mutations":
        good = [file.read_bytes() for file in sorted(Path(place).iterdir())]
        makers = (maker(mutated(good, seed), *wanted) for seed in range(first, first + count))
    else:
        data = Path(place).read_bytes()[: MAX_FILE_BYTES + 1]
        makers = (maker(data, one) for one in wanted)
    outcomes, seconds = [], []
    for make in makers:
        started = time.process_time()
        outcomes.append(outcome(make))
        seconds.append(time.process_time() - started)
    print(json.dumps({"outcomes": outcomes, "seconds": seconds, "mib": (peak_memory() - before) / 2**20}))


_TINY = bytes.fromhex(
    "474946383961010001008000000000000000ffffff2c00000000010001000002024401003b"
)  # a GIF of one pixel


if __name__ == "__main__":
    main()
