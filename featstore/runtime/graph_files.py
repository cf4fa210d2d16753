"""OpenVINO graphs in the cache: a folder each, with a card that holds the hash of every file.

They are derived data: one that is missing or damaged is made again. OpenVINO is loaded once one is read or written.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featstore import telemetry
from featstore.folders import cache_folder
from featstore.weights.files import file_hash, sweep

if TYPE_CHECKING:
    import openvino

GRAPH, WEIGHTS, _CARD = "graph.xml", "graph.bin", "graph.json"


def calibrations() -> Path:
    """The folder of calibrated graphs, each in a folder named by its digest."""
    return cache_folder() / "calibrated"


def card_of(folder: Path) -> Mapping[str, Any]:
    """What was noted of the graph in ``folder``; empty if nothing can be read there."""
    try:
        card = json.loads((folder / _CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def is_sound(folder: Path) -> bool:
    """Whether there is a graph in ``folder``, and every byte of it is as it was written."""
    card = card_of(folder)
    try:
        return all(file_hash(folder / name) == card.get(name) for name in (GRAPH, WEIGHTS))
    except OSError:
        return False


def read_graph(folder: Path) -> openvino.Model | None:
    """The graph in ``folder``, or None if it is not there or not as it was written."""
    if not is_sound(folder):
        return None
    try:
        return _openvino().Core().read_model(folder / GRAPH)
    except RuntimeError:
        return None


def write_graph(model: openvino.Model, folder: Path, about: Mapping[str, Any]) -> bool:
    """Keep the graph, with what is to be noted ``about`` it, for the next time; whether that was possible."""
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent, ".tmp-*")
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".tmp-"))
        _openvino().save_model(model, temporary / GRAPH, compress_to_fp16=False)
        card = {**about, **{name: file_hash(temporary / name) for name in (GRAPH, WEIGHTS)}}
        (temporary / _CARD).write_text(json.dumps(card, indent=1), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one
        os.replace(temporary, folder)
        return True
    except (OSError, RuntimeError):  # read-only, full, or another process was first: the graph in hand is as good
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        return False


def _openvino() -> Any:
    telemetry.forbid()
    import openvino

    return openvino
