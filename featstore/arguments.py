"""From what was typed to what the functions take, and results to stdout: shared by every command."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console

import featstore
from featstore import show
from featstore.folders import default_store
from featstore.options import DatasetFlags, GraphFlags, ViewFlags
from featstore.progress import for_stream


def requests(backbones: list[str], flags: GraphFlags, views: ViewFlags | None = None) -> list[featstore.Request]:
    """A request for each backbone, all with the same flags."""
    from featstore.job import parse_image_size

    given = {**vars(flags), "image_size": parse_image_size(flags.image_size), **(vars(views) if views else {})}
    return [featstore.Request(backbone=name, **given) for name in backbones]


def open_data(data: str, flags: DatasetFlags) -> featstore.Dataset:
    """The dataset at ``data``."""
    return featstore.open_dataset(data, featstore.DatasetOptions(**vars(flags)))


def open_store(path: str | None) -> featstore.Store:
    """The store at ``path``, a folder or a URL; by default the user's."""
    return featstore.Store.open(path or default_store(), progress=for_stream())


def results(as_json: bool) -> Console:
    """Where a table goes that is the result: stdout, unless that is for JSON alone."""
    return show.console(stderr=as_json)


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    print(json.dumps(value, indent=2))
