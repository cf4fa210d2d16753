"""The routes: what the service answers, and in which form. What is under ``/v1`` is JSON; nothing here reads files."""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

import featstore
from featstore.decode import thumbnail
from featstore.errors import FeatstoreError
from featstore.formats import MAX_FILE_BYTES
from featstore.online import Busy
from featstore.records import Rejected
from featstore.store import Store
from heads.service.heads import Answer, ServedHeads

PAGE = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
"""The page: path → file beside this one, and its type. It holds no data of its own."""

MAX_PICTURES = 64
"""Pictures of one request."""

_ANSWER_SECONDS = 30.0

_PICTURE_TYPES = ("application/octet-stream", "application/x-www-form-urlencoded")
"""Beside image/*: what programs say of bytes, and what curl says of any."""


class HeadSays(BaseModel):
    """What one head says of one picture."""

    head: str = Field(examples=["vgg16-avg-logreg-1a2b3c4d5e6f"])
    label: str = Field(examples=["cats"], description="The likeliest class.")
    probabilities: dict[str, float] = Field(examples=[{"cats": 0.98, "dogs": 0.02}])


class Predicted(BaseModel):
    """What all heads say of one picture; of a rejected one nothing."""

    name: str = Field(examples=["cat.jpg"])
    digest: str = Field(description="SHA-256 of the picture file, in hex.")
    rejected: str | None = Field(examples=[None, "truncated"], description="Why the picture has no features.")
    from_cache: bool = Field(description="Whether its features were known before.")
    heads: list[HeadSays]


class Predictions(BaseModel):
    """A picture after another, in the order in which they came."""

    predictions: list[Predicted]


class PictureFeatures(BaseModel):
    """The features of one picture by fingerprint of their spec."""

    name: str
    digest: str
    rejected: str | None
    from_cache: bool
    features: dict[str, list[float]]


class FeatureList(BaseModel):
    """A picture after another, in the order in which they came."""

    pictures: list[PictureFeatures]


class HeadAbout(BaseModel):
    """A head that is served."""

    name: str
    backbone: str
    head: str
    classes: list[str]
    held_out_accuracy: float | None
    test_accuracy: float | None


class HeadList(BaseModel):
    """The heads that are served, and the bundles that cannot be used."""

    heads: list[HeadAbout]
    problems: dict[str, str]


class NeighbourAbout(BaseModel):
    """A stored image that looks alike."""

    digest: str
    cosine: float = Field(description="Of both images' features, from -1 to 1.")
    folder: str | None = Field(description="The folder it was last seen in: of class folders, its label.")


class NeighbourList(BaseModel):
    """The nearest first."""

    fingerprint: str
    neighbours: list[NeighbourAbout]


_THUMBNAIL: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {}}},
    404: {"description": "The image is not where it was last seen."},
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "One picture file; or several, as a zip, or as lines of JSON with `name` and `image` (base64).",
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "application/zip": {"schema": {"type": "string", "format": "binary"}},
            "application/x-ndjson": {
                "schema": {"type": "string"},
                "example": '{"name": "cat.jpg", "image": "/9j/4AAQSkZJRg…"}\n',
            },
        },
    }
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The body is not what its type says."},
    408: {"description": "The body came too slowly."},
    413: {"description": "The body, or a picture in it, is too large."},
    415: {"description": "The body is of a type that is not taken."},
    503: {"description": "Too much is waiting: come back after Retry-After seconds."},
}


class Metrics:
    """What Prometheus may ask for."""

    def __init__(self, served: ServedHeads) -> None:
        self.registry = CollectorRegistry()
        self.pictures = Counter(
            "featstore_pictures", "Pictures answered.", ["outcome"], registry=self.registry
        )  # cached, computed, rejected
        self.busy = Counter(
            "featstore_refused", "Requests refused because too much was waiting.", registry=self.registry
        )
        self.seconds = Histogram("featstore_answer_seconds", "Seconds of an answer.", registry=self.registry)
        waiting = Gauge("featstore_waiting", "Pictures that wait for a base.", registry=self.registry)
        waiting.set_function(lambda: sum(rows.waiting for rows in served.rows.values()))

    def count(self, rejected: bool, from_cache: bool) -> None:
        """Note one picture."""
        self.pictures.labels("rejected" if rejected else "cached" if from_cache else "computed").inc()


