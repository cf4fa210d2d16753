"""What the reference tells of more than one route."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path

from heads.service.answers import DIGEST, HEAD, Problem

Told = dict[int | str, dict[str, Any]]
"""Status → what such an answer is."""

EVERYWHERE: Told = {
    code: {"model": Problem, "description": description}
    for code, description in {
        400: "The request is not what it says it is.",
        401: "The token is missing or wrong.",
        403: "A page of another site asks.",
        413: "The body, or a picture in it, is too large.",
        414: "The address is too long.",
        415: "The body is of a type that is not taken.",
        421: "The service is not called by that name.",
        422: "A part of the address is not what it should be.",
        431: "The headers are too large.",
        503: "Too much is waiting, or the disk does not do: come back after Retry-After seconds.",
    }.items()
}

UNKNOWN: Told = {404: {"model": Problem, "description": "No such head or image is known."}}

Name = Annotated[str, Path(description="Of a head, as /v1/heads gives it.", examples=[HEAD])]
Digest = Annotated[
    str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of a picture file, in hex.", examples=[DIGEST])
]
