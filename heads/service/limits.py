"""What a request may be, and how what there is of something is shared by those who ask."""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass

CONNECTIONS = 64
"""Connections that are served at once, of one address at most half; those above are told to come back."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes of all headers, of a body, and of all bodies at once; seconds in which all of a body must arrive, and bytes
    a second at least once two seconds are over; requests that are answered at once. Of what all have together one
    address has at most half.
    """

    header_bytes: int = 16 * 2**10
    body_bytes: int = 16 * 2**20
    all_bodies_bytes: int = 256 * 2**20
    body_seconds: float = 20.0
    body_rate: float = 4096.0
    requests: int = CONNECTIONS


def asker_at(host: str | None) -> str | None:
    """In whose name a client at this address asks: in IPv6 in that of its network of 64 bits, for a single machine is
    given a whole one; one that is an IPv4 address in IPv6 is that.
    """
    if host is None or ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


class Shares:
    """So much of something, of which one address has at most half. For one thread at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: Counter[str | None] = Counter()

    def of(self, address: str | None) -> int:
        """How much it has."""
        return self._held[address]

    def fits(self, address: str | None, count: int = 1) -> bool:
        """Whether it may have so much more."""
        return self._held.total() + count <= self._most and self._held[address] + count <= self._most // 2

    def take(self, address: str | None, count: int = 1) -> bool:
        """Let it have so much more, if it may; whether it does."""
        if not self.fits(address, count):
            return False
        self._held[address] += count
        return True

    def give_back(self, address: str | None, count: int = 1) -> None:
        """It has so much less."""
        self._held[address] -= count
        if not self._held[address]:
            del self._held[address]
