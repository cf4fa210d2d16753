"""The card of a bundle: what a person, and a later featstore, must know about a head. Written and read as JSON.

The text is canonical (sorted keys, ASCII), its ``sha256`` field is the digest of the text without that field, and a
card must equal, byte for byte, what is written here for its content: so a change of any byte is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featstore.errors import DamageError, InputError
from featstore.records import Digests
from featstore.spec import Spec
from heads.evaluation.calibration import Calibration
from heads.evaluation.metrics import Metrics
from heads.evaluation.scores import Score, Trial
from heads.kinds.head import Params, params_from_json

BUNDLE_FORMAT = "featstore bundle"
RETRAIN = "train the head again: on cached features that takes seconds"

BUNDLE_VERSION = 3
"""Rises when a bundle can no longer be read by what reads the version before."""

MOST_PARTS = 500_000
_MOST_LETTERS = 4096  # in a path, as Linux has it
"""The most brackets, braces and quotes in a card: what they hold takes far more memory than text. A card of 1,000
classes has 50,000; nearly all of it is numbers."""


@dataclass(frozen=True, slots=True)
class Origin:
    """How to ask for the base again, in the words of the command line: ``--backbone`` and ``--weights``."""

    backbone: str
    weights: str = "imagenet"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Another file of the bundle: its SHA-256 (hex), and its size in bytes."""

    sha256: str
    size: int

    @classmethod
    def of(cls, data: bytes) -> FileEntry:
        """The entry for a file with this content."""
        return cls(hashlib.sha256(data).hexdigest(), len(data))


@dataclass(frozen=True, slots=True)
class HeadFile:
    """How the arrays in ``head.npz`` are to be read: the ``format`` of the head, and the rest of it as JSON values."""

    format: str
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Card:
    """All about a head but its numbers.

    kind, params, seed, balanced : what was fitted; balanced weighs rows inversely to the size of their class.
    specs, origins, widths : the features it takes, a block of columns for each backbone, and how to get their bases.
    classes : the names of the columns of its probabilities.
    calibration : from its logits to probabilities, fitted on held-out rows.
    clip : the bound that submissions keep from 0 and 1, fitted on the held-out log loss; None without such rows.
    trials, chosen_on : every value that was tried with its score there, and what they were judged on.
    held_out, test : its metrics there, before the last fit, and on the test split, which was scored once; None if not.
    fitted_on : the splits of the last fit.
    snapshot : the names of the store's segments when it was trained; with the specs they tell exactly which rows.
    views, augmentation : of each training image, itself among them, or 0 if every epoch saw another new one, never the
        image itself; the policy of these, None if there are none.
    rows, rows_digest : how many images it was fitted on, and the SHA-256 (hex) of their sorted digests and labels.
    versions : package name → version of what fitted it.
    """

    kind: str
    params: Params
    seed: int
    balanced: bool
    specs: tuple[Spec, ...]
    origins: tuple[Origin, ...]
    widths: tuple[int, ...]
    classes: tuple[str, ...]
    calibration: Calibration
    clip: float | None
    trials: tuple[Trial, ...]
    chosen_on: str
    held_out: Metrics
    test: Metrics | None
    fitted_on: tuple[str, ...]
    augmentation: str | None
    views: int
    rows: int
    rows_digest: str
    snapshot: tuple[str, ...]
    versions: Mapping[str, str]


def rows_digest(digests: Digests, names: Sequence[str]) -> str:
    """The SHA-256 (hex) of the sorted "digest class" lines of images, uint8 (N, 32): their order does not matter."""
    lines = sorted(f"{digest.tobytes().hex()} {name}" for digest, name in zip(digests, names, strict=True))
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def card_to_bytes(card: Card, head: HeadFile, files: Mapping[str, FileEntry]) -> bytes:
    """The card file's content, for a bundle with these other ``files``."""
    content = {
        "format": BUNDLE_FORMAT,
        "version": BUNDLE_VERSION,
        "files": {name: asdict(entry) for name, entry in files.items()},
        "head": {
            "kind": card.kind,
            "params": dict(card.params),
            "seed": card.seed,
            "balanced": card.balanced,
            "format": head.format,
            "config": dict(head.config),
            "calibration": card.calibration.to_json(),
            "clip": card.clip,
        },
        "features": [
            {"spec": json.loads(spec.to_json()), "fingerprint": spec.fingerprint, "width": width, **asdict(origin)}
            for spec, origin, width in zip(card.specs, card.origins, card.widths, strict=True)
        ],
        "classes": list(card.classes),
        "choice": {
            "on": card.chosen_on,
            "trials": [{"params": dict(trial.params), "score": trial.score.to_json()} for trial in card.trials],
        },
        "scores": {
            "held_out": card.held_out.to_json(),
            "test": card.test.to_json() if card.test else None,
        },
        "trained_on": {
            "splits": list(card.fitted_on),
            "augmentation": card.augmentation,
            "views": card.views,
            "rows": card.rows,
            "sha256": card.rows_digest,
            "snapshot": list(card.snapshot),
        },
        "versions": dict(card.versions),
    }
    return _text({**content, "sha256": _checksum(content)})


