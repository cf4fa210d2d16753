"""Decodes hostile pictures in a process of its own, and says what each became and what it took.

    python -m tests.reliability.decoding mutations FOLDER FIRST COUNT
    python -m tests.reliability.decoding file PATH [SIZE RESIZE]

Prints one JSON object: ``outcomes`` (a digest of the pixels, or the reject's code), the most CPU seconds that one took,
and by how many MiB the peak of resident memory grew.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from random import Random

from featstore.decode import decode
from featstore.formats import MAX_FILE_BYTES
from featstore.machine import peak_memory
from featstore.records import Rejected
from featstore.spec import PixelSpec

_SPEC = PixelSpec((64, 64))


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


def outcome(data: bytes, spec: PixelSpec) -> str:
    """What the picture becomes."""
    try:
        [pixels] = decode(data, [spec])
    except Rejected as reject:
        return reject.reason.code
    return hashlib.sha256(pixels.tobytes()).hexdigest()[:16]


def main() -> None:
    """Decode what is asked for."""
    kind, place, *numbers = sys.argv[1:]
    spec = _SPEC
    if kind == "file":
        data = Path(place).read_bytes()[: MAX_FILE_BYTES + 1]
        pictures = iter([data])
        if numbers:
            spec = PixelSpec((int(numbers[0]), int(numbers[0])), numbers[1])  # type: ignore[arg-type]
    else:
        good = [file.read_bytes() for file in sorted(Path(place).iterdir())]
        first, count = map(int, numbers)
        pictures = (mutated(good, seed) for seed in range(first, first + count))
    decode(_TINY, [_SPEC])  # what is loaded for the first picture is not the picture's doing
    outcomes, slowest = [], 0.0
    before = peak_memory()
    for picture in pictures:
        started = time.process_time()
        outcomes.append(outcome(picture, spec))
        slowest = max(slowest, time.process_time() - started)
    print(json.dumps({"outcomes": outcomes, "cpu_seconds": slowest, "mib": (peak_memory() - before) / 2**20}))


_TINY = bytes.fromhex(
    "474946383961010001008000000000000000ffffff2c00000000010001000002024401003b"
)  # a GIF of one pixel


if __name__ == "__main__":
    main()
