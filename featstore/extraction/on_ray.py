"""The engine of a cluster: Ray Data reads and decodes in tasks, and computes and commits in a pool of actors.

The driver deals the images out in blocks, in their order. A task reads a block and makes its pictures; an actor, one a
GPU or a slice of a CPU, hands them to lanes of its own, the same as everywhere, and returns when their rows are in the
store: so a block ends as one sealed segment a spec. What comes back is what is known of each image, and the counts.

Pixels travel in Ray's object store, whose limits hold back the reading where the bases are slower. A worker that is
lost is started again and its block with it; what it had committed is not computed twice, or harmlessly is.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import secrets
import socket
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from featstore.dataset import Dataset
from featstore.errors import FeatstoreError, InputError, StorageError
from featstore.extraction.engine import Tally, Work
from featstore.extraction.lanes import Lanes, pictures_of
from featstore.extraction.missing import Missing
from featstore.extraction.reader import Picture, Prepared, prepare
from featstore.job import Job, job_for
from featstore.store import ROWS_PER_COMMIT, Store

_MOST_CORES = 16
"""Of a slice: on more than these a batch is not computed faster."""

_ROUNDS = 8
"""Blocks that each actor gets at least, if there are enough images: the last to end is not waited for so long."""

_LEAST_IN_BLOCK = 32
_BLOCKS_AHEAD = 2
"""Blocks that wait at an actor beside the one that it computes."""

_CONNECT_SECONDS = 5.0
_STALLED_SECONDS = 900.0
"""So long nothing may be done, the first start of the bases included."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What every worker needs to know. ``run`` tells this run from others of the same worker, ``store_stamp`` whether
    it sees the driver's store; ``cores`` are those of an actor.
    """

    run: str
    jobs: tuple[Job, ...]
    store_path: str
    store_stamp: int
    retry_rejected: bool
    cores: int | None

    def missing(self) -> list[Missing]:
        """What the store lacks now. Raises InputError if this node sees another store, or none."""
        store = self.store()
        return [Missing(job, store, retry_rejected=self.retry_rejected) for job in self.jobs]

    def store(self) -> Store:
        store = Store.open(self.store_path)
        if not store.exists or _stamp(store) != self.store_stamp:
            raise InputError(
                "a node of the cluster does not see the store",
                where=f"{self.store_path} on {os.uname().nodename}",
                expected="the folder that the run was started with",
                received="another folder of that name" if store.exists else "no store",
                todo="put the store on a file system that all nodes mount at the same place",
            )
        return store


def compute(work: Work, address: str | None = None) -> Generator[Prepared, None, None]:
    """See :class:`featstore.extraction.engine.Engine`; images come block by block, in any order.

    ``address`` is that of a Ray cluster; None takes what $RAY_ADDRESS names, or starts Ray on this machine.
    Raises InputError if Ray is not installed, cannot be reached, or a node does not see the store or the images.
    """
    ray = _ray()
    if work.memory is not None:
        raise InputError("rows that are not to be kept are computed here", where="--engine ray", expected="local")
    started_here = not ray.is_initialized()
    if started_here:
        _connect(ray, address)
    try:
        yield from _compute(ray, work)
    finally:
        if started_here:
            ray.shutdown()


def _compute(ray: Any, work: Work) -> Iterator[Prepared]:
    import pyarrow

    gpus = int(ray.cluster_resources().get("GPU", 0)) if work.missing[0].job.runtime == "tensorflow" else 0
    cores, actors = (None, gpus) if gpus else _slices(ray.nodes())
    jobs = tuple(replace(one.job, device="gpu" if gpus else one.job.device) for one in work.missing)
    retry = work.missing[0].retry_rejected
    plan = _Plan(secrets.token_hex(8), jobs, str(work.store.path), _stamp(work.store), retry, cores)
    blocks = _blocks(work, actors)
    table = pyarrow.table({"block": pyarrow.array(list(map(pickle.dumps, blocks)), pyarrow.large_binary())})
    _quiet(ray)
    computed = (
        ray.data.from_arrow([table.slice(at, 1).combine_chunks() for at in range(len(blocks))])
        .map_batches(_read, fn_args=(plan,), batch_size=1, batch_format="pyarrow", num_cpus=0.5)
        .map_batches(
            _Computer,
            fn_constructor_args=(plan,),
            batch_size=1,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ray.data.ActorPoolStrategy(
                size=min(actors, len(blocks)), max_tasks_in_flight_per_actor=1 + _BLOCKS_AHEAD
            ),
            num_cpus=0 if gpus else 0.5 * (cores or 1),
            num_gpus=1 if gpus else 0,
            scheduling_strategy="SPREAD",
        )
    )
    indices = {block.number: block.indices for block in blocks}
    with closing(iter(computed.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))) as done:
        while (batch := _next(ray, done)) is not None:
            for packed in batch["done"].to_pylist():
                yield from _unpack_done(_loads(packed), indices, work.tallies)


@dataclass(frozen=True, slots=True)
class _Block:
    """Some of the images, as a dataset of their own, and where they are in that of the run."""

    number: int
    indices: tuple[int, ...]
    dataset: Dataset


def _blocks(work: Work, actors: int) -> list[_Block]:
    """The images in their order: as many to a block as give the rows of one commit, or fewer so that all actors have
    some.
    """
    views = sum(len(one.job.views) for one in work.missing)
    fair = len(work.todo) // (actors * _ROUNDS) // _LEAST_IN_BLOCK * _LEAST_IN_BLOCK
    size = max(1, min(ROWS_PER_COMMIT, max(fair, _LEAST_IN_BLOCK)) // views)
    parts = [tuple(work.todo[start : start + size]) for start in range(0, len(work.todo), size)]
    return [_Block(number, part, work.dataset.select(part)) for number, part in enumerate(parts)]


def _read(table: Any, plan: _Plan) -> Any:
    """A task: a block → what was read of its images and, apart from that, all their pixels."""
    import pyarrow

    try:
        block: _Block = _loads(table["block"][0].as_py())
        _check_seen(block.dataset)
        wanted = partial(pictures_of, _missing_here(plan), block.dataset)
        images = [prepare(block.dataset, index, wanted) for index in range(len(block.dataset))]
        number = block.number
    except FeatstoreError as error:
        return _row(pyarrow, images=pickle.dumps(error), pixels=b"")
    orders = [sorted(image.pixels, key=repr) for image in images]
    pixels = [image.pixels[picture] for image, order in zip(images, orders, strict=True) for picture in order]
    told = [(replace(image, pixels={}), order) for image, order in zip(images, orders, strict=True)]
    return _row(pyarrow, images=pickle.dumps((number, told)), pixels=b"".join(part.data for part in pixels))


@lru_cache(maxsize=1)
def _missing_here(plan: _Plan) -> list[Missing]:
    """As of the first block that this process reads."""
    return plan.missing()


class _Computer:
    """An actor: blocks of pictures → rows in the store, and what became of them."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self._lanes: Lanes | None = None

    def __call__(self, table: Any) -> Any:
        import pyarrow

        told: Any = _loads(table["images"][0].as_py())
        if not isinstance(told, FeatstoreError):
            number, images = told
            try:
                told = number, [image for image, _ in images], self._compute(images, table["pixels"][0].as_buffer())
            except FeatstoreError as error:
                told = error
        return _row(pyarrow, done=pickle.dumps(told))

    def _compute(self, images: Sequence[tuple[Prepared, Sequence[Picture]]], pixels: Any) -> list[Tally]:
        tallies = [Tally() for _ in self._plan.jobs]
        if self._lanes is None:
            jobs = tuple(map(_job_here, self._plan.jobs))
            missing = replace(self._plan, jobs=jobs).missing()
            self._lanes = Lanes(missing, self._plan.store(), tallies, cores=self._plan.cores)
        else:
            self._lanes.count_in(tallies)
        at = 0
        for image, order in images:
            made = {}
            for picture in order:
                height, width = picture.pixels.image_size
                count = height * width * 3
                made[picture] = np.frombuffer(pixels, np.uint8, count, at).reshape(height, width, 3)
                at += count
            self._lanes.take(replace(image, pixels=made))
        self._lanes.finish()
        return tallies


