"""The application: all routes, and what is answered when something is in the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool

import featstore
from featstore.errors import FeatstoreError
from featstore.online import Busy
from featstore.wording import printable
from heads.service.heads import ServedHeads
from heads.service.limits import CONNECTIONS
from heads.service.metrics import Metrics
from heads.service.routes.heads import head_routes
from heads.service.routes.images import image_routes
from heads.service.routes.page import page_routes
from heads.service.routes.pictures import picture_routes
from heads.service.routes.state import probe_routes, state_routes
from heads.service.routes.told import EVERYWHERE


def make_app(served: ServedHeads, *, needs_token: bool = False) -> FastAPI:
    """The application that serves these heads. They are closed when it ends.

    needs_token : say so in the reference; it is asked for in front of the application.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = CONNECTIONS  # no request waits for a thread
        yield
        await run_in_threadpool(served.close)

    app = FastAPI(
        title="featstore", version=featstore.__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        description="Features and predictions of pictures, from the cache where they are known.", responses=EVERYWHERE,
        redirect_slashes=False,  # behind a proxy it would lead to an address of its own
    )  # fmt: skip
    metrics = Metrics(served)
    bearer = HTTPBearer(scheme_name="token", description="The one in $FEATSTORE_TOKEN.", auto_error=False)
    for routes in (
        picture_routes(served, metrics),
        head_routes(served),
        image_routes(served),
        state_routes(served, metrics),
    ):
        app.include_router(routes, dependencies=[Depends(bearer)] if needs_token else [])
    app.include_router(probe_routes(served))
    app.include_router(page_routes())
    _explain_errors(app, metrics)
    return app


def _explain_errors(app: FastAPI, metrics: Metrics) -> None:
    """Every refusal is one sentence, as JSON."""

    @app.exception_handler(FeatstoreError)
    async def explain(_: Request, error: FeatstoreError) -> JSONResponse:
        """A disk that is full, weights that cannot be had: nothing that asking differently would mend."""
        return JSONResponse({"detail": printable(error.what)}, 503, {"Retry-After": "60"})

    @app.exception_handler(RequestValidationError)
    async def correct(_: Request, error: RequestValidationError) -> JSONResponse:
        told = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
        return JSONResponse({"detail": printable("; ".join(told))}, 422)

    @app.exception_handler(Busy)
    async def put_off(_: Request, __: Busy) -> JSONResponse:
        metrics.busy.inc()
        return JSONResponse({"detail": "too much is waiting"}, 503, {"Retry-After": "2"})
