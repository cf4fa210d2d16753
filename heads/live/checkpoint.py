"""Checkpoints of live training: the state and all arrays in one ``.npz`` file, replaced whole after every epoch."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.whole import write_whole

Arrays = Mapping[str, npt.NDArray[Any]]
"""Arrays by name; those of one group are called ``group_0``, ``group_1``, …"""


@dataclass(slots=True)
class State:
    """What a checkpoint holds beside the weights. ``epoch`` counts the epochs done, in all stages together."""

    stage: int = 0
    epoch: int = 0
    epochs_of_stage: int = 0
    best_loss: float | None = None
    curve: list[tuple[float, float, float, float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def group(arrays: Arrays, name: str) -> list[npt.NDArray[Any]]:
    """The arrays of one group, in order."""
    count = sum(key.rpartition("_")[0] == name for key in arrays)
    return [arrays[f"{name}_{i}"] for i in range(count)]


def read_checkpoint(path: Path | None, key: str) -> tuple[State, Arrays | None]:
    """The state and arrays of a checkpoint; a fresh state where there is none that can be gone on from."""
    if path is None:
        return State(), None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        rest = json.loads(arrays.pop("state").tobytes())
        if rest.pop("key") != key:
            return State(), None
        rest["curve"] = [tuple(row) for row in rest["curve"]]
        return State(**rest), arrays
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return State(), None


def write_checkpoint(path: Path, key: str, state: State, arrays: Arrays) -> None:
    """Put a checkpoint in the place of the one before, all of it or nothing."""
    text = np.frombuffer(json.dumps({"key": key, **asdict(state)}).encode(), np.uint8)
    write_whole(path, "keep a checkpoint", lambda file: np.savez(file, allow_pickle=False, state=text, **arrays))
