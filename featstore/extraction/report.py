"""What a run did, for people and for machines."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featstore.errors import from_os_error
from featstore.records import Reason
from featstore.store import Store


@dataclass(frozen=True, slots=True)
class SpecReport:
    """One spec's part: ``hits`` + ``computed`` + ``rejected`` = the images of the dataset.

    A copy of an image computed in this run counts as a hit. ``seconds`` is wall time inside the backbone, its
    start-up not included; ``images_per_second`` is ``computed`` by ``seconds`` (0 if nothing was computed).
    """

    backbone: str
    fingerprint: str
    pooling: str
    precision: str
    runtime: str
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

    ``seconds`` is wall time; ``stages`` are seconds by stage, read and decode summed over threads. ``quarantined``
    counts segments that were found damaged and set aside; their rows were computed again.
    """

    images: int
    specs: tuple[SpecReport, ...]
    rejects: tuple[RejectedImage, ...]
    seconds: float
    stages: Mapping[str, float]
    store: Path
    store_bytes: int
    ledger: Path | None
    quarantined: int

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
            "store": {"path": str(self.store), "bytes": self.store_bytes, "quarantined": self.quarantined},
            "ledger": str(self.ledger) if self.ledger else None,
        }


def write_ledger(rejects: Sequence[RejectedImage], path: Path | None, store: Store, location: str) -> Path | None:
    """Write the rejected images of the dataset at ``location`` as CSV: path, digest, reason.

    Every run over one dataset writes the same file (``path``, else one in the store). With nothing rejected an old
    ledger in the store is removed. Returns where it is, or None if there is none or a read-only store cannot take it.
    """
    target = path or store.path / "ledger" / _ledger_name(location)
    try:
        if not rejects and path is None:
            target.unlink(missing_ok=True)
            return None
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        temporary.write_text(_ledger_text(rejects), encoding="utf-8")
        temporary.replace(target)
    except OSError as error:
        if path is None:  # the ledger in the store is derived: the rows themselves say it all
            return None
        raise from_os_error(error, "write the ledger of rejected images", target) from error
    return target


def _ledger_name(location: str) -> str:
    tail = hashlib.sha256(location.encode(errors="surrogateescape")).hexdigest()[:8]
    name = "".join(c if (c.isascii() and c.isalnum()) or c in "-_" else "-" for c in Path(location).name)
    return f"{name[:64] or 'images'}-{tail}.csv"


def _ledger_text(rejects: Sequence[RejectedImage]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "digest", "reason"])
    writer.writerows([printable(r.path), r.digest, r.reason.code] for r in rejects)
    return text.getvalue()


def printable(path: str) -> str:
    r"""``path`` with bytes that are not UTF-8 shown as ``\xNN``, so that it can be written anywhere."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")