def _job_here(job: Job) -> Job:
    """The job with the base as this node has it: its weights are found here, or got here."""
    if job.base.tensors.is_file():
        return job
    return replace(job, base=job_for(job.spec, job.base.backbone.name, job.base.origin, job.runtime).base)


def _unpack_done(told: Any, indices: dict[int, tuple[int, ...]], tallies: Sequence[Tally]) -> Iterator[Prepared]:
    if isinstance(told, FeatstoreError):
        raise told
    number, images, counted = told
    for tally, more in zip(tallies, counted, strict=True):
        tally.add(more)
    for image in images:
        yield replace(image, index=indices[number][image.index])


def _next(ray: Any, done: Iterator[Any]) -> Any:
    try:
        return next(done, None)
    except (
        ray.exceptions.RayError,
        ray.data.exceptions.ExecutionTimeoutError,
        ray.data.exceptions.SystemException,
    ) as error:
        told = [line for line in str(error).splitlines() if ": " in line and not line.startswith((" ", "ray::"))]
        raise StorageError(
            f"the cluster did not go on ({type(error).__name__})",
            where="--engine ray",
            received=told[-1] if told else None,
            todo="run the same command again: it goes on from the rows that were committed",
        ) from error


def _slices(nodes: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """The cores of each actor, and how many actors that makes: nodes of one size are shared out without a rest."""
    cores = [int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]]
    size = min([_MOST_CORES, *(count for count in cores if count)])
    actors = sum(count // size for count in cores)
    if not actors:
        raise InputError("no node of the cluster offers a CPU", where="--engine ray")
    return size, actors


def _check_seen(dataset: Dataset) -> None:
    location = dataset.source.location
    if not os.path.exists(location):
        raise InputError(
            "a node of the cluster does not see the images",
            where=f"{location} on {os.uname().nodename}",
            todo="put them on a file system that all nodes mount at the same place",
        )


def _stamp(store: Store) -> int:
    """When the store was made: the same on whatever machine one looks at it."""
    return (store.path / "FORMAT").stat().st_mtime_ns


def _row(pyarrow: Any, **columns: bytes) -> Any:
    return pyarrow.table({name: pyarrow.array([value], pyarrow.large_binary()) for name, value in columns.items()})


def _loads(packed: bytes) -> Any:
    return pickle.loads(packed)  # noqa: S301 - from one of our own processes to another, within Ray


def _ray() -> Any:
    if importlib.util.find_spec("ray") is None:
        raise InputError(
            "this engine needs Ray, which is not installed", where="--engine ray", todo='pip install "ray[data]"'
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    import ray.data

    return ray


def _connect(ray: Any, address: str | None) -> None:
    named = address or os.environ.get("RAY_ADDRESS")
    try:
        if named:
            _check_reachable(named)
        ray.init(address=named, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        first, *_ = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"there is no Ray cluster: {first}",
            where=f"--address {address}" if address else f"$RAY_ADDRESS ({named})",
            expected="HOST:PORT, as `ray start --head` tells it",
            todo="start one, or leave the address out: then Ray is started on this machine",
        ) from error


def _check_reachable(address: str) -> None:
    """Raise OSError or ValueError if nothing listens at HOST:PORT. Ray tries for minutes, and then ends the process."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()


def _quiet(ray: Any) -> None:
    """Progress and errors are told by the run itself."""
    import logging

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = _STALLED_SECONDS
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