def make_app(served: ServedHeads) -> FastAPI:
    """The application that serves these heads. They are closed when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> Any:
        yield
        await run_in_threadpool(served.close)

    app = FastAPI(
        title="featstore", version=featstore.__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        description="Features and predictions of pictures, from the cache where they are known.",
    )  # fmt: skip
    metrics = Metrics(served)

    for path, (name, kind) in PAGE.items():
        app.add_api_route(path, _sender(name, kind), include_in_schema=False)

    @app.exception_handler(FeatstoreError)
    async def explain(_: Request, error: FeatstoreError) -> JSONResponse:
        """A disk that is full, weights that cannot be had: nothing that asking differently would mend."""
        return JSONResponse({"detail": error.what}, 503, {"Retry-After": "60"})

    @app.post("/v1/predict", response_model=Predictions, responses=_PROBLEMS, openapi_extra=_BODY)
    async def predict(request: Request) -> Predictions:
        """What every head says of each picture. Equal pictures get equal answers, whoever else is asking."""
        pictures = await _pictures(request)
        with metrics.seconds.time():
            answers = await run_in_threadpool(_answers, served, pictures, metrics)
        return Predictions(predictions=[_predicted(answer) for answer in answers])

    @app.post("/v1/features", response_model=FeatureList, responses=_PROBLEMS, openapi_extra=_BODY)
    async def features(request: Request) -> FeatureList:
        """The features of each picture that the heads stand on."""
        pictures = await _pictures(request)
        return FeatureList(pictures=await run_in_threadpool(_features, served, pictures, metrics))

    @app.get("/v1/heads")
    def heads() -> HeadList:
        """The heads that are served: the newest that lie on the disk."""
        return HeadList(
            heads=[
                HeadAbout(
                    name=name,
                    backbone="+".join(origin.backbone for origin in bundle.card.origins),
                    head=bundle.card.kind,
                    classes=list(bundle.card.classes),
                    held_out_accuracy=bundle.card.held_out.accuracy.value if bundle.card.held_out else None,
                    test_accuracy=bundle.card.test.accuracy.value if bundle.card.test else None,
                )
                for name, bundle in served.bundles.items()
            ],
            problems=served.problems,
        )

    @app.get("/v1/stores")
    def stores() -> dict[str, Any]:
        """What the store holds, as `featstore store ls --json` prints it."""
        store: Store = served.store
        return {"namespaces": [namespace.summary().to_json() for namespace in store.namespaces() if namespace.exists]}

    @app.get("/v1/images/{digest}/thumbnail", response_class=Response, responses=_THUMBNAIL)
    def image_thumbnail(digest: str, size: Annotated[int, Query(ge=16, le=512)] = 160) -> Response:
        """A small JPEG of an image that lies where it was last seen."""
        try:
            _, data = served.picture(_digest(digest))
            small = thumbnail(data, size)
        except (KeyError, OSError, Rejected):
            raise HTTPException(404, "this image is not where it was last seen") from None
        return Response(small, media_type="image/jpeg")

    @app.get("/v1/neighbours/{digest}", responses={404: {"description": "No such image is known."}})
    def neighbours(
        digest: str, count: Annotated[int, Query(ge=1, le=100)] = 8, fingerprint: str | None = None
    ) -> NeighbourList:
        """The stored images that look most like a known one, by the features of the first head, or by others."""
        wanted = _digest(digest)
        by = fingerprint or next(iter(served.rows), "")
        try:
            found = served.nearest(by, wanted, count)
        except KeyError:
            raise HTTPException(404, "no such image, or no such features, are known") from None
        return NeighbourList(
            fingerprint=by,
            neighbours=[
                NeighbourAbout(digest=one.digest.hex(), cosine=one.cosine, folder=served.folder_of(one.digest))
                for one in found
            ],
        )

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        """The process lives."""
        return {"status": "ok"}

    @app.get("/readyz")
    def readyz(response: Response) -> dict[str, Any]:
        """Pictures can be answered; ``problems`` tells what is not as it should be (a store that cannot be written)."""
        problems = [rows.problem for rows in served.rows.values() if rows.problem]
        response.status_code = 200 if served.bundles else 503
        return {"status": "ok" if served.bundles else "no head", "problems": [*served.problems.values(), *problems]}

    @app.get("/metrics")
    def prometheus() -> Response:
        """Counters in the text format of Prometheus."""
        return Response(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4")

    return app


def _sender(name: str, kind: str) -> Callable[[], Response]:
    content = files("heads.service").joinpath(name).read_bytes()
    return lambda: Response(content, media_type=kind)


def _digest(text: str) -> bytes:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise HTTPException(404, "a digest has 64 hex digits")
    return bytes.fromhex(text)


def _predicted(answer: Answer) -> Predicted:
    return Predicted(
        name=answer.name,
        digest=answer.digest,
        rejected=answer.reason.code if answer.reason else None,
        from_cache=answer.from_cache,
        heads=[HeadSays(head=one.head, label=one.label, probabilities=one.probabilities) for one in answer.heads],
    )


def _answers(served: ServedHeads, pictures: list[tuple[str, bytes]], metrics: Metrics) -> list[Answer]:
    try:
        asked = [(name, served.ask(data)) for name, data in pictures]
        answers = [served.answer(name, rows, _ANSWER_SECONDS) for name, rows in asked]
    except (Busy, TimeoutError):
        metrics.busy.inc()
        raise HTTPException(503, "too many pictures are waiting", {"Retry-After": "2"}) from None
    for answer in answers:
        metrics.count(bool(answer.reason), answer.from_cache)
    return answers


def _features(served: ServedHeads, pictures: list[tuple[str, bytes]], metrics: Metrics) -> list[PictureFeatures]:
    try:
        asked = [(name, served.ask(data)) for name, data in pictures]
        found = [(name, {key: one.result(_ANSWER_SECONDS) for key, one in rows.items()}) for name, rows in asked]
    except (Busy, TimeoutError):
        metrics.busy.inc()
        raise HTTPException(503, "too many pictures are waiting", {"Retry-After": "2"}) from None
    told = []
    for name, rows in found:
        reason = next((row.reason for row in rows.values() if row.reason), None)
        cached = all(row.from_cache for row in rows.values())
        metrics.count(reason is not None, cached)
        told.append(
            PictureFeatures(
                name=name,
                digest=next(iter(rows.values())).digest.hex(),
                rejected=reason.code if reason else None,
                from_cache=cached,
                features={key: row.features.tolist() for key, row in rows.items() if row.features is not None},
            )
        )
    return told


async def _pictures(request: Request) -> list[tuple[str, bytes]]:
    """The pictures of a request, named; raises HTTPException for a body that is not what its type says."""
    kind = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    data = await request.body()
    if kind == "application/zip":
        pictures = await run_in_threadpool(lambda: list(_of_zip(data)))
    elif kind == "application/x-ndjson":
        pictures = await run_in_threadpool(lambda: list(_of_lines(data)))
    elif kind.startswith("image/") or kind in _PICTURE_TYPES:
        pictures = [("picture", data)]
    else:
        raise HTTPException(415, "send a picture, application/zip or application/x-ndjson")
    if not pictures or not data:
        raise HTTPException(400, "there is no picture in this body")
    return pictures


def _of_zip(data: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(entries) > MAX_PICTURES:
                raise HTTPException(413, f"at most {MAX_PICTURES} pictures at once")
            left = MAX_FILE_BYTES
            for entry in entries:
                with archive.open(entry) as file:
                    content = file.read(left + 1)
                left -= len(content)
                if left < 0:
                    raise HTTPException(413, f"unpacked, the pictures have more than {MAX_FILE_BYTES} bytes")
                yield entry.filename, content
    except HTTPException:
        raise
    except Exception:  # zipfile raises many kinds on damaged, encrypted and lying archives
        raise HTTPException(400, "this zip cannot be read") from None


def _of_lines(data: bytes) -> Iterator[tuple[str, bytes]]:
    lines = [line for line in data.split(b"\n") if line.strip()]
    if len(lines) > MAX_PICTURES:
        raise HTTPException(413, f"at most {MAX_PICTURES} pictures at once")
    for number, line in enumerate(lines, start=1):
        try:
            item = json.loads(line)
            yield str(item.get("name", f"line {number}")), base64.b64decode(item["image"], validate=True)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
            raise HTTPException(400, f'line {number} is not {{"name": …, "image": base64}}') from None
