"""What this machine will use, and what would make it faster."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from featstore import machine
from featstore.folders import cache_folder, is_offline
from featstore.store import Store
from featstore.versions import installed_versions
from featstore.weights import list_weights

_ROOM = 2 * 2**30
"""Bytes below which a store is worth a warning: VGG16 maps of 20,000 photographs."""


@dataclass(frozen=True, slots=True)
class Examination:
    """``facts``: name → what is so. ``advice``: what would make runs faster or possible."""

    facts: Mapping[str, str]
    advice: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The object that ``featstore doctor --json`` prints."""
        return {"facts": dict(self.facts), "advice": list(self.advice)}


def examine(store: Store) -> Examination:
    """Look at the CPU, GPUs, runtimes, weights and the place of the store; loads no network library."""
    about = machine.describe()
    runtime = machine.choose_runtime()
    free = _free_bytes(store.path)
    weights = [f"{base.backbone.name} ({base.origin})" for base in list_weights()]
    facts = {
        "CPU": f"{about.cpu}, {about.cores} cores, {', '.join(about.flags) or 'no vector flags known'}",
        "memory": f"{about.memory / 2**30:.1f} GiB" if about.memory else "unknown",
        "GPU": ", ".join(about.gpus) or "none",
        "runtimes": ", ".join(about.runtimes),
        "will run on": f"{runtime}, {machine.fastest_safe_precision(runtime)}",
        "versions": ", ".join(f"{name} {number}" for name, number in installed_versions().items()),
        "weights here": ", ".join(weights) or "none yet",
        "weights cache": str(cache_folder() / "weights"),
        "network": "forbidden by $FEATSTORE_OFFLINE" if is_offline() else "allowed for weights",
        "store": f"{store.location} ({'there' if store.exists else 'not made yet'}), {free / 2**30:.1f} GiB free"
        + ("" if store.location == str(store.path) else f" here, for copies in {store.path}"),
    }
    return Examination(facts, tuple(_advice(about, runtime, free, bool(weights))))


def _advice(about: machine.Machine, runtime: str, free: int, has_weights: bool) -> list[str]:
    advice = []
    if "openvino" not in about.runtimes and not about.gpus:
        advice.append("pip install openvino: on CPUs it runs the same bases up to twice as fast as TensorFlow")
    if machine.fastest_safe_precision(runtime) == "float32":
        advice.append("a CPU with AVX512_BF16 or AMX (or a GPU) would run in half precision, about twice as fast")
    if about.gpus and runtime != "tensorflow":
        advice.append("pip install 'tensorflow[and-cuda]' to use the GPU")
    if len(about.gpus) > 1 and runtime == "tensorflow":
        advice.append("featstore extract --devices all computes on every GPU")
    if not has_weights:
        advice.append("featstore weights pull vgg16 xception fetches weights now, so that later runs need no network")
    if find_spec("pyarrow") is None:
        advice.append("pip install pyarrow, to export Parquet files")
    if free < _ROOM:
        advice.append("the store's disk is nearly full: choose another place with --store or $FEATSTORE_HOME")
    if (os.cpu_count() or 1) > about.cores:
        advice.append(f"this process may use {about.cores} of {os.cpu_count()} cores: an affinity mask limits it")
    return advice


def _free_bytes(path: Path) -> int:
    """Free bytes where ``path`` is, or would be."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return shutil.disk_usage(there).free
