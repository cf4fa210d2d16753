"""What a segment is called: the BLAKE3 of all its bytes, 64 hexadecimal digits (https://github.com/BLAKE3-team/BLAKE3)."""

from __future__ import annotations

import os

from blake3 import blake3

_PIECE_BYTES = 2**20


def name_of(data: bytes) -> str:
    """The name of the segment that holds ``data``."""
    return blake3(data).hexdigest()


def name_of_file(handle: int) -> str:
    """The name of all that can be read from the open file ``handle``, from where it stands. Raises OSError."""
    digest, piece = blake3(), memoryview(bytearray(_PIECE_BYTES))
    while count := os.readv(handle, [piece]):
        digest.update(piece[:count])
    return digest.hexdigest()
