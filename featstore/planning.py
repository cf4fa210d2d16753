"""A plan: what an extraction would do, and why, before anything runs."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore import machine, rates
from featstore.cached import CachedRows
from featstore.cloud import Bucket, is_url
from featstore.dataset import Dataset
from featstore.job import Job
from featstore.objects import PAGE
from featstore.progress import Progress, silent
from featstore.records import Digests
from featstore.scale import Features, Images, Needs, Prices, needs
from featstore.scan import Pace, digest_all
from featstore.spec import Spec
from featstore.store import KEY_BYTES, Store

_UNREADABLE = "cannot be read"
_NEW = "new image"
_NEW_VIEW = "new view"


@dataclass(frozen=True, slots=True)
class SpecPlan:
    """One spec's part of a plan, in rows: one an image, or of augmented views, ``views`` an image to train on.

    ``misses`` maps a reason to a number of images: "new image", "copy of another new image", or the fields in which
    the nearest namespace that has the image differs ("image_size: (150, 150) in the store, (224, 224) asked").
    ``bytes`` is what the new rows take in the store, ``seconds`` an estimate of the time (see ``estimate``).
    ``distinct`` is how many rows the images have in all: copies share theirs.
    """

    job: Job
    hits: int
    rejected: int
    computed: int
    misses: Mapping[str, int]
    distinct: int
    bytes: int | None
    seconds: float | None
    estimate: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What :func:`featstore.extract` would do; ``unreadable`` counts the files that cannot be opened. ``scale`` is what
    another number of such images would need, if that was asked for.
    """

    images: int
    unreadable: int
    specs: tuple[SpecPlan, ...]
    scale: Needs | None = None

    def to_json(self) -> dict[str, Any]:
        """The object that ``featstore plan --json`` prints."""
        scale = {} if self.scale is None else {"scale": self.scale.to_json()}
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
            **scale,
        }


def plan(
    dataset: Dataset,
    jobs: Sequence[Job],
    store: Store,
    *,
    rehash: bool = False,
    scale: int | None = None,
    prices: Prices | None = None,
    progress: Progress = silent,
) -> Plan:
    """Look up every image of ``dataset`` for every job; reads the files whose content is not known yet.

    ``scale`` is a number of images like these of which to tell what they would need, and what that costs at ``prices``.
    """
    scan = digest_all(dataset, store.scan_folder, rehash=rehash, progress=progress)
    specs = tuple(_plan_spec(job, store, scan.values, scan.known, job.asks(dataset, scan.values)) for job in jobs)
    found = Plan(len(dataset), int((~scan.known).sum()), specs)
    if scale is None:
        return found
    features = tuple(_features(part, len(dataset), store) for part in specs)
    asked = needs(scale, _images(dataset, scan.pace), features, machine.describe().memory, prices or Prices())
    return replace(found, scale=replace(asked, copy_bytes=_copy_bytes(asked) if is_url(store.location) else None))


def _images(dataset: Dataset, pace: Pace) -> Images:
    """What was learnt of one image of ``dataset``, on average."""
    count = len(dataset)
    return Images(
        count=count,
        name_bytes=sum(len(os.fsencode(path)) for path in dataset.paths) / count,
        file_bytes=pace.bytes / count,
        list_seconds=_list_seconds(dataset),
        look_seconds=pace.looking / count,
        read_seconds=pace.reading / pace.read if pace.read else None,
    )


def _list_seconds(dataset: Dataset) -> float:
    """Seconds to list one image more.

    Object storage answers a page at a time, folder by folder, and the first answers are late: libraries are loaded and
    connections made. So a request is measured by itself, and how many there are is reckoned: as many for each image as
    these took, or of few of them as many as full pages are.
    """
    count, place = len(dataset), dataset.source.location
    if not is_url(place):
        return dataset.seconds / count
    inside = Counter(path.rpartition("/")[0] for path in dataset.paths)
    requests = sum(math.ceil(images / PAGE) for images in inside.values())
    [(largest, _)] = inside.most_common(1)
    return Bucket.at(place).page_seconds(largest) * (requests / count if count >= PAGE else 1 / PAGE)


def _copy_bytes(found: Needs) -> int | None:
    """What every machine copies of a store on object storage: all segments, features included. None: not known."""
    each = [spec.asked.bytes for spec in found.specs if spec.asked]
    return sum(each) if len(each) == len(found.specs) else None


def _features(part: SpecPlan, images: int, store: Store) -> Features:
    """What is known of a spec: the rows for each image, how large they are, and how fast they are computed."""
    spec, rate = part.job.spec, rates.estimate(part.job, store)
    channels = part.job.base.layer(spec.layer).channels
    numbers = _map_numbers(spec, store)
    return Features(
        backbone=spec.backbone,
        pooling=spec.pooling,
        dtype=spec.dtype,
        rows_an_image=part.distinct / images,
        channels=channels,
        area=numbers // channels if numbers else None,
        images_per_second=rate.images_per_second if rate else None,
        basis=rate.basis if rate else "not known before the first run",
    )


def _map_numbers(spec: Spec, store: Store) -> int | None:
    """How many numbers a map has that differs from those of ``spec`` in nothing that changes its shape; None if the
    store holds none, flattened or not.
    """
    for namespace in store.namespaces():
        other = namespace.spec
        if other.pooling in ("map", "flatten") and all(
            getattr(other, name) == getattr(spec, name) for name in ("backbone", "layer", "image_size")
        ):
            shape = namespace.snapshot(read_data=False).feature_shape
            if shape is not None:
                return int(np.prod(shape))
    return None


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
        distinct=len(np.unique(asked_digests, axis=0)) * len(job.views),
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
    return rows * (KEY_BYTES + int(np.prod(shape)) * np.dtype(job.spec.dtype).itemsize)
