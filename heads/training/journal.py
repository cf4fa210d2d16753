"""A journal of choices: an interrupted comparison goes on where it stopped.

A choice is a pure function of the rows, the kind's grid and the options, so it is kept under a digest of all of these.
The files are derived data: one that is missing, damaged or of an older form is simply computed again.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from featstore.table import StoredRows, Table
from featstore.whole import write_whole
from heads.evaluation.scores import Score, Trial
from heads.kinds.head import params_from_json
from heads.kinds.problem import Curve, HeadKind
from heads.training.choice import Choice

_VERSION = 2
"""Rises when an older choice must not be used again."""


class Journal:
    """Choices by key in a folder; ``folder`` None keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def read(self, key: str) -> Choice | None:
        """The choice kept under ``key``; None if there is none that can be used."""
        if self._folder is None:
            return None
        try:
            data = io.BytesIO((self._folder / f"{key}.npz").read_bytes())
            with np.load(data, allow_pickle=False) as arrays:
                return _choice({name: arrays[name] for name in arrays.files})
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None

    def write(self, key: str, choice: Choice) -> None:
        """Keep a choice, all of it or nothing. Raises ReadOnlyError, NoSpaceError or StorageError."""
        if self._folder is None:
            return
        target = self._folder / f"{key}.npz"
        write_whole(target, "keep a choice", lambda file: np.savez(file, **_arrays(choice)))


def key_of(kind: HeadKind, train: Table, validation: Table | None, *, balanced: bool, seed: int) -> str:
    """SHA-256 (hex) over everything that a choice depends on: rows, labels, specs, the grid, the options."""
    tables = [train] if validation is None else [train, validation]
    words = {
        "version": _VERSION,
        "kind": kind.name,
        "grid": [dict(params) for params in kind.grid],
        "balanced": balanced,
        "seed": seed,
        "specs": [spec.fingerprint for spec in train.specs],
        "classes": [name.encode("utf-8", "surrogateescape").hex() for name in train.classes],
        "augmentation": train.augmentation,
        "views": hashlib.sha256(train.views.tobytes()).hexdigest(),
        "rows": [hashlib.sha256(table.digests.tobytes() + table.y.tobytes()).hexdigest() for table in tables],
    }
    if isinstance(train.X, StoredRows):  # fitted otherwise, and so not quite the same
        words["stored"] = True
    return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()


def _arrays(choice: Choice) -> Mapping[str, Any]:
    rest = {
        "kind": choice.kind,
        "trials": [{"params": dict(trial.params), "score": trial.score.to_json()} for trial in choice.trials],
        "best": choice.best,
        "on": choice.on,
        "curve": asdict(choice.curve) if choice.curve else None,
        "seconds": choice.seconds,
    }
    text = np.frombuffer(json.dumps(rest).encode(), np.uint8)
    arrays = {name: getattr(choice, name) for name in ("logits", "columns", "rows", "labels")}
    return {"rest": text, **arrays}


def _choice(arrays: Mapping[str, Any]) -> Choice:
    rest = json.loads(arrays["rest"].tobytes())
    curve = rest["curve"]
    return Choice(
        kind=rest["kind"],
        trials=tuple(Trial(params_from_json(t["params"]), Score.from_json(t["score"])) for t in rest["trials"]),
        best=rest["best"],
        on=rest["on"],
        curve=Curve(**{name: tuple(values) for name, values in curve.items()}) if curve else None,
        seconds=rest["seconds"],
        **{name: arrays[name] for name in ("logits", "columns", "rows", "labels")},
    )
