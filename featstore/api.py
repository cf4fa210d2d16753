"""The same verbs as the command line, as functions: extract, plan, load_table; and batches of a table."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from featstore.cached import CachedRows
from featstore.dataset import Dataset, DatasetOptions, open_dataset
from featstore.errors import InputError, unknown_name
from featstore.extraction import Extraction, ExtractOptions, check_ledger, engine_named, write_ledger
from featstore.extraction import extract as run_extraction
from featstore.folders import default_store
from featstore.job import Job, Request, on_gpus, resolve_jobs
from featstore.planning import Plan
from featstore.planning import plan as make_plan
from featstore.progress import Progress, silent
from featstore.scale import Prices
from featstore.scan import digest_all
from featstore.shuffling import BUFFER_BYTES, Batches
from featstore.spec import Spec
from featstore.store import Store
from featstore.table import Table, read_tables

Data = Dataset | str | Path | Sequence[Path]
"""A dataset, or where one is: a folder, a zip, a manifest, a list of image files."""

Asked = str | Request | Spec
"""What features are wanted: a backbone's name, a request, or an exact spec."""

Backbones = str | Request | Sequence[str | Request]
"""One backbone or several, by name or as full requests."""

StoreLike = str | Path | Store | None
"""A store or its folder; None is the default store."""


def extract(
    data: Data,
    backbone: Backbones = "vgg16",
    *,
    store: StoreLike = None,
    options: ExtractOptions | None = None,
    ledger: Path | None = None,
    engine: str = "local",
    address: str | None = None,
    devices: str | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> Extraction:
    """Compute what the store lacks of ``data``, for one backbone or for several in one pass over the files.

    ``settings`` are fields of :class:`Request` for backbones given by name: ``image_size=150, pooling="map"``.
    Rejected images are listed in ``ledger`` (None: a CSV file in the store). ``engine`` is "local", or "ray" for the
    Ray cluster at ``address`` (None: what $RAY_ADDRESS names, or Ray started on this machine). ``devices`` are GPUs of
    this machine to share the work out to, "all", how many, or a list ("0,2"): a process for each, so a script does this
    under ``if __name__ == "__main__"``.
    Raises InputError, ReadOnlyError, NoSpaceError, DamageError (see their exit codes in docs/CLI.md).
    """
    started = time.perf_counter()
    if ledger is not None:
        check_ledger(ledger)
    runs_on = engine_named(engine, address, devices)
    requests = _requests(backbone, settings)
    if devices is not None:
        requests = [on_gpus(request) for request in requests]
    dataset, jobs, where = _prepare(data, requests, store, progress)
    prepared = time.perf_counter() - started
    done = run_extraction(dataset, jobs, where.create(), options, progress, engine=runs_on)
    listed = write_ledger(done.report.rejects, ledger, where, dataset)
    return replace(done, report=replace(done.report.after(prepared), ledger=listed))


def plan(
    data: Data,
    backbone: Backbones = "vgg16",
    *,
    store: StoreLike = None,
    rehash: bool = False,
    scale: int | None = None,
    prices: Prices | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> Plan:
    """What :func:`extract` would do with the same arguments, and why. Computes no features.

    ``scale`` is a number of images: the plan then tells what so many like these would need, and at ``prices`` cost.
    """
    if scale is None and prices is not None and prices != Prices():
        raise InputError(
            "prices are of what very many images need",
            where="--per-hour, --per-gib-month",
            todo="say how many: --scale 100M",
        )
    dataset, jobs, where = _prepare(data, _requests(backbone, settings), store, progress)
    return make_plan(dataset, jobs, where, rehash=rehash, scale=scale, prices=prices, progress=progress)


def load_tables(
    data: Data, backbone: Asked = "vgg16", *, store: StoreLike = None, stored: bool = False, **settings: Any
) -> Mapping[str, Table]:
    """The cached features of ``data`` by split: "train", "validation", "test", "unlabelled".

    With ``stored`` they stay in the store and are read when ``X`` is indexed, for tables larger than memory.
    Nothing is computed: raises InputError if images have no row yet (run :func:`extract` first).
    """
    dataset, where = _open(data), _store(store)
    scan = digest_all(dataset, where.scan_folder)
    if isinstance(backbone, Spec):
        return read_tables(dataset, scan.values, scan.known, CachedRows(where, backbone), stored=stored)
    request = _request(backbone, settings)
    rows = CachedRows(where, resolve_jobs([request], where, dataset, digests=scan.values)[0].spec, request.augmentation)
    return read_tables(dataset, scan.values, scan.known, rows, views=request.views, stored=stored)


def load_table(
    data: Data,
    backbone: Asked = "vgg16",
    *,
    split: str = "train",
    store: StoreLike = None,
    stored: bool = False,
    **settings: Any,
) -> Table:
    """One split of ``data`` as arrays: ``X`` float32 (N, D), ``y`` int64 (N,), ``ids``, ``classes``.

    The rest is as in :func:`load_tables`.
    """
    tables = load_tables(data, backbone, store=store, stored=stored, **settings)
    if split not in tables:
        raise InputError(f"there is no split {split!r}", where="split", expected=", ".join(tables), received=split)
    return tables[split]


def batches(
    data: Data,
    backbone: Asked = "vgg16",
    *,
    split: str = "train",
    batch_size: int = 256,
    seed: int = 0,
    buffer_bytes: int = BUFFER_BYTES,
    store: StoreLike = None,
    **settings: Any,
) -> Batches:
    """One split of ``data`` as minibatches straight from the store, anew shuffled every epoch: see :class:`Batches`.

    The rows are those of :func:`load_table`, and so are the errors; ``buffer_bytes`` of them are held at a time.
    """
    table = load_table(data, backbone, split=split, store=store, stored=True, **settings)
    return Batches(table, batch_size, seed=seed, buffer_bytes=buffer_bytes)


def _prepare(
    data: Data, requests: Sequence[Request], store: StoreLike, progress: Progress
) -> tuple[Dataset, tuple[Job, ...], Store]:
    dataset, where = _open(data), _store(store)
    jobs = resolve_jobs(requests, where, dataset, progress)
    return dataset, jobs, where


def _open(data: Data) -> Dataset:
    return data if isinstance(data, Dataset) else open_dataset(data, DatasetOptions())


def _store(store: StoreLike) -> Store:
    return store if isinstance(store, Store) else Store.open(store or default_store())


def _requests(asked: Backbones, settings: Mapping[str, Any]) -> list[Request]:
    return [_request(item, settings) for item in ([asked] if isinstance(asked, str | Request) else asked)]


def _request(asked: str | Request, settings: Mapping[str, Any]) -> Request:
    if isinstance(asked, Request):
        return asked
    unknown = sorted(set(settings) - {f.name for f in fields(Request)})
    if unknown:
        raise unknown_name("setting", unknown[0], (f.name for f in fields(Request)), "settings")
    return Request(asked, **settings)
