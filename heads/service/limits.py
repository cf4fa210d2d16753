"""What a request may be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes of all headers, of a body, and of all bodies at once; seconds in which all of a body must arrive, and bytes
    a second at least once two seconds are over.
    """

    header_bytes: int = 16 * 2**10
    body_bytes: int = 16 * 2**20
    all_bodies_bytes: int = 256 * 2**20
    body_seconds: float = 20.0
    body_rate: float = 4096.0
