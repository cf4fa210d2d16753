"""The engine of a cluster: Ray Data reads and decodes in tasks, and computes and commits in a pool of actors.

This is the driver: it deals the images out in blocks, in their order, and counts what comes back. What the nodes do is
in :mod:`featstore.extraction.ray_worker`: a task reads a block and makes its pictures; an actor, one a GPU or a slice
of a CPU, hands them to lanes of its own, the same as everywhere, and returns when their rows are in the store.

Pixels travel in Ray's object store, whose limits hold back the reading where the bases are slower. A worker that is
lost is started again and its block with it; what it had committed is not computed twice, or harmlessly is.
"""

from __future__ import annotations

import secrets
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from featstore.cloud import joined
from featstore.dataset import Dataset
from featstore.errors import FeatstoreError, InputError
from featstore.extraction import ray_cluster
from featstore.extraction.blocks import bytes_of_image, parts_of
from featstore.extraction.engine import Engine, Work
from featstore.extraction.ray_worker import Block, Computer, Done, Plan, loads, packed, read, token_of, versions
from featstore.extraction.reader import Prepared
from featstore.job import Job
from featstore.records import Rejected
from featstore.scale import INDEX_BYTES_A_ROW
from featstore.store import Place, Store

_TOKEN_SECONDS = 3600.0
"""How often the run's token is left anew: one of yesterday would be swept away."""

_MOST_CORES = 16
"""Of a slice: on more than these a batch is not computed faster."""

_BLOCKS_AHEAD = 2
"""Blocks that wait at an actor beside the one that it computes."""

_RETRIES = 3
"""Of a block whose worker dies: one that kills each of them is not tried for ever."""

_READER_BYTES = 2**28
"""What a task needs beside the index, and three times its pixels: decoded, put together, and on their way into Ray's
object store."""


def engine_at(address: str | None) -> Engine:
    """The engine on the Ray cluster at ``address``; see :func:`compute`.

    Raises InputError now if Ray is not installed, or nothing listens there.
    """
    ray_cluster.check(address)
    return partial(compute, address=address)


def compute(work: Work, address: str | None = None) -> Generator[Prepared, None, None]:
    """See :class:`featstore.extraction.engine.Engine`; images come block by block, in any order.

    ``address`` is that of a Ray cluster; None takes what $RAY_ADDRESS names, or starts Ray on this machine.
    Raises InputError if Ray is not installed, cannot be reached, or a node does not see the store or the images;
    StorageError if the cluster fails. Who stops before the end waits for no block that is under way.
    """
    if work.memory is not None:
        raise InputError("rows that are not to be kept are computed here", where="--engine ray", expected="local")
    with ray_cluster.connected(address) as ray, ray_cluster.translated(ray):
        yield from _compute(ray, work)


def _compute(ray: Any, work: Work) -> Iterator[Prepared]:
    pool = _pool(ray.nodes(), [one.job for one in work.missing])
    jobs = tuple(replace(one.job, device=pool.device) for one in work.missing)
    run, retry = secrets.token_hex(8), work.missing[0].retry_rejected
    plan = Plan(versions(), run, jobs, work.store.location, retry, pool.cores)
    parts = parts_of(work, pool.size)
    index = INDEX_BYTES_A_ROW * sum(one.rows.rows for one in work.missing)
    with _token(work.store, run) as place, closing(_results(ray, plan, pool, work.dataset, parts, index)) as results:
        left = time.monotonic()
        for told in results:
            if time.monotonic() - left > _TOKEN_SECONDS:
                left = time.monotonic()
                with suppress(OSError):
                    place.leave_token(token_of(run))
            if isinstance(told, FeatstoreError):
                raise told
            for image in _taken(told, parts[told.number], work):
                yield image
                if image.rejected and work.ends_at_reject:
                    return


def _results(
    ray: Any, plan: Plan, pool: _Pool, dataset: Dataset, parts: Sequence[Sequence[int]], index: int
) -> Generator[Done | FeatstoreError, None, None]:
    """What becomes of each of the ``parts``. Every process that looks rows up holds an ``index`` of so many bytes; Ray
    starts no more of them on a node than its memory has room for.
    """
    bare = dataset.unlabelled()
    rows = [{"block": packed(Block(at, bare.select(part)))} for at, part in enumerate(parts)]
    memory = index + 3 * len(parts[0]) * bytes_of_image(plan.jobs) + _READER_BYTES
    _check_room(ray.nodes(), memory)
    by_row: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow"}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`ray_remote_args")  # there is no other way yet to limit retries
        computed = (
            ray.data.from_items(rows, override_num_blocks=len(rows))
            .map_batches(read, fn_args=(plan,), num_cpus=0.5, memory=memory, **by_row, **_retried("max_retries"))
            .map_batches(
                Computer,
                fn_constructor_args=(plan,),
                zero_copy_batch=True,
                compute=ray.data.ActorPoolStrategy(
                    size=min(pool.size, len(parts)), max_tasks_in_flight_per_actor=1 + _BLOCKS_AHEAD
                ),
                num_cpus=0.5 * pool.cores if pool.cores else 0,
                num_gpus=0 if pool.cores else 1,
                memory=index,
                **by_row,
                **_retried("max_task_retries"),
            )
        )
    with closing(iter(computed.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))) as batches:
        for batch in batches:
            yield from map(loads, batch["done"].to_pylist())


