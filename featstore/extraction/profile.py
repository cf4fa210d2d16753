"""Where the time of a run went, which stage was the limit, and what would help."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from featstore.extraction.report import ExtractReport
from featstore.machine import Machine

Limit = Literal["prepare", "scan", "startup", "backbone", "read", "decode", "write"]

_STAGES: dict[Limit, str] = {
    "prepare": "listing images, finding weights, calibrating",
    "scan": "looking up files and rows",
    "startup": "opening the base",
    "read": "reading files, taking their digests",
    "decode": "decoding, resizing, making views",
    "backbone": "the base",
    "write": "committing rows",
}
_BUSY = 0.85
"""A base that is busy for this share of the time that it could be is what limits a run."""


@dataclass(frozen=True, slots=True)
class StageProfile:
    """One stage: its ``seconds`` (of one thread, where several share it) and their ``share`` of the whole run.

    Stages run side by side, so shares may add up to more than 1. ``images_per_second`` is what it would do alone.
    """

    name: Limit
    about: str
    seconds: float
    share: float
    images_per_second: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Every stage, the one that limited the run, how busy the base was between 0 and 1, and what would help.

    ``busy`` is of the time when the base could compute: not while files were looked up, nor while it was opened. Up to
    128 pictures are decoded while it is opened, so that in a run of hardly more than these it is an upper bound.
    """

    stages: tuple[StageProfile, ...]
    limit: Limit
    busy: float
    advice: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The object ``profile`` of ``extract --profile --json``."""
        return asdict(self)


def profile(report: ExtractReport, machine: Machine) -> Profile:
    """The profile of a finished run on this ``machine``."""
    alone = {name: report.stages.get(name, 0.0) for name in _STAGES}
    for name in ("read", "decode"):
        alone[name] /= report.workers
    images = max((spec.computed for spec in report.specs), default=0) or report.images
    shared = f" (of one of {report.workers} threads)" if report.workers > 1 else ""
    stages = tuple(
        StageProfile(
            name,
            about + (shared if name in ("read", "decode") else ""),
            alone[name],
            alone[name] / report.seconds,
            images / alone[name] if alone[name] else 0,
        )
        for name, about in _STAGES.items()
    )
    could = report.seconds - alone["prepare"] - alone["scan"] - alone["startup"]
    busy = min(1.0, alone["backbone"] / could) if could > 0 else 0.0
    computed = any(spec.computed for spec in report.specs)
    limit: Limit = (
        _limit(alone, report.seconds, busy) if computed else max(("prepare", "scan", "read"), key=alone.__getitem__)
    )
    return Profile(stages, limit, busy, tuple(_advice(limit, report, machine)))


def _limit(alone: dict[Limit, float], total: float, busy: float) -> Limit:
    for name in ("prepare", "scan", "startup"):
        if alone[name] > total / 2:
            return name
    if busy >= _BUSY:
        return "backbone"
    return max(("backbone", "read", "decode", "write"), key=lambda name: alone[name])


def _advice(limit: Limit, report: ExtractReport, machine: Machine) -> list[str]:
    computed = [spec for spec in report.specs if spec.computed]
    if not computed:
        return ["nothing was left to compute: the time went into looking at files"]
    if limit == "prepare":
        return ["most of it was preparing: weights are downloaded and a base is calibrated for int8 once, then kept"]
    if limit == "scan":
        return ["looking at files took longer than computing: a folder on a local disk is quicker"]
    if limit == "startup":
        return ["most of it was opening the base: more images in one run cost no more of that"]
    if limit == "read":
        return ["reading files was the limit: a local disk, or more --workers if the disk is far away"]
    if limit == "decode":
        return [
            f"decoding was the limit ({report.workers} threads): more --workers where there are cores for them",
            "pictures of about twice the base's input size, made once, decode fastest",
        ]
    if limit == "write":
        return ["committing rows was the limit: a store on a local disk"]
    found = []
    if {"avx512_bf16", "amx_bf16"} & {*machine.flags}:
        if any(spec.precision == "float32" for spec in computed):
            found.append("--precision bfloat16 computes about twice as fast here; docs/benchmarks.md shows its price")
        elif any((spec.precision, spec.runtime) == ("bfloat16", "openvino") for spec in computed):
            found.append("--precision int8 may compute nearly twice as fast; docs/benchmarks.md shows its price")
    other = "" if machine.gpus else "a GPU, or "
    found.append(f"the base was the limit, as it should be: {other}a smaller --image-size (half of it: a quarter)")
    return found
