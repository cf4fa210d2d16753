"""The bundles in some folders, and all that one of them says of itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featstore.errors import FeatstoreError, InputError, from_os_error
from featstore.wording import printable
from heads.bundles.bundle import CARD_FILE, FILES, Bundle, read_bundle
from heads.bundles.card import Card

USUAL_PLACES = (Path("bundles"), Path("sweep") / "bundles")
"""Where `train` and `sweep` save heads unless they are told otherwise."""


@dataclass(frozen=True, slots=True)
class Found:
    """A bundle that was found, every byte of it checked: its card, or what is wrong with it."""

    path: Path
    bytes: int
    card: Card | None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """What ``heads ls --json`` prints of it; of one with a problem the rest is null."""
        card = self.card
        measures = {"held_out": card.held_out if card else None, "test": card.test if card else None}
        return {
            "path": printable(str(self.path)),
            "bytes": self.bytes,
            "problem": self.problem,
            "backbone": printable(joined_names(card)) if card else None,
            "pooling": card.specs[0].pooling if card else None,
            "head": card.kind if card else None,
            "params": dict(card.params) if card else None,
            "classes": [printable(name) for name in card.classes] if card else None,
            "rows": card.rows if card else None,
            "chosen_on": card.chosen_on if card else None,
            **{name: found.to_json()["accuracy"] if found else None for name, found in measures.items()},
        }


def find_bundles(folders: Sequence[Path] = ()) -> tuple[Found, ...]:
    """Every bundle that is one of ``folders``, in one of them, or in its ``bundles``; by default in the usual places.

    Each is read whole. Raises InputError for a folder that is not there.
    """
    return tuple(_examined(path) for path in bundle_paths(folders))


def bundle_paths(folders: Sequence[Path] = ()) -> tuple[Path, ...]:
    """Where :func:`find_bundles` finds them, without reading one."""
    for folder in folders:
        if not folder.is_dir():
            raise InputError(
                "there is no such folder",
                where=folder,
                expected="a bundle, or a folder of bundles",
                received="a file" if folder.exists() else "nothing there",
            )
    places = folders or [place for place in USUAL_PLACES if place.is_dir()]
    try:
        return tuple(dict.fromkeys(path for place in places for path in _bundles_in(place)))
    except OSError as error:
        raise from_os_error(error, "list a folder", error.filename or "") from error


def joined_names(card: Card) -> str:
    """The bases of a head as people asked for them: ``vgg16+xception``."""
    return "+".join(origin.backbone for origin in card.origins)


def strange_files(path: Path) -> tuple[str, ...]:
    """Names in a bundle's folder that are not the bundle's. They do no harm: nothing ever opens them."""
    return tuple(sorted(entry.name for entry in path.iterdir() if entry.name not in FILES))


def describe(bundle: Bundle) -> dict[str, Any]:
    """What ``heads show --json`` prints: the card in plain JSON values, and its files."""
    card = bundle.card
    return {
        "path": printable(str(bundle.path)),
        "files": {name: (bundle.path / name).stat().st_size for name in FILES},
        "strange_files": [printable(name) for name in strange_files(bundle.path)],
        "head": card.kind,
        "format": bundle.head.format,
        "params": dict(card.params),
        "seed": card.seed,
        "balanced": card.balanced,
        "features": [
            {
                "backbone": printable(origin.backbone),
                "weights": printable(origin.weights),
                "width": width,
                "fingerprint": spec.fingerprint,
                "spec": json.loads(spec.to_json()),
            }
            for spec, origin, width in zip(card.specs, card.origins, card.widths, strict=True)
        ],
        "classes": [printable(name) for name in card.classes],
        "calibration": {"method": card.calibration.method, "factor": card.calibration.factor},
        "clip": card.clip,
        "chosen_on": card.chosen_on,
        "trials": [{"params": dict(trial.params), "score": trial.score.to_json()} for trial in card.trials],
        "held_out": _metrics(card.held_out.to_json()),
        "test": _metrics(card.test.to_json()) if card.test else None,
        "trained_on": {
            "splits": list(card.fitted_on),
            "rows": card.rows,
            "views": card.views,
            "augmentation": card.augmentation,
            "sha256": card.rows_digest,
            "segments": len(card.snapshot),
        },
        "versions": dict(card.versions),
    }


def _metrics(found: dict[str, Any]) -> dict[str, Any]:
    per_class = [{**entry, "name": printable(entry["name"])} for entry in found["per_class"]]
    return {**found, "per_class": per_class}


def _bundles_in(place: Path) -> Iterator[Path]:
    if (place / CARD_FILE).is_file():
        yield place
        return
    for pattern in (f"*/{CARD_FILE}", f"bundles/*/{CARD_FILE}"):
        found = (card.parent for card in place.glob(pattern) if not card.parent.name.startswith("."))
        yield from sorted(found)


def _examined(path: Path) -> Found:
    try:
        size = sum((path / name).stat().st_size for name in FILES if (path / name).is_file())
        return Found(path, size, read_bundle(path).card)
    except FeatstoreError as error:
        return Found(path, size, None, error.what)