def _check_room(nodes: Sequence[dict[str, Any]], memory: int) -> None:
    """Raises InputError if no node has so much: Ray would wait for one."""
    most = max((int(node["Resources"].get("memory", memory)) for node in nodes if node["Alive"]), default=memory)
    if memory > most:
        raise InputError(
            "no node of the cluster has the memory that a task takes: it looks up all rows of the store, and reads",
            where="--engine ray",
            expected=f"a node that offers Ray {memory / 2**30:.1f} GiB",
            received=f"{most / 2**30:.1f} GiB at most",
            todo="deal the images out to several stores, or add a node with more memory",
        )


def _retried(option: str) -> dict[str, Any]:
    """What limits the retries of a stage, whose ``option`` Ray Data takes from a function alone."""
    return {"ray_remote_args_fn": lambda: {option: _RETRIES}}


def _taken(done: Done, indices: Sequence[int], work: Work) -> Iterator[Prepared]:
    """Count what was done of a block, and yield its images as those of the run, which are at ``indices``.

    Raises InputError if a file that this machine reads was not there for the node.
    """
    for index, why in done.unseen.why.items():
        path = work.dataset.paths[indices[index]]
        if _is_here(work.dataset, path):
            raise InputError(
                "a node of the cluster does not see an image that is here",
                where=f"{joined(work.dataset.source.location, path)} on node {done.unseen.node}",
                received=why,
                todo="put the images on a file system that all nodes mount at the same place",
            )
    for tally, more in zip(work.tallies, done.tallies, strict=True):
        tally.add(more)
    for image in done.images:
        yield replace(image, index=indices[image.index])


def _is_here(dataset: Dataset, path: str) -> bool:
    try:
        dataset.source.first(path, 1)
    except Rejected:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Pool:
    """The actors: how many, and how many cores each has; None where each has a GPU."""

    size: int
    cores: int | None

    @property
    def device(self) -> str:
        """What they compute on."""
        return "cpu" if self.cores else "gpu"


def _pool(nodes: Sequence[dict[str, Any]], jobs: Sequence[Job]) -> _Pool:
    """One actor a GPU if TensorFlow computes and may use them, or else one a slice of a CPU.

    Slices are of one size, so nodes of one size are shared out without a rest. Raises InputError if the nodes have not
    what is asked for, or the jobs ask for several runtimes.
    """
    runtimes = sorted({job.runtime for job in jobs})
    if len(runtimes) > 1:
        raise InputError(
            "all bases of a run on a cluster are computed by one runtime",
            where="--runtime",
            received=" and ".join(runtimes),
            todo="name one with --runtime, or extract with one base after the other",
        )
    there = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = sum(int(resources.get("GPU", 0)) for resources in there)
    devices = {(job.device or "").lower() for job in jobs}
    if gpus and runtimes == ["tensorflow"] and "cpu" not in devices:
        return _Pool(gpus, None)
    if any(device.startswith("gpu") for device in devices):
        raise InputError(
            "the cluster cannot compute on GPUs",
            where="--device",
            expected="nodes that offer GPUs to Ray, and --runtime tensorflow",
            received=f"{gpus} GPUs, and the runtime {runtimes[0]}",
        )
    cores = [int(resources.get("CPU", 0)) for resources in there]
    size = min([_MOST_CORES, *(count for count in cores if count)])
    actors = sum(count // size for count in cores)
    if not actors:
        raise InputError("no node of the cluster offers a CPU", where="--engine ray")
    return _Pool(actors, size)


@contextmanager
def _token(store: Store, run: str) -> Iterator[Place]:
    """The run's token in the store, for as long as it takes. Raises ReadOnlyError, NoSpaceError or StorageError."""
    place = store.create().place
    place.leave_token(token_of(run))
    try:
        yield place
    finally:
        place.remove_token(token_of(run))
