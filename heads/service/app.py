"""The routes: what may be asked, and what is answered. What is under ``/v1`` is JSON or a picture."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

import featstore
from featstore.decode import thumbnail
from featstore.errors import FeatstoreError
from featstore.online import Busy, Row
from featstore.records import Rejected
from featstore.wording import printable
from heads.bundles.bundle import Bundle
from heads.service import answers
from heads.service.bodies import BODY, pictures_of
from heads.service.details import about, details
from heads.service.gallery import label_of
from heads.service.heads import Answer, ServedHeads
from heads.service.metrics import Metrics

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}

PAGE = {
    "/" if name == "index.html" else f"/{name}": f"page/{name}"
    for name in ("index.html", "page.css", "page.js", "ask.js", "pictures.js", "heads.js", "map.js", "store.js")
}
"""The page: path → file below this folder. It holds no data of its own."""

_ANSWER_SECONDS = 30.0

_DIGEST = "^[0-9a-f]{64}$"

_Told = dict[int | str, dict[str, Any]]

_EVERYWHERE: _Told = {
    code: {"model": answers.Problem, "description": description}
    for code, description in {
        400: "The request is not what it says it is.",
        401: "The token is missing or wrong.",
        403: "A page of another site asks.",
        413: "The body, or a picture in it, is too large.",
        415: "The body is of a type that is not taken.",
        421: "The service is not called by that name.",
        422: "A part of the address is not what it should be.",
        431: "The headers are too large.",
        503: "Too much is waiting, or the disk does not do: come back after Retry-After seconds.",
    }.items()
}
_SLOW: _Told = {408: {"model": answers.Problem, "description": "The body came too slowly."}}
_UNKNOWN: _Told = {404: {"model": answers.Problem, "description": "No such head or image is known."}}
_THUMBNAIL: _Told = {
    200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
    404: {"model": answers.Problem, "description": "The image is not where it was last seen."},
}
_TEXT: _Told = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
_NOT_READY: _Told = {503: {"model": answers.Status, "description": "No picture can be answered."}}

_Name = Annotated[str, InPath(description="Of a head, as /v1/heads gives it.")]
_Digest = Annotated[str, InPath(pattern=_DIGEST, description="SHA-256 of a picture file, in hex.")]


def make_app(served: ServedHeads) -> FastAPI:
    """The application that serves these heads. They are closed when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> Any:
        yield
        await run_in_threadpool(served.close)

    app = FastAPI(
        title="featstore", version=featstore.__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        description="Features and predictions of pictures, from the cache where they are known.", responses=_EVERYWHERE,
    )  # fmt: skip
    metrics = Metrics(served)
    for path, name in PAGE.items():
        app.add_api_route(path, _sender(name), include_in_schema=False)

    @app.exception_handler(FeatstoreError)
    async def explain(_: Request, error: FeatstoreError) -> JSONResponse:
        """A disk that is full, weights that cannot be had: nothing that asking differently would mend."""
        return JSONResponse({"detail": printable(error.what)}, 503, {"Retry-After": "60"})

    @app.exception_handler(RequestValidationError)
    async def correct(_: Request, error: RequestValidationError) -> JSONResponse:
        """In one sentence, as every other refusal."""
        told = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
        return JSONResponse({"detail": printable("; ".join(told))}, 422)

    @app.exception_handler(Busy)
    async def put_off(_: Request, __: Busy) -> JSONResponse:
        metrics.busy.inc()
        return JSONResponse({"detail": "too much is waiting"}, 503, {"Retry-After": "2"})

    @app.post("/v1/predict", responses=_SLOW, openapi_extra=BODY)
    async def predict(request: Request) -> answers.Predictions:
        """What every head says of each picture. Equal pictures get equal answers, whoever else is asking."""
        pictures = await pictures_of(request)
        with metrics.seconds.time():
            found = await run_in_threadpool(_answers, served, pictures, metrics)
        return answers.Predictions(predictions=[_predicted(answer) for answer in found])

    @app.post("/v1/features", responses=_SLOW, openapi_extra=BODY)
    async def features(request: Request) -> answers.FeatureList:
        """The features of each picture that the heads stand on."""
        pictures = await pictures_of(request)
        return answers.FeatureList(pictures=await run_in_threadpool(_features, served, pictures, metrics))

    @app.get("/v1/heads")
    def heads() -> answers.HeadList:
        """The heads that are served: the newest that lie on the disk."""
        return answers.HeadList(
            heads=[about(name, bundle) for name, bundle in served.bundles.items()], problems=served.problems
        )

    @app.get("/v1/heads/{name}", responses=_UNKNOWN)
    def head(name: _Name) -> answers.HeadDetails:
        """A head in full: scores with their intervals, what it confuses, how sure it may be, its worst mistakes."""
        return details(name, _bundle(served, name))

    @app.get("/v1/heads/{name}/map", responses=_UNKNOWN)
    def head_map(name: _Name) -> answers.FeatureMap:
        """The images of a head in the plane (t-SNE), at most 1,500; drawn when it is first asked for."""
        places = served.gallery.places(_bundle(served, name))
        if places is None:
            raise HTTPException(404, "the store holds too few features of this head's images for a map")
        points = zip(places.digests, places.places.tolist(), places.labels, places.said, strict=True)
        return answers.FeatureMap(
            head=name,
            total=places.total,
            points=[
                answers.MapPoint(
                    digest=digest.tobytes().hex(), x=x, y=y, label=printable(label), said=said and printable(said)
                )
                for digest, (x, y), label, said in points
            ],
        )

    @app.get("/v1/stores")
    def stores() -> answers.StoreAbout:
        """What the store holds, and how often it helped since this service began."""
        summaries = [namespace.summary() for namespace in served.store.namespaces() if namespace.exists]
        return answers.StoreAbout(
            namespaces=[summary.to_json() for summary in summaries], answered=answers.Answered(**metrics.answered)
        )

    @app.get("/v1/images/{digest}/thumbnail", response_class=Response, responses=_THUMBNAIL)
    def image_thumbnail(digest: _Digest, size: Annotated[int, Query(ge=16, le=512)] = 160) -> Response:
        """A small JPEG of an image that lies where it was last seen."""
        try:
            small = thumbnail(served.gallery.picture(bytes.fromhex(digest)), size)
        except (KeyError, OSError, Rejected):
            raise HTTPException(404, "this image is not where it was last seen") from None
        return Response(small, media_type="image/jpeg")

    @app.get("/v1/neighbours/{digest}", responses=_UNKNOWN)
    def neighbours(
        digest: _Digest, count: Annotated[int, Query(ge=1, le=100)] = 8, head: str | None = None
    ) -> answers.NeighbourList:
        """The images that look most like a known one: by a head's features among those that it was fitted on, or
        without one by the first head's features among all that are stored.
        """
        try:
            fingerprint, found = served.nearest(head, bytes.fromhex(digest), count)
        except KeyError:
            raise HTTPException(404, "no such head, or no features of such an image, are known") from None
        bundle = served.bundles.get(head) if head is not None else None
        return answers.NeighbourList(
            fingerprint=fingerprint,
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

    @app.get("/healthz")
    async def healthz() -> answers.Status:
        """The process lives."""
        return answers.Status(status="ok", problems=[])

    @app.get("/readyz", responses=_NOT_READY)
    async def readyz(response: Response) -> answers.Status:
        """Pictures can be answered; ``problems`` tells what is not as it should be (a store that cannot be written)."""
        problems = [printable(rows.problem) for rows in served.rows.values() if rows.problem]
        response.status_code = 200 if served.is_ready else 503
        return answers.Status(
            status="ok" if served.is_ready else "no head", problems=[*served.problems.values(), *problems]
        )

    @app.get("/metrics", response_class=Response, responses=_TEXT)
    def prometheus() -> Response:
        """Counters in the text format of Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    return app


def _sender(name: str) -> Callable[[], Response]:
    content = files("heads.service").joinpath(name).read_bytes()
    kind = f"{_TYPES[name.rpartition('.')[2]]}; charset=utf-8"
    return lambda: Response(content, media_type=kind)


def _bundle(served: ServedHeads, name: str) -> Bundle:
    try:
        return served.bundles[name]
    except KeyError:
        raise HTTPException(404, "no such head is served") from None


def _printable(text: str | None) -> str | None:
    return None if text is None else printable(text)


def _predicted(answer: Answer) -> answers.Predicted:
    return answers.Predicted(
        name=answer.name,
        digest=answer.digest,
        rejected=answer.reason.code if answer.reason else None,
        from_cache=answer.from_cache,
        heads=[
            answers.HeadSays(head=one.head, label=one.label, probabilities=one.probabilities) for one in answer.heads
        ],
    )


def _answers(served: ServedHeads, pictures: list[tuple[str, bytes]], metrics: Metrics) -> list[Answer]:
    try:
        deadline = time.monotonic() + _ANSWER_SECONDS
        asked = [(name, served.ask(data)) for name, data in pictures]
        found = [served.answer(name, rows, deadline - time.monotonic()) for name, rows in asked]
    except TimeoutError:
        raise Busy from None
    for answer in found:
        metrics.count(rejected=bool(answer.reason), from_cache=answer.from_cache)
    return found


def _features(
    served: ServedHeads, pictures: list[tuple[str, bytes]], metrics: Metrics
) -> list[answers.PictureFeatures]:
    try:
        deadline = time.monotonic() + _ANSWER_SECONDS
        asked = [(name, served.ask(data)) for name, data in pictures]
        found = [
            (name, {key: one.result(max(0.0, deadline - time.monotonic())) for key, one in rows.items()})
            for name, rows in asked
        ]
    except TimeoutError:
        raise Busy from None
    return [_features_of(name, rows, metrics) for name, rows in found]


def _features_of(name: str, rows: dict[str, Row], metrics: Metrics) -> answers.PictureFeatures:
    reason = next((row.reason for row in rows.values() if row.reason), None)
    cached = all(row.from_cache for row in rows.values())
    metrics.count(rejected=reason is not None, from_cache=cached)
    return answers.PictureFeatures(
        name=name,
        digest=next(iter(rows.values())).digest.hex(),
        rejected=reason.code if reason else None,
        from_cache=cached,
        features={key: row.features.tolist() for key, row in rows.items() if row.features is not None},
    )
