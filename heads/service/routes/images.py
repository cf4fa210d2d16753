"""Stored images: what they look like, and which look alike."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request, Response

from featstore.decode import thumbnail
from featstore.records import Rejected
from featstore.wording import printable
from heads.service import answers
from heads.service.gallery import label_of, read_picture
from heads.service.heads import ServedHeads
from heads.service.routes.asking import answer_until, asker_of
from heads.service.routes.told import UNKNOWN, Digest, Told

_THUMBNAIL: Told = {
    200: {
        "content": {
            "image/jpeg": {"schema": {"type": "string", "format": "binary"}, "example": "the bytes of a JPEG file"}
        }
    },
    404: {"model": answers.Problem, "description": "The image is not where it was last seen."},
}

_Size = Annotated[int, Query(ge=16, le=512, description="Pixels of its longer side, at most.")]
_Count = Annotated[int, Query(ge=1, le=100, description="How many, at most.")]
_Head = Annotated[str | None, Query(description="A head, as /v1/heads gives it.", examples=[answers.HEAD])]


def image_routes(served: ServedHeads) -> APIRouter:
    """``GET /v1/images/DIGEST/thumbnail`` and ``/v1/neighbours/DIGEST``."""
    routes = APIRouter()

    @routes.get("/v1/images/{digest}/thumbnail", response_class=Response, responses=_THUMBNAIL)
    def image_thumbnail(request: Request, digest: Digest, size: _Size = 160) -> Response:
        """A small JPEG of an image that lies where it was last seen."""
        wanted = bytes.fromhex(digest)
        try:
            file = served.gallery.file_of(wanted)
            with served.decoding.one(asker_of(request), answer_until()):
                small = thumbnail(read_picture(file, wanted), size)
        except (KeyError, Rejected):
            raise HTTPException(404, "this image is not where it was last seen") from None
        return Response(small, media_type="image/jpeg")

    @routes.get("/v1/neighbours/{digest}", responses=UNKNOWN)
    def neighbours(request: Request, digest: Digest, count: _Count = 8, head: _Head = None) -> answers.NeighbourList:
        """The images that look most like a known one: by a head's features among those that it was fitted on, or
        without one by the first head's features among all that are stored. Of a head on several bases their features
        are compared beside one another; rows that follow from stored maps count like any other.
        """
        try:
            with served.searching.one(asker_of(request), answer_until()):
                bundle, fingerprints, found = served.nearest(head, bytes.fromhex(digest), count)
        except KeyError:
            raise HTTPException(404, "no such head, or no features of such an image, are known") from None
        return answers.NeighbourList(
            fingerprints=fingerprints,
            head=head,
            neighbours=[
                answers.NeighbourAbout(
                    digest=one.digest.hex(),
                    cosine=one.cosine,
                    label=_printable(label_of(bundle, one.digest) if bundle else None),
                    folder=_printable(served.gallery.folder_of(one.digest)),
                )
                for one in found
            ],
        )

    return routes


def _printable(text: str | None) -> str | None:
    return None if text is None else printable(text)
