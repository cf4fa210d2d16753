"""The composers of training: from a dataset to compared heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import featstore
from featstore import machine, rates
from featstore.cached import CachedRows
from featstore.dataset import Dataset, require_trainable
from featstore.errors import InputError, unknown_name
from featstore.extraction import Extraction
from featstore.job import Job, Request, resolve_jobs
from featstore.progress import Progress, silent
from featstore.spec import Pooling
from featstore.store import Store
from featstore.table import Table, join_tables, read_tables, width_of
from featstore.weights import Base
from heads.bundles.card import Origin
from heads.kinds.catalog import HEADS, find
from heads.training.results import Comparison, TrainingSet
from heads.training.train import TrainOptions, train

POOLINGS: tuple[Pooling, ...] = ("avg", "max", "flatten")
"""What a sweep tries: all of them follow from one stored map."""

_MEMORY_SHARE = 3
"""A table that takes more than this fraction (1/3) of the machine's memory stays in the store."""


def split_names(backbone: str) -> tuple[str, ...]:
    """``vgg16+xception`` → both names; a file whose name holds a + is one."""
    if Path(backbone).exists():
        return (backbone,)
    names = tuple(name.strip() for name in backbone.split("+"))
    if not all(names):
        raise InputError(
            "a backbone's name is missing", where="--backbone", expected="names joined by +", received=backbone
        )
    return names


def train_on(
    dataset: Dataset,
    requests: Sequence[Request],
    heads: Sequence[str],
    *,
    store: Store,
    bundles: Path | None,
    options: TrainOptions | None = None,
    progress: Progress = silent,
) -> tuple[Extraction, Comparison]:
    """Extract what the store lacks of ``dataset``, then compare the ``heads`` on each request's table.

    A request for "vgg16+xception" gets one table with the columns of both.
    Raises InputError before any work for an unknown head or a dataset that nothing can be trained on, and what
    extraction and training raise.
    """
    for name in heads:
        find(name)
    combinations = [(split_names(request.backbone), request) for request in requests]
    wanted = [replace(request, backbone=name) for names, request in combinations for name in names]
    done = _extract(dataset, wanted, store, progress)
    sets = [
        _training_set(dataset, done, [replace(request, backbone=name) for name in names], request.pooling, store)
        for names, request in combinations
    ]
    return done, train(sets, heads, bundles=bundles, options=options, progress=progress)


def sweep_on(
    dataset: Dataset,
    requests: Sequence[Request],
    heads: Sequence[str],
    *,
    poolings: Sequence[str] = POOLINGS,
    store: Store,
    out: Path,
    options: TrainOptions | None = None,
    progress: Progress = silent,
) -> tuple[Extraction, Comparison]:
    """Compare ``heads`` (none: all) × backbones × ``poolings``; several backbones are tried joined as well.

    Choices are kept in ``out``/choices, so that an interrupted sweep goes on; the best head goes to ``out``/bundles.
    Raises what :func:`train_on` raises.
    """
    for name in heads:
        find(name)
    known = [pooling for pooling in POOLINGS if pooling in poolings]
    if unknown := [pooling for pooling in poolings if pooling not in POOLINGS]:
        raise unknown_name("pooling", unknown[0], POOLINGS, "--pooling")
    singles = list(dict.fromkeys(name for request in requests for name in split_names(request.backbone)))
    asked = [split_names(request.backbone) for request in requests]
    combinations = list(dict.fromkeys([*asked, *([tuple(singles)] if len(singles) > 1 else [])]))
    stored: Pooling = known[0] if len(known) == 1 else "map"
    wanted = [replace(requests[0], backbone=name, pooling=stored) for name in singles]
    done = _extract(dataset, wanted, store, progress)
    sets = [
        _training_set(dataset, done, [request for request in wanted if request.backbone in names], pooling, store)
        for names in combinations
        for pooling in known
        if len(names) == 1 or names in asked or pooling != "flatten"
    ]
    options = replace(options or TrainOptions(), as_sweep=True, fit_all=False)
    names = list(heads) or list(HEADS)
    return done, train(
        sets, names, bundles=out / "bundles", options=options, journal=out / "choices", progress=progress
    )


def _extract(dataset: Dataset, requests: Sequence[Request], store: Store, progress: Progress) -> Extraction:
    require_trainable(dataset)
    done = featstore.extract(dataset, list(dict.fromkeys(requests)), store=store, progress=progress)
    usable = np.flatnonzero((done.reasons == 0).any(axis=0))
    require_trainable(dataset.select(usable), dataset.split_of(done.digests)[usable])
    return done


def _training_set(
    dataset: Dataset, done: Extraction, requests: Sequence[Request], pooling: Pooling, store: Store
) -> TrainingSet:
    jobs = [job for request in requests for job in resolve_jobs([request], store, lambda: done.digests)]
    specs = [job.spec.but(pooling=pooling) for job in jobs]
    memory = machine.describe().memory // _MEMORY_SHARE // len(jobs) or None

    def load() -> Mapping[str, Table]:
        each = [
            read_tables(dataset, done.digests, done.known, CachedRows(store, spec), memory=memory) for spec in specs
        ]
        if len(each) == 1:
            return each[0]
        return {split: join_tables([tables[split] for tables in each]) for split in each[0]}

    widths = [width_of(CachedRows(store, spec)) for spec in specs]
    return TrainingSet(
        backbone="+".join(job.base.backbone.name for job in jobs),
        pooling=pooling,
        origins=tuple(origin_of(job.base) for job in jobs),
        load=load,
        feature_bytes=sum(widths) * np.dtype(specs[0].dtype).itemsize * len(dataset),
        image_seconds=_image_seconds(jobs, store, len(dataset)),
    )


def _image_seconds(jobs: Sequence[Job], store: Store, images: int) -> float | None:
    """Seconds for running the bases over all images, by the rates measured here; None if one has none."""
    found = [rates.estimate(job, store) for job in jobs]
    if any(rate is None or not rate.basis.startswith("measured") for rate in found):
        return None
    return sum(images / rate.images_per_second for rate in found if rate is not None)


def origin_of(base: Base) -> Origin:
    """How to ask for the base again; an own base brings its weights with it."""
    return Origin(base.origin) if base.backbone.is_own else Origin(base.backbone.name, base.origin)
