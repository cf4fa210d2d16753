"""featstore's own cache of weights: a card (JSON) and a file of tensors for each base.

``CACHE/weights/<key>.json`` names its tensors, ``CACHE/weights/<digest>.npz`` (or ``.keras``). Reading a card takes
about a millisecond and no Keras; the tensors' digest is checked whenever they are loaded. The tensors are written
before the card, both by renaming, so a card never names a file that is half there.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from featstore.catalog import Backbone, find
from featstore.errors import DamageError, ReadOnlyError, from_os_error
from featstore.folders import cache_folder
from featstore.weights.base import Base, Layer, Tensors, tensor_digest
from featstore.weights.files import file_hash, read_npz, sweep

CARD_VERSION = 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check of one cached base found; ``problem`` is None if all is well."""

    name: str
    path: Path
    problem: str | None

    def to_json(self) -> dict[str, object]:
        """What ``weights verify --json`` prints of it."""
        return {"name": self.name, "path": str(self.path), "problem": self.problem}


def folder() -> Path:
    """Where weights are cached; it need not exist."""
    return cache_folder() / "weights"


def read_card(key: str) -> Base | None:
    """The cached base of that key, or None if there is none, or its card or its file is not as it was written."""
    path = folder() / f"{key}.json"
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        if card["version"] != CARD_VERSION:
            return None
        backbone = Backbone(**card["backbone"])
        base = Base(
            backbone=backbone if backbone.is_own else find(backbone.name),  # its facts may be newer than the card's
            origin=card["origin"],
            digest=card["digest"],
            layers=tuple(Layer(name, channels) for name, channels in card["layers"]),
            tensors=path.parent / Path(card["file"]).name,
            source=card["source"],
        )
        return base if base.tensors.stat().st_size == card["bytes"] else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write(key: str, base: Base, tensors: Tensors) -> Base:
    """Cache ``tensors`` under ``key``; the base as cached. Raises ReadOnlyError, NoSpaceError or StorageError."""
    target = folder() / f"{base.digest}.npz"
    arrays = {f"{index:04d}": np.asarray(tensor, "<f4") for index, tensor in enumerate(tensors)}
    write_file(target, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]
    return _write_card(key, replace(base, tensors=target))


def write_copy(key: str, base: Base, original: Path) -> Base:
    """Cache a copy of somebody's own model file under ``key``; errors as for :func:`write`."""
    target = folder() / f"{key}.keras"

    def copy(file: IO[bytes]) -> None:
        with original.open("rb") as source:
            shutil.copyfileobj(source, file)

    write_file(target, copy)
    return _write_card(key, replace(base, tensors=target))


def _write_card(key: str, base: Base) -> Base:
    card: dict[str, Any] = {
        "version": CARD_VERSION,
        "backbone": asdict(base.backbone),
        "origin": base.origin,
        "digest": base.digest,
        "layers": [[layer.name, layer.channels] for layer in base.layers],
        "file": base.tensors.name,
        "bytes": base.tensors.stat().st_size,
        "source": base.source,
    }
    write_file(folder() / f"{key}.json", lambda file: file.write(json.dumps(card, indent=1).encode()))
    return base


def write_file(target: Path, fill: Callable[[IO[bytes]], object]) -> None:
    """Have ``fill`` write a file, whole or not at all; raises ReadOnlyError, NoSpaceError or StorageError."""
    temporary: str | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent, ".*.tmp")
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        failure = from_os_error(error, "keep weights in the cache", target.parent)
        if isinstance(failure, ReadOnlyError):
            failure.todo = "give $XDG_CACHE_HOME a folder that you may write to"
        raise failure from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def read_tensors(base: Base) -> Tensors:
    """The tensors of a base cached as ``.npz``; raises DamageError if they are not the ones that were written."""
    problem = None
    try:
        tensors = read_npz(base.tensors)
        found = tensor_digest(tensors)
        if found != base.digest:
            problem = f"the tensors' digest is {found}"
    except (OSError, ValueError) as error:
        problem = str(error)
    if problem is not None:
        raise damaged(base, problem)
    return tensors


def damaged(base: Base, problem: str) -> DamageError:
    """The error for cached weights that are not as they were written."""
    return DamageError(
        f"the cached weights of {base.backbone.name} are damaged",
        where=base.tensors,
        expected=f"tensors with the digest {base.digest}",
        received=problem,
        todo=f"fetch them again: featstore weights pull {base.backbone.name} --weights {base.origin}"
        if not base.backbone.is_own
        else "delete the file; it is copied again from your model",
    )


def list_weights() -> tuple[Base, ...]:
    """Every base in the cache, by name."""
    cards = sorted(folder().glob("*.json")) if folder().is_dir() else []
    bases = (read_card(card.stem) for card in cards)
    return tuple(base for base in bases if base is not None)


def cached_base(spec_name: str, digest: str) -> Base | None:
    """The cached base of that architecture and those tensors, whatever it was called when it was asked for."""
    return next((base for base in list_weights() if (base.spec_name, base.digest) == (spec_name, digest)), None)


def verify_weights() -> tuple[Verdict, ...]:
    """Check every cached base: its card, and every byte of its tensors."""
    cards = sorted(folder().glob("*.json")) if folder().is_dir() else []
    verdicts = []
    for card in cards:
        base = read_card(card.stem)
        problem = problem_of(base) if base else "the card cannot be read, or its file is missing or has another size"
        verdicts.append(Verdict(card.stem, card, problem))
    return tuple(verdicts)


def problem_of(base: Base) -> str | None:
    """What is wrong with the cached tensors of a base, every byte read; None if nothing is."""
    try:
        if base.backbone.is_own:
            return None if base.tensors.stem == f"own-{file_hash(base.tensors)[:16]}" else "the model file has changed"
        read_tensors(base)
    except OSError as error:
        return str(error)
    except DamageError as error:
        return str(error.received)
    return None
