"""The composers of training: from a dataset to compared heads."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np

import featstore
from featstore import machine, rates
from featstore.cached import CachedRows
from featstore.dataset import Dataset, require_decodable, require_trainable
from featstore.errors import FeatstoreError, InputError, from_os_error, unknown_name
from featstore.extraction import Extraction
from featstore.job import Job, Request, resolve_jobs
from featstore.progress import Progress, silent
from featstore.records import SPLITS
from featstore.spec import Pooling, Preprocessing
from featstore.store import Store
from featstore.table import Table, join_tables, read_tables, width_of
from featstore.weights import Base
from heads.bundles.card import Origin
from heads.kinds.catalog import HEADS
from heads.kinds.grids import kinds_of
from heads.notes import reading_notes
from heads.training.results import Comparison, TrainingSet
from heads.training.train import TrainOptions, train

POOLINGS: tuple[Pooling, ...] = ("avg", "max", "flatten")
"""What a sweep tries: all of them follow from one stored map."""


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
    report: Path | None = None,
    options: TrainOptions | None = None,
    progress: Progress = silent,
) -> tuple[Extraction, Comparison]:
    """Extract what the store lacks of ``dataset``, then compare the ``heads`` on each request's table.

    A request for "vgg16+xception" gets one table with the columns of both. ``report`` : the folder for a page that
    shows the comparison; None writes none.
    Raises InputError before any work for an unknown head or a dataset that nothing can be trained on, and what
    extraction and training raise.
    """
    options = options or TrainOptions()
    kinds_of(heads, options.grids)
    combinations = [(split_names(request.backbone), request) for request in requests]
    wanted = [replace(request, backbone=name) for names, request in combinations for name in names]
    done = _extract(dataset, wanted, store, (bundles, report), progress)
    sets = [
        _training_set(
            dataset, done, [replace(one, backbone=name) for name in names], one.pooling, store, options.stream
        )
        for names, one in combinations
    ]
    compared = train(sets, heads, bundles=bundles, options=options, progress=progress)
    if report is None:
        return done, compared
    return done, with_report(report, compared, dataset, done, sets, seed=options.seed, progress=progress)


@dataclass(frozen=True, slots=True)
class Grid:
    """What a sweep combines: backbones × preprocessings × poolings × heads (none named: all of them).

    backbones : names; several are tried joined as well, and "a+b" asks for that alone beside the single ones.
    request : all other settings of the features.
    """

    backbones: tuple[str, ...]
    request: Request
    preprocessings: tuple[str, ...] = ("keras",)
    poolings: tuple[str, ...] = POOLINGS
    heads: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse names that are not known, before any work; raises InputError."""
        kinds_of(self.heads)
        for what, asked, known in (
            ("pooling", self.poolings, POOLINGS),
            ("preprocessing", self.preprocessings, get_args(Preprocessing)),
        ):
            if unknown := [name for name in asked if name not in known]:
                raise unknown_name(what, unknown[0], known, f"--{what}")

    @property
    def requests(self) -> tuple[Request, ...]:
        """What has to be extracted: maps, as soon as several poolings are to follow from them."""
        stored: Pooling = self._poolings[0] if len(self._poolings) == 1 else "map"
        names = dict.fromkeys(name for backbone in self.backbones for name in split_names(backbone))
        return tuple(
            replace(self.request, backbone=name, pooling=stored, preprocessing=preprocessing)
            for preprocessing in self._preprocessings
            for name in names
        )

    @property
    def combinations(self) -> tuple[tuple[tuple[Request, ...], Pooling], ...]:
        """The tables: requests whose columns stand side by side, and the pooling of all of them."""
        asked = [split_names(backbone) for backbone in self.backbones]
        everything = tuple(dict.fromkeys(name for names in asked for name in names))
        together = dict.fromkeys([*asked, *([everything] if len(everything) > 1 else [])])
        return tuple(
            (
                tuple(r for name in names for r in self.requests if (r.backbone, r.preprocessing) == (name, kind)),
                pooling,
            )
            for kind in self._preprocessings
            for names in together
            for pooling in self._poolings
            if len(names) == 1 or names in asked or pooling != "flatten"  # flat features of several bases are huge
        )

    @property
    def _poolings(self) -> tuple[Pooling, ...]:
        return tuple(pooling for pooling in POOLINGS if pooling in self.poolings)

    @property
    def _preprocessings(self) -> tuple[Preprocessing, ...]:
        return tuple(kind for kind in get_args(Preprocessing) if kind in self.preprocessings)


