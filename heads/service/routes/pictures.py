"""Pictures that are sent: what the heads say of them, and their features."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from featstore.online import Busy, Row
from featstore.records import Reason
from heads.service import answers
from heads.service.bodies import BODY, pictures_of
from heads.service.heads import Moment, ServedHeads
from heads.service.metrics import Metrics
from heads.service.routes.asking import answer_until, asker_of
from heads.service.routes.told import Told

_SLOW: Told = {408: {"model": answers.Problem, "description": "The body came too slowly."}}

_Pictures = Iterator[tuple[str, bytes]]
_Known = tuple[str, dict[str, Row]]
"""A picture's name, and its rows by fingerprint."""


def picture_routes(served: ServedHeads, metrics: Metrics) -> APIRouter:
    """``POST /v1/predict`` and ``/v1/features``."""
    routes = APIRouter()

    @routes.post("/v1/predict", response_model=answers.Predictions, responses=_SLOW, openapi_extra=BODY)
    async def predict(request: Request) -> Response:
        """What every head says of each picture. Equal pictures get equal answers, whoever else is asking."""

        def answer(pictures: _Pictures) -> Response:
            now = served.now
            with metrics.seconds.time():
                known = _rows(now, pictures, request)
                said = iter(now.say([rows for _, rows in known if not _reason(rows)]))
                return _written("predictions", (_predicted(name, rows, said, metrics) for name, rows in known))

        return await run_in_threadpool(answer, await pictures_of(request))

    @routes.post("/v1/features", response_model=answers.FeatureList, responses=_SLOW, openapi_extra=BODY)
    async def features(request: Request) -> Response:
        """The features of each picture that the heads stand on."""

        def answer(pictures: _Pictures) -> Response:
            return _written("pictures", (_features(*one, metrics) for one in _rows(served.now, pictures, request)))

        return await run_in_threadpool(answer, await pictures_of(request))

    return routes


def _rows(now: Moment, pictures: _Pictures, request: Request) -> list[_Known]:
    """The rows of all pictures, once they are there; asked for in the name of the client's address. Raises Busy."""
    deadline = answer_until()
    asked = [(name, now.ask(data, asker_of(request), deadline)) for name, data in pictures]
    try:
        return [
            (name, {key: one.result(max(0.0, deadline - time.monotonic())) for key, one in rows.items()})
            for name, rows in asked
        ]
    except TimeoutError:
        raise Busy from None


def _predicted(
    name: str, rows: dict[str, Row], said: Iterator[list[answers.HeadSays]], metrics: Metrics
) -> answers.Predicted:
    """With what is ``said`` next, of pictures that have features."""
    return answers.Predicted(**_about(name, rows, metrics), heads=[] if _reason(rows) else next(said))


def _features(name: str, rows: dict[str, Row], metrics: Metrics) -> answers.PictureFeatures:
    values = {key: row.features.tolist() for key, row in rows.items() if row.features is not None}
    return answers.PictureFeatures(**_about(name, rows, metrics), features=values)


def _reason(rows: dict[str, Row]) -> Reason:
    """Why there are no features of a picture; OK if there are."""
    return next((row.reason for row in rows.values() if row.reason), Reason.OK)


def _about(name: str, rows: dict[str, Row], metrics: Metrics) -> dict[str, Any]:
    """What is told of every picture; it is counted, too."""
    reason = _reason(rows)
    from_cache = all(row.from_cache for row in rows.values())
    metrics.count(rejected=bool(reason), from_cache=from_cache)
    return {
        "name": name,
        "digest": next(iter(rows.values())).digest.hex(),
        "rejected": reason.code if reason else None,
        "from_cache": from_cache,
    }


def _written(key: str, pictures: Iterable[answers.Picture]) -> Response:
    """``{key: [picture, …]}``, for a thread: written picture by picture, as while one is written nothing else runs."""
    body = b",".join(picture.model_dump_json().encode() for picture in pictures)
    return Response(b'{"%b":[%b]}' % (key.encode(), body), media_type="application/json")
