"""What runs on the nodes of a cluster: tasks read and decode blocks of images, actors compute and commit them.

Both take and give tables of one row, as Ray Data passes them on. Expected errors are passed on as values, and name the
node. No row of features leaves the node: of each image only what is known of it does, and the counts.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.cloud import is_url
from featstore.dataset import Dataset
from featstore.errors import FeatstoreError, InputError
from featstore.extraction.engine import Tally
from featstore.extraction.lanes import Lanes, pictures_of
from featstore.extraction.missing import Missing
from featstore.extraction.reader import Picture, Prepared, Wanted, in_order, prepare
from featstore.job import Job, job_for
from featstore.records import DIGEST_BYTES, Reason, Rejected
from featstore.store import Store
from featstore.versions import installed_versions

_SAME_EVERYWHERE = ("featstore", "pillow", "keras", "tensorflow", "openvino")

_OBJECTS_AT_ONCE = 4
"""Objects that a task reads side by side; what is decoded of so many must fit beside its pixels."""

Versions = tuple[tuple[str, str], ...]
_Rejects = dict[tuple[bytes, int], Reason]


def versions() -> Versions:
    """Which versions this machine has of what makes pixels and rows: (package, version)."""
    found = installed_versions()
    return tuple((name, found.get(name, "none")) for name in _SAME_EVERYWHERE)


def token_of(run: str) -> str:
    """The token that shows a worker of ``run`` that it sees the driver's store, and no other at the same place."""
    return f"run-{run}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What every worker needs to know.

    ``versions`` are the driver's: the first field, so that even a node with another ``Plan`` finds them. ``run`` tells
    this run from others that the same worker takes part in; ``cores`` are those of an actor (None: it has a GPU).
    """

    versions: Versions
    run: str
    jobs: tuple[Job, ...]
    store_path: str
    retry_rejected: bool
    cores: int | None

    def missing(self) -> list[Missing]:
        """What the store lacks now. Raises InputError if this node has other versions, or sees another store."""
        if self.versions != versions():
            raise InputError(
                "a node of the cluster has other versions of what makes rows",
                where="--engine ray",
                expected=_told(self.versions),
                received=_told(versions()),
                todo="install the same versions on every node",
            )
        store = self.store()
        return [Missing(job, store, retry_rejected=self.retry_rejected) for job in self.jobs]

    def store(self) -> Store:
        """The driver's store. Raises InputError if this node sees another one, or none."""
        store = Store.open(self.store_path)
        if not store.place.has_token(token_of(self.run)):
            raise InputError(
                "a node of the cluster does not see the store",
                where=self.store_path,
                expected="the folder that the run was started with",
                received="another folder of that name" if store.exists else "no store",
                todo="put the store on a file system that all nodes mount at the same place",
            )
        return store


@dataclass(frozen=True, slots=True)
class Block:
    """Some of the images of a run, as a dataset of their own."""

    number: int
    dataset: Dataset


@dataclass(frozen=True, slots=True)
class Unseen:
    """Images of a block, by their index, of which ``node`` sees no file, and why."""

    node: str
    why: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class _Read:
    """A block that was read: its images, without pixels, and in which order those of each come."""

    number: int
    images: Sequence[Prepared]
    orders: Sequence[Sequence[Picture]]
    unseen: Unseen

    def with_pixels(self, pixels: Any) -> Iterator[Prepared]:
        """The images with what is theirs of ``pixels``, a buffer of all pictures one after the other."""
        at = 0
        for image, order in zip(self.images, self.orders, strict=True):
            made: dict[Picture, npt.NDArray[np.uint8]] = {}
            for picture in order:
                height, width = picture.pixels.image_size
                count = height * width * 3
                made[picture] = np.frombuffer(pixels, np.uint8, count, at).reshape(height, width, 3)
                at += count
            yield replace(image, pixels=made)


@dataclass(frozen=True, slots=True)
class Done:
    """A block whose rows are in the store: what is known of its images now, and what became of each job."""

    number: int
    images: Sequence[Prepared]
    tallies: Sequence[Tally]
    unseen: Unseen


def read(table: Any, plan: Plan) -> Any:
    """A task: {block} → {images, pixels}, the latter of all pictures that are wanted."""
    try:
        missing = _missing_here(plan)
        block: Block = loads(table["block"][0].as_py())
        wanted = partial(pictures_of, missing, block.dataset)
        images = _prepared(block.dataset, wanted)
        unseen = _unseen(block.dataset, images)
    except FeatstoreError as error:
        return _row(images=packed(_at_this_node(error)), pixels=b"")
    orders = [sorted(image.pixels, key=repr) for image in images]
    pixels = [image.pixels[picture] for image, order in zip(images, orders, strict=True) for picture in order]
    bare = [replace(image, pixels={}) for image in images]
    told = _Read(block.number, bare, orders, unseen)
    return _row(images=packed(told), pixels=b"".join(part.data for part in pixels))


