"""A plan: what an extraction would do, and why, before anything runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore import rates
from featstore.cached import CachedRows
from featstore.dataset import Dataset
from featstore.job import Job
from featstore.progress import Progress, silent
from featstore.records import Digests
from featstore.scan import digest_all
from featstore.spec import Spec
from featstore.store import Store

_UNREADABLE = "cannot be read"
_NEW = "new image"
_NEW_VIEW = "new view"


@dataclass(frozen=True, slots=True)
class SpecPlan:
    """One spec's part of a plan, in rows: one an image, or of augmented views, ``views`` an image to train on.

    ``misses`` maps a reason to a number of images: "new image", "copy of another new image", or the fields in which
    the nearest namespace that has the image differs ("image_size: (150, 150) in the store, (224, 224) asked").
    ``bytes`` is what the new rows take in the store, ``seconds`` an estimate of the time (see ``estimate``).
    """

    job: Job
    hits: int
    rejected: int
    computed: int
    misses: Mapping[str, int]
    bytes: int | None
    seconds: float | None
    estimate: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What :func:`featstore.extract` would do; ``unreadable`` counts the files that cannot be opened."""

    images: int
    unreadable: int
    specs: tuple[SpecPlan, ...]

    def to_json(self) -> dict[str, Any]:
        """The object that ``featstore plan --json`` prints."""
        return {
            "images": self.images,
            "unreadable": self.unreadable,
            "specs": [
                {
                    "backbone": part.job.spec.backbone,
                    "fingerprint": part.job.spec.fingerprint,
                    "pooling": part.job.spec.pooling,
                    "precision": part.job.spec.precision,
                    "runtime": part.job.runtime,
                    "views": len(part.job.views),
                    "hits": part.hits,
                    "rejected": part.rejected,
                    "to_compute": part.computed,
                    "misses": dict(part.misses),
                    "bytes": part.bytes,
                    "seconds": part.seconds,
                    "estimate": part.estimate,
                }
                for part in self.specs
            ],
        }


def plan(
    dataset: Dataset, jobs: Sequence[Job], store: Store, *, rehash: bool = False, progress: Progress = silent
) -> Plan:
    """Look up every image of ``dataset`` for every job; reads the files whose content is not known yet."""
    scan = digest_all(dataset, store.scan_folder, rehash=rehash, progress=progress)
    specs = tuple(_plan_spec(job, store, scan.values, scan.known, job.asks(dataset, scan.values)) for job in jobs)
    return Plan(len(dataset), int((~scan.known).sum()), specs)


def _plan_spec(
    job: Job, store: Store, digests: Digests, known: npt.NDArray[np.bool_], asked: npt.NDArray[np.bool_]
) -> SpecPlan:
    rows, asked_digests = CachedRows(store, job.spec, lookups_only=True), digests[known & asked]
    status = np.stack([rows.lookup(asked_digests, view) for view in job.views])
    computed, misses = 0, Counter[str]()
    for of_view in status:
        missing = asked_digests[of_view == -1]
        unique = np.unique(missing, axis=0)
        computed += len(unique)
        misses.update({_NEW_VIEW: len(unique)} if job.spec.augmentation else _reasons(job.spec, store, unique))
        misses["copy of another new image"] += len(missing) - len(unique)
    misses[_UNREADABLE] += int((~known & asked).sum()) * len(job.views)
    rate = rates.estimate(job, store)
    return SpecPlan(
        job=job,
        hits=int((status == 0).sum()),
        rejected=int((status > 0).sum()),
        computed=computed,
        misses={reason: count for reason, count in misses.items() if count},
        bytes=_row_bytes(job, store, computed),
        seconds=computed / rate.images_per_second if rate else None,
        estimate=rate.basis if rate else "no estimate before the first run",
    )


def _reasons(spec: Spec, store: Store, missing: Digests) -> dict[str, int]:
    """Why each missing image (N, 32) is missing: for each the nearest namespace that has it, counted."""
    why = np.full(len(missing), _NEW, dtype=object)
    open_ = np.ones(len(missing), dtype=bool)
    damaged = store.namespace(spec).snapshot(lookups_only=True).damaged
    if damaged:
        why[:] = f"new image, or lost with {len(damaged)} damaged segment(s)"
    others = [n for n in store.namespaces() if n.fingerprint != spec.fingerprint]
    for namespace in sorted(others, key=lambda n: (len(spec.differences(n.spec)), n.fingerprint)):
        if not open_.any():
            break
        found = np.flatnonzero(open_)[namespace.snapshot(read_data=False).lookup(missing[open_]) >= 0]
        why[found] = _difference(spec, namespace.spec)
        open_[found] = False
    return dict(Counter(why.tolist()))


def _difference(asked: Spec, stored: Spec) -> str:
    return "; ".join(
        f"{name}: {_short(theirs)} in the store, {_short(mine)} asked"
        for name, (mine, theirs) in asked.differences(stored).items()
    )


def _short(value: object) -> str:
    text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 16 else f"{text[:12]}…"


def _row_bytes(job: Job, store: Store, rows: int) -> int | None:
    """Bytes of ``rows`` new rows: digest, view, status and features; None while a map's size is not known."""
    shape = store.namespace(job.spec).snapshot(lookups_only=True).feature_shape
    if shape is None and job.spec.pooling in ("avg", "max"):
        shape = (job.base.layer(job.spec.layer).channels,)
    if shape is None:
        return None
    return rows * (35 + int(np.prod(shape)) * np.dtype(job.spec.dtype).itemsize)