def check_parts(data: bytes, where: Path) -> None:
    """Raise InputError for a card of too many parts, before they are made."""
    if (parts := sum(map(data.count, (b"[", b"{", b'"')))) > MOST_PARTS:
        raise InputError(
            "the card of this bundle has too many parts",
            where=where,
            expected=f"at most {MOST_PARTS} brackets and quotes",
            received=parts,
            todo="train on fewer classes or fewer settings, or compact the store first",
        )


def card_from_bytes(data: bytes, where: Path) -> tuple[Card, HeadFile, Mapping[str, FileEntry]]:
    """The card, how to read its head, and the other files of its bundle by name.

    Raises InputError if this is no card, one of too many parts or one of a later featstore, DamageError if it was
    changed.
    """
    check_parts(data, where)
    try:
        content = json.loads(data)
        is_card = isinstance(content, dict) and content.get("format") == BUNDLE_FORMAT
    except (ValueError, RecursionError) as error:
        raise DamageError("the card of this bundle is damaged", where=where, received=error, todo=RETRAIN) from error
    if not is_card:
        raise InputError("this is not the card of a featstore bundle", where=where)
    if content.get("version") != BUNDLE_VERSION:
        raise InputError(
            "this bundle was written by another version of featstore",
            where=where,
            expected=f"bundle version {BUNDLE_VERSION}",
            received=content.get("version"),
            todo="use the featstore that wrote it, or train the head again",
        )
    checksum = content.pop("sha256", None)
    try:
        is_whole = checksum == _checksum(content) and data == _text({**content, "sha256": checksum})
    except ValueError:  # a number that JSON does not have
        is_whole = False
    if not is_whole:
        raise DamageError("the card of this bundle was changed after it was written", where=where, todo=RETRAIN)
    try:
        head_file = HeadFile(content["head"]["format"], dict(content["head"]["config"]))
        card, files = _card(content), {name: FileEntry(**entry) for name, entry in content["files"].items()}
        _check(card)
        if card_to_bytes(card, head_file, files) != data:
            raise ValueError("there are fields that a card does not have, or not so")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError("the card of this bundle cannot be understood", where=where, received=error) from error
    return card, head_file, files


def _check(card: Card) -> None:
    """Raise ValueError unless everything that is used of a card is what it should be: cards may be anyone's."""
    words = (card.kind, card.chosen_on, card.rows_digest, *card.classes, *card.fitted_on, *card.snapshot)
    asked_for = tuple(word for origin in card.origins for word in (origin.backbone, origin.weights))
    words += (*asked_for, *(word for pair in card.versions.items() for word in pair))
    known = {
        "words": all(isinstance(word, str) for word in words),
        "origins": all(len(word) <= _MOST_LETTERS for word in asked_for),
        "classes": len(set(card.classes)) == len(card.classes) > 1,
        "widths": min(card.widths, default=0) > 0,
        "numbers": type(card.seed) is type(card.rows) is int and card.rows >= 0 and type(card.balanced) is bool,
        "views": type(card.views) is int and card.views >= 0 and type(card.augmentation) in (str, type(None)),
        "clip": card.clip is None or 0 <= card.clip < 0.5,
        "calibration": len(card.calibration.curves)
        == (len(card.classes) if card.calibration.method == "isotonic" else 0),
        "params": all(_is_params(params) for params in (card.params, *(trial.params for trial in card.trials))),
    }
    if wrong := [name for name, is_right in known.items() if not is_right]:
        raise ValueError(f"these are not a card's: {', '.join(wrong)}")


def _is_params(params: Params) -> bool:
    plain = (bool, int, float, str)
    return all(
        isinstance(value, plain) or (isinstance(value, tuple) and all(isinstance(one, int) for one in value))
        for value in params.values()
    )


def _card(content: Mapping[str, Any]) -> Card:
    head, choice, scores = content["head"], content["choice"], content["scores"]
    specs = tuple(Spec.from_json(json.dumps(block["spec"])) for block in content["features"])
    if [spec.fingerprint for spec in specs] != [block["fingerprint"] for block in content["features"]]:
        raise ValueError("a fingerprint is not that of its spec")
    return Card(
        kind=head["kind"],
        params=params_from_json(head["params"]),
        seed=head["seed"],
        balanced=head["balanced"],
        specs=specs,
        origins=tuple(Origin(block["backbone"], block["weights"]) for block in content["features"]),
        widths=tuple(int(block["width"]) for block in content["features"]),
        classes=tuple(content["classes"]),
        calibration=Calibration.from_json(head["calibration"]),
        clip=None if head["clip"] is None else float(head["clip"]),
        trials=tuple(
            Trial(params_from_json(trial["params"]), Score.from_json(trial["score"])) for trial in choice["trials"]
        ),
        chosen_on=choice["on"],
        held_out=Metrics.from_json(scores["held_out"]),
        test=Metrics.from_json(scores["test"]) if scores["test"] else None,
        fitted_on=tuple(content["trained_on"]["splits"]),
        augmentation=content["trained_on"]["augmentation"],
        views=content["trained_on"]["views"],
        rows=content["trained_on"]["rows"],
        rows_digest=content["trained_on"]["sha256"],
        snapshot=tuple(content["trained_on"]["snapshot"]),
        versions=content["versions"],
    )


def _text(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(_text(content)).hexdigest()
