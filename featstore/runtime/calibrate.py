"""Calibrating a base for int8: its graph of maps, quantised after training by NNCF by what it sees on some images.

A calibrated graph is kept as ``CACHE/calibrated/<digest>/`` under a digest of its numbers, which is part of the spec of
every row that it computes. All poolings share it: they are put on top of it when it is opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from featstore.backbone import BATCH_SIZE, GraphSpec
from featstore.errors import InputError, StorageError, from_os_error
from featstore.progress import Progress, silent
from featstore.runtime.graph import Images
from featstore.runtime.graph_files import WEIGHTS, calibrations, card_of, is_sound, write_graph
from featstore.runtime.openvino import converted
from featstore.versions import installed_versions


def require_nncf() -> None:
    """Raise InputError if NNCF is not installed."""
    if importlib.util.find_spec("nncf") is None:
        raise InputError("int8 needs NNCF, which is not installed", where="--precision int8", todo="pip install nncf")


def calibrate(graph: GraphSpec, key: str, images: Images, about: Mapping[str, Any], progress: Progress = silent) -> str:
    """Quantise the maps of ``graph`` on ``images`` uint8 (n, H, W, 3); the digest (hex) under which the result is kept.

    The same images and versions give the same digest. ``key`` and ``about`` are noted in the
    graph's card. Raises InputError if NNCF is missing, StorageError if the graph cannot be kept.
    """
    require_nncf()
    started = time.perf_counter()
    full = np.resize(images, (-(-len(images) // BATCH_SIZE) * BATCH_SIZE, *images.shape[1:]))  # the first ones again
    batches = np.split(full, len(full) // BATCH_SIZE)
    maps = converted(replace(graph, pooling="map", precision="float32", calibration=None))
    with progress(f"calibrate {graph.base.backbone.name}", len(full)) as advance:

        def seen(batch: Images) -> Images:
            advance(len(batch))
            return batch

        with _quiet():
            import nncf

            model = nncf.quantize(maps, nncf.Dataset(batches, seen), subset_size=len(batches))
    note = {
        **about,
        "key": key,
        "made": time.time(),
        "seconds": time.perf_counter() - started,
        "versions": {**installed_versions(), "nncf": nncf.__version__},
    }
    return _keep(model, key, note)


def _keep(model: Any, key: str, note: Mapping[str, Any]) -> str:
    """Under a digest of all constants of the graph, the ranges of the quantisation among them."""
    draft = calibrations() / f".tmp-draft-{secrets.token_hex(8)}"
    if not write_graph(model, draft, note):
        raise StorageError(
            "the calibrated graph cannot be kept", where=draft.parent, todo="make room there, or choose bfloat16"
        )
    digest = hashlib.sha256(f"{key} {card_of(draft)[WEIGHTS]}".encode()).hexdigest()
    target = calibrations() / digest
    try:
        if not is_sound(target):
            shutil.rmtree(target, ignore_errors=True)  # a damaged one
            os.replace(draft, target)
    except OSError as error:
        if not is_sound(target):  # else another process was first, with the very same
            raise from_os_error(error, "keep the calibrated graph", target) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return digest


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without NNCF's own progress bars and messages, which would go to stdout."""
    logger = logging.getLogger("nncf")
    before = logger.level
    with contextlib.redirect_stdout(io.StringIO()):
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(before)