def _prepared(dataset: Dataset, wanted: Wanted) -> list[Prepared]:
    """All images, in their order. A disk keeps the one core busy that a task has; objects are waited for."""
    at_once = _OBJECTS_AT_ONCE if is_url(dataset.source.location) else 1
    one = partial(prepare, dataset, wanted=wanted)
    return [*in_order(one, range(len(dataset)), workers=at_once, ahead=2 * at_once)]


@lru_cache(maxsize=1)
def _missing_here(plan: Plan) -> list[Missing]:
    """As of the first block of the run that this process reads."""
    return plan.missing()


def _unseen(dataset: Dataset, images: Iterable[Prepared]) -> Unseen:
    why: dict[int, str] = {}
    for image in images:
        if image.digest is None:
            try:
                dataset.source.first(dataset.paths[image.index], 1)
            except Rejected as error:
                why[image.index] = error.detail
    return Unseen(_node(), why)


class Computer:
    """An actor: blocks of pictures → rows in the store, and what became of them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._missing: list[Missing] = []
        self._lanes: Lanes | None = None
        self._rejected: list[_Rejects] = [{} for _ in plan.jobs]

    def __call__(self, table: Any) -> Any:
        """{images, pixels} → {done}; when it returns, the rows are committed."""
        told: Any = loads(table["images"][0].as_py())
        if isinstance(told, _Read):
            try:
                told = self._compute(told, table["pixels"][0].as_buffer())
            except FeatstoreError as error:
                told = _at_this_node(error)
        return _row(done=packed(told))

    def _compute(self, block: _Read, pixels: Any) -> Done:
        tallies = [Tally() for _ in self._plan.jobs]
        lanes = self._lanes_for(tallies)
        try:
            for image in block.with_pixels(pixels):
                lanes.take(image)
            lanes.finish()
        except BaseException:
            self._lanes = None
            lanes.close()
            lanes.end()
            raise
        self._add_rejects(block.images, tallies)
        return Done(block.number, block.images, tallies, block.unseen)

    def _lanes_for(self, tallies: Sequence[Tally]) -> Lanes:
        if self._lanes is None:
            here = replace(self._plan, jobs=tuple(map(_job_here, self._plan.jobs)))
            self._missing = here.missing()
            self._lanes = Lanes(self._missing, here.store(), tallies, cores=here.cores)
        else:
            self._lanes.count_in(tallies)
        return self._lanes

    def _add_rejects(self, images: Sequence[Prepared], tallies: Sequence[Tally]) -> None:
        """Tell of all rejects of a block, whoever stored them.

        That may have been a worker that died before it could tell, or this one, with a block whose result was lost.
        """
        digests = list(dict.fromkeys(image.digest for image in images if image.digest is not None))
        for missing, tally, rejected in zip(self._missing, tallies, self._rejected, strict=True):
            rejected.update(tally.rejected)
            keys = ((digest, view) for digest in digests for view in missing.job.views)
            known = {key: rejected[key] for key in keys if key in rejected}
            tally.rejected = {**_stored_rejects(missing, digests), **known}


def _stored_rejects(missing: Missing, digests: Sequence[bytes]) -> _Rejects:
    """Those that the store held when this worker began; none if they are all tried again."""
    if missing.retry_rejected or not digests:
        return {}
    status = missing.status(np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES))
    return {
        (digests[image], missing.job.views[view]): Reason(int(status[view, image]))
        for view, image in np.argwhere(status > 0).tolist()
    }


def _job_here(job: Job) -> Job:
    """The job with the base as this node has it: its weights are found here, or got here."""
    base = job.base
    if base.tensors.is_file():
        return job
    name, weights = (base.origin, "imagenet") if base.backbone.is_own else (base.backbone.name, base.origin)
    try:
        return replace(job, base=job_for(job.spec, name, weights, job.runtime).base)
    except FeatstoreError as error:
        raise InputError(
            f"a node of the cluster cannot have the base {base.backbone.name}: {error.what}",
            where=base.origin if base.backbone.is_own else error.where,
            expected=error.expected,
            received=error.received,
            todo=f"put it where all nodes see it, or {base.tensors} into the cache of every node",
        ) from error


def _node() -> str:
    return os.uname().nodename


def _at_this_node(error: FeatstoreError) -> FeatstoreError:
    error.where = f"node {_node()}" if error.where is None else f"{error.where} on node {_node()}"
    return error


def _told(found: Versions) -> str:
    return ", ".join(f"{name} {version}" for name, version in found)


def _row(**columns: bytes) -> Any:
    import pyarrow

    return pyarrow.table({name: pyarrow.array([value], pyarrow.large_binary()) for name, value in columns.items()})


def packed(what: object) -> bytes:
    """For another of our own processes."""
    return pickle.dumps(what)


def loads(data: bytes) -> Any:
    """What another of our own processes packed."""
    return pickle.loads(data)  # noqa: S301 - from one of our own processes to another, within Ray
