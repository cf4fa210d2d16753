"""The card of a bundle: what a person, and a later featstore, must know about a head. Written and read as JSON.

The text is canonical (sorted keys, ASCII), its ``sha256`` field is the digest of the text without that field, and a
card must equal, byte for byte, what is written here for its content: so a change of any byte is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featstore.errors import DamageError, InputError
from featstore.spec import Spec
from heads.evaluate import Score, Trial

BUNDLE_FORMAT = "featstore bundle"
RETRAIN = "train the head again: on cached features that takes seconds"

BUNDLE_VERSION = 1
"""Rises when a bundle can no longer be read by what reads the version before."""


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
class Card:
    """All about a head but its numbers.

    kind, params, seed : what was fitted; ``factor`` multiplied its logits for right probabilities (1: it did not).
    spec, origin : the features it takes, and how to get the base that makes them.
    classes : the names of the columns of its probabilities.
    trials, chosen_on : every value that was tried with its score there, and what they were judged on.
    validation, test : its scores; None without such a split. The test split was scored once, for this head.
    snapshot : the names of the store's segments when it was trained; with the spec they tell exactly which rows.
    rows, rows_digest : how many images it was fitted on, and the SHA-256 (hex) of their sorted digests and labels.
    versions : package name → version of what fitted it.
    """

    kind: str
    params: Mapping[str, float]
    factor: float
    seed: int
    spec: Spec
    origin: Origin
    classes: tuple[str, ...]
    trials: tuple[Trial, ...]
    chosen_on: str
    validation: Score | None
    test: Score | None
    rows: int
    rows_digest: str
    snapshot: tuple[str, ...]
    versions: Mapping[str, str]


def card_to_bytes(card: Card, files: Mapping[str, FileEntry]) -> bytes:
    """The card file's content, for a bundle with these other ``files``."""
    content = {
        "format": BUNDLE_FORMAT,
        "version": BUNDLE_VERSION,
        "files": {name: asdict(entry) for name, entry in files.items()},
        "head": {"kind": card.kind, "params": dict(card.params), "factor": card.factor, "seed": card.seed},
        "spec": json.loads(card.spec.to_json()),
        "fingerprint": card.spec.fingerprint,
        "origin": asdict(card.origin),
        "classes": list(card.classes),
        "choice": {
            "on": card.chosen_on,
            "trials": [{"params": dict(trial.params), "score": trial.score.to_json()} for trial in card.trials],
        },
        "scores": {
            "validation": card.validation.to_json() if card.validation else None,
            "test": card.test.to_json() if card.test else None,
        },
        "trained_on": {"rows": card.rows, "sha256": card.rows_digest, "snapshot": list(card.snapshot)},
        "versions": dict(card.versions),
    }
    return _text({**content, "sha256": _checksum(content)})


def card_from_bytes(data: bytes, where: Path) -> tuple[Card, Mapping[str, FileEntry]]:
    """The card, and the other files of its bundle by name.

    Raises InputError if this is no card or one of a later featstore, DamageError if it was changed.
    """
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
    if checksum != _checksum(content) or data != _text({**content, "sha256": checksum}):
        raise DamageError("the card of this bundle was changed after it was written", where=where, todo=RETRAIN)
    try:
        return _card(content), {name: FileEntry(**entry) for name, entry in content["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError("the card of this bundle cannot be understood", where=where, received=error) from error


def _card(content: Mapping[str, Any]) -> Card:
    head, choice, scores = content["head"], content["choice"], content["scores"]
    spec = Spec.from_json(json.dumps(content["spec"]))
    if spec.fingerprint != content["fingerprint"]:
        raise ValueError("its fingerprint is not that of its spec")
    return Card(
        kind=head["kind"],
        params=head["params"],
        factor=head["factor"],
        seed=head["seed"],
        spec=spec,
        origin=Origin(**content["origin"]),
        classes=tuple(content["classes"]),
        trials=tuple(Trial(trial["params"], Score.from_json(trial["score"])) for trial in choice["trials"]),
        chosen_on=choice["on"],
        validation=Score.from_json(scores["validation"]) if scores["validation"] else None,
        test=Score.from_json(scores["test"]) if scores["test"] else None,
        rows=content["trained_on"]["rows"],
        rows_digest=content["trained_on"]["sha256"],
        snapshot=tuple(content["trained_on"]["snapshot"]),
        versions=content["versions"],
    )


def _text(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(_text(content)).hexdigest()
