"""The heads that are served: all of them, one in full, and the map of its images."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request

from featstore.wording import printable
from heads.bundles.bundle import Bundle
from heads.service import answers
from heads.service.details import about, details
from heads.service.gallery import Places
from heads.service.heads import ServedHeads
from heads.service.routes.asking import answer_until, asker_of
from heads.service.routes.told import UNKNOWN, Name


def head_routes(served: ServedHeads) -> APIRouter:
    """``GET /v1/heads``, ``/v1/heads/NAME`` and its ``/map``."""
    routes = APIRouter()

    @routes.get("/v1/heads")
    def heads() -> answers.HeadList:
        """The heads that are served: the newest that lie on the disk."""
        return answers.HeadList(
            heads=[about(name, bundle) for name, bundle in served.bundles.items()], problems=dict(served.problems)
        )

    @routes.get("/v1/heads/{name}", responses=UNKNOWN)
    def head(request: Request, name: Name) -> answers.HeadDetails:
        """A head in full: scores with their intervals, what it confuses, how sure it may be, its worst mistakes."""
        with served.searching.one(asker_of(request), answer_until()):
            return details(name, _bundle(served, name))

    @routes.get("/v1/heads/{name}/map", responses=UNKNOWN)
    def head_map(name: Name) -> answers.FeatureMap:
        """The images of a head in the plane (t-SNE), at most 1,500; drawn when it is first asked for."""
        places = served.gallery.places(_bundle(served, name), answer_until())
        if places is None:
            raise HTTPException(404, "the store holds too few features of this head's images for a map")
        return answers.FeatureMap(head=name, total=places.total, points=_points(places))

    return routes


def _bundle(served: ServedHeads, name: str) -> Bundle:
    try:
        return served.bundles[name]
    except KeyError:
        raise HTTPException(404, "no such head is served") from None


def _points(places: Places) -> list[answers.MapPoint]:
    points = zip(places.digests, places.places.tolist(), places.labels, places.said, strict=True)
    return [
        answers.MapPoint(digest=digest.tobytes().hex(), x=x, y=y, label=printable(label), said=said and printable(said))
        for digest, (x, y), label, said in points
    ]
