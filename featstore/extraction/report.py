"""What a run did, for people and for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from featstore.records import Reason
from featstore.wording import printable


@dataclass(frozen=True, slots=True)
class SpecReport:
    """One spec's part, in rows: ``hits`` + ``computed`` + ``rejected`` = the images asked for, times ``views``.

    Asked for are all images of the dataset, or with augmented views those to train on; ``views`` is how many of each.
    A copy of an image computed in this run counts as a hit. ``seconds`` is wall time inside the backbone, its start-up
    not included; ``images_per_second`` is ``computed`` by ``seconds`` (0 if nothing was computed).
    """

    backbone: str
    fingerprint: str
    preprocessing: str
    pooling: str
    precision: str
    runtime: str
    augmentation: str | None
    views: int
    hits: int
    computed: int
    rejected: int
    seconds: float
    images_per_second: float


@dataclass(frozen=True, slots=True)
class RejectedImage:
    """An image without features: its path, its digest in hex ("" if the file could not be read), the reason."""

    path: str
    digest: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class ExtractReport:
    """A whole run.

    ``seconds`` is wall time; ``stages`` are seconds by stage, read and decode summed over ``workers`` threads.
    ``quarantined`` counts segments that were found damaged and set aside; their rows were computed again. ``ledger``
    lists ``rejects``.
    """

    images: int
    specs: tuple[SpecReport, ...]
    rejects: tuple[RejectedImage, ...]
    seconds: float
    stages: Mapping[str, float]
    workers: int
    store: str
    store_bytes: int
    quarantined: int
    ledger: Path | None = None

    def after(self, seconds: float) -> ExtractReport:
        """The same with what came before it, the stage "prepare": images listed, weights found, a base calibrated."""
        return replace(self, seconds=self.seconds + seconds, stages={"prepare": seconds, **self.stages})

    @property
    def reasons(self) -> Mapping[str, int]:
        """Rejected images by reason."""
        return dict(Counter(r.reason.code for r in self.rejects))

    def to_json(self) -> dict[str, Any]:
        """The object that ``featstore extract --json`` prints; described in docs/JSON.md."""
        return {
            "images": self.images,
            "specs": [asdict(spec) for spec in self.specs],
            "rejects": [{"path": printable(r.path), "digest": r.digest, "reason": r.reason.code} for r in self.rejects],
            "reasons": self.reasons,
            "seconds": self.seconds,
            "stages": dict(self.stages),
            "workers": self.workers,
            "store": {"path": str(self.store), "bytes": self.store_bytes, "quarantined": self.quarantined},
            "ledger": str(self.ledger) if self.ledger else None,
        }
