"""Who asks, and how long may be worked on an answer."""

from __future__ import annotations

import time

from fastapi import Request

from heads.service.limits import asker_at

_ANSWER_SECONDS = 30.0


def asker_of(request: Request) -> str | None:
    """In whose name permits and places are taken."""
    return asker_at(request.client.host if request.client else None)


def answer_until() -> float:
    """When an answer that is begun now must be there (of ``time.monotonic``)."""
    return time.monotonic() + _ANSWER_SECONDS