def sweep_on(
    dataset: Dataset,
    grid: Grid,
    *,
    store: Store,
    out: Path,
    options: TrainOptions | None = None,
    progress: Progress = silent,
) -> tuple[Extraction, Comparison]:
    """Compare all of the ``grid`` on ``dataset``, extracting what the store lacks.

    Choices are kept in ``out``/choices, so that an interrupted sweep goes on; the best head goes to ``out``/bundles,
    the page that shows it all to ``out``/report.html. Raises what :func:`train_on` raises.
    """
    options = replace(options or TrainOptions(), as_sweep=True, fit_all=False)
    names = grid.heads or tuple(HEADS)
    kinds_of(names, options.grids)
    done = _extract(dataset, grid.requests, store, (out,), progress)
    sets = [_training_set(dataset, done, asked, pooling, store, options.stream) for asked, pooling in grid.combinations]
    places = {"bundles": out / "bundles", "journal": out / "choices"}
    compared = train(sets, names, **places, options=options, progress=progress)
    return done, with_report(out, compared, dataset, done, sets, seed=options.seed, progress=progress)


def _require_writable(folders: Sequence[Path | None]) -> None:
    """Make the folders that results will go to; raises ReadOnlyError and its kin now rather than after all the work."""
    for folder in folders:
        if folder is not None:
            if folder.is_file():
                raise InputError("results go to a folder", where=folder, received="a file", todo="name another place")
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):
                    pass
            except OSError as error:
                raise from_os_error(error, "write the results", folder) from error


def with_report(
    folder: Path, compared: Comparison, dataset: Dataset, done: Extraction, sets: Sequence[TrainingSet], *,
    seed: int, progress: Progress = silent,
) -> Comparison:  # fmt: skip
    """The comparison, and the page that shows it written to ``folder``."""
    from heads.report.page import write_report

    with progress("report", 1, "pages") as advance:
        tables = {split: table.originals for split, table in sets[compared.best.place].tables().items()}
        notes = reading_notes(dataset, done)
        try:
            page = write_report(folder, compared, dataset, done, tables, seed=seed, notes=notes)
        except FeatstoreError as error:
            if compared.best.bundle is not None:
                error.todo = f"the best head is saved in {compared.best.bundle}; {error.todo}"
            raise
        advance(1)
    return replace(compared, report=page)


def _extract(
    dataset: Dataset, requests: Sequence[Request], store: Store, results: Sequence[Path | None], progress: Progress
) -> Extraction:
    require_trainable(dataset)
    _require_writable(results)
    done = featstore.extract(dataset, list(dict.fromkeys(requests)), store=store, progress=progress)
    readable = (done.reasons == 0).any(axis=0)
    require_decodable(dataset, readable)
    usable = np.flatnonzero(readable)
    require_trainable(dataset.select(usable), dataset.split_of(done.digests)[usable])
    return done


def _training_set(
    dataset: Dataset, done: Extraction, requests: Sequence[Request], pooling: Pooling, store: Store, stream: bool
) -> TrainingSet:
    jobs = [resolve_jobs([request], store, dataset, digests=done.digests)[0] for request in requests]
    views, augmentation = requests[0].views, requests[0].augmentation
    specs = [job.spec.but(pooling=pooling) for job in jobs]
    rows = [CachedRows(store, spec, augmentation) for spec in specs]
    widths = [width_of(one) for one in rows]
    count = len(dataset) + (views - 1) * int((dataset.split_of(done.digests) == SPLITS.index("train")).sum())
    stored = stream or machine.is_large(4 * sum(widths) * count)  # solvers take several times what their rows do

    def load() -> Mapping[str, Table]:
        each = [read_tables(dataset, done.digests, done.known, one, views=views, stored=stored) for one in rows]
        if len(each) == 1:
            return each[0]
        return {split: join_tables([tables[split] for tables in each]) for split in each[0]}

    return TrainingSet(
        backbone="+".join(job.base.backbone.name for job in jobs),
        pooling=pooling,
        origins=tuple(origin_of(job.base) for job in jobs),
        load=load,
        feature_bytes=sum(widths) * np.dtype(specs[0].dtype).itemsize * count,
        image_seconds=_image_seconds(jobs, store, count),
        preprocessing=specs[0].preprocessing,
        views=views,
    )


def _image_seconds(jobs: Sequence[Job], store: Store, images: int) -> float | None:
    """Seconds for running the bases over all images, by the rates measured here; None if one has none."""
    if not all(rates.is_measured(job, store) for job in jobs):
        return None
    found = [rates.estimate(job, store) for job in jobs]
    return sum(images / rate.images_per_second for rate in found if rate is not None)


def origin_of(base: Base) -> Origin:
    """How to ask for the base again; an own base brings its weights with it."""
    return Origin(base.origin) if base.backbone.is_own else Origin(base.backbone.name, base.origin)
