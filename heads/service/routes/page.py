"""The page: files that lie beside this package, sent as they are."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files

from fastapi import APIRouter, Response

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}

PAGE = {
    "/" if name == "index.html" else f"/{name}": f"page/{name}"
    for name in ("index.html", "page.css", "page.js", "ask.js", "pictures.js", "heads.js", "map.js", "store.js")
}
"""Path → file below heads/service. They hold no data."""


def page_routes() -> APIRouter:
    """``GET /`` and what the page loads."""
    routes = APIRouter(include_in_schema=False)
    for path, name in PAGE.items():
        routes.add_api_route(path, _sender(name))
    return routes


def _sender(name: str) -> Callable[[], Response]:
    content = files("heads.service").joinpath(name).read_bytes()
    kind = f"{_TYPES[name.rpartition('.')[2]]}; charset=utf-8"
    return lambda: Response(content, media_type=kind)
