"""How the service is: what its store holds, what it has counted, and whether it can answer."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from featstore.wording import counted, printable
from heads.service import answers
from heads.service.heads import ServedHeads
from heads.service.metrics import Metrics
from heads.service.renewed import Renewed
from heads.service.routes.asking import answer_until, asker_of
from heads.service.routes.told import Told

_NOT_READY: Told = {503: {"model": answers.Status, "description": "No picture can be answered."}}
_TEXT: Told = {
    200: {
        "content": {
            "text/plain": {
                "schema": {"type": "string"},
                "example": 'featstore_pictures_total{outcome="cached"} 97.0\nfeatstore_waiting 0.0\n',
            }
        }
    }
}


def state_routes(served: ServedHeads, metrics: Metrics) -> APIRouter:
    """``GET /v1/stores`` and ``/metrics``."""
    routes = APIRouter()
    held: Renewed[list[dict[str, Any]]] = Renewed(
        lambda _: [namespace.summary().to_json() for namespace in served.store.namespaces() if namespace.exists], 1.0
    )

    @routes.get("/v1/stores")
    def stores(request: Request) -> answers.StoreAbout:
        """What the store holds, a second ago at most, and how often it helped since this service began."""
        with served.searching.one(asker_of(request), answer_until()):
            return answers.StoreAbout(namespaces=held.get(), answered=answers.Answered(**metrics.answered))

    @routes.get("/metrics", response_class=Response, responses=_TEXT)
    def prometheus() -> Response:
        """Counters in the text format of Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    return routes


def probe_routes(served: ServedHeads) -> APIRouter:
    """``GET /healthz`` and ``/readyz``, which anybody may ask."""
    routes = APIRouter()

    @routes.get("/healthz")
    async def healthz() -> answers.Status:
        """The process lives."""
        return answers.Status(status="ok", problems=[])

    @routes.get("/readyz", responses=_NOT_READY)
    async def readyz(request: Request, response: Response) -> answers.Status:
        """Pictures can be answered; ``problems`` tells what is not as it should be (a store that cannot be written), or
        without the token how many problems there are.
        """
        problems = [printable(rows.problem) for rows in served.rows.values() if rows.problem]
        problems += served.problems.values()
        if problems and not request.state.is_trusted:
            problems = [f"{counted(len(problems), 'problem')}; with the token more is told"]
        response.status_code = 200 if served.is_ready else 503
        return answers.Status(status="ok" if served.is_ready else "no head", problems=problems)

    return routes
