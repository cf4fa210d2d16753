"""The command that serves heads over HTTP: words → calls. No logic lives here."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from featstore.arguments import open_store
from featstore.command import Group
from featstore.errors import InputError
from featstore.options import StorePath

app = typer.Typer(cls=Group)


@app.command()
def serve(
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[BUNDLE…]", help="Bundles or folders of them (default: ./bundles, ./sweep/bundles)."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Any but this machine's own needs $FEATSTORE_TOKEN.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8080,
    store: StorePath = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Use new features and forget them: write nothing to the store.")
    ] = False,
) -> None:
    """Answer pictures over HTTP with trained heads: known ones from the store, new ones by one shared forward pass.

    POST a picture to /v1/predict. A bundle that is replaced or added is served within a second. Ends on Ctrl-C or
    SIGTERM, once everything that was asked is answered. The reference is at /openapi.json.

    Examples:
      featstore serve

      curl --data-binary @cat.jpg http://127.0.0.1:8080/v1/predict
    """
    for package in ("fastapi", "uvicorn", "prometheus_client"):
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"serving needs {package}, which is not installed",
                where="featstore serve",
                todo="pip install fastapi uvicorn prometheus-client",
            )
    from heads.service.run import serve_heads

    serve_heads(bundles or (), open_store(store), host, port, keep=not no_cache)
