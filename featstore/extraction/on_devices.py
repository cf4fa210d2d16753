"""The engine of several GPUs in one machine: a process for each, which sees no other, and works as the local one does.

This is the process that started the run: it deals the images out in blocks, in their order, to whoever asks for more,
and counts what comes back. No pixel and no row passes through it; TensorFlow is not even loaded here.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import wait
from typing import Any

from featstore import machine
from featstore.dataset import Dataset
from featstore.errors import InputError, StorageError
from featstore.extraction import local
from featstore.extraction.blocks import parts_of
from featstore.extraction.device_worker import Ended, Share, compute_share
from featstore.extraction.engine import Engine, Work
from featstore.extraction.reader import Prepared
from featstore.processes import Child, EndedError, child

_PATIENCE = 60.0
"""Seconds that processes have to commit what is complete once a run is over, whatever they are doing; a base may be
starting.
"""


def engine_on(devices: Sequence[str]) -> Engine:
    """The engine on these devices: "gpu:N" of those that this machine shows us, or "cpu". One is the local engine's."""
    return partial(compute, devices=devices) if len(devices) > 1 else local.compute


def compute(work: Work, devices: Sequence[str]) -> Generator[Prepared, None, None]:
    """See :class:`featstore.extraction.engine.Engine`; images come in any order.

    Raises StorageError if a process is ended from outside. Who stops before the end waits until the rows that are
    complete are committed.
    """
    if work.memory is not None:
        raise InputError("rows that are not to be kept are computed in this process", where="--devices")
    for where, location in (("--store ", work.store.location), ("", work.dataset.source.location)):
        if location.startswith("memory://"):
            raise InputError("each process has a memory of its own", where=where + location)
    parts = parts_of(replace(work, todo=range(len(work.todo))), len(devices))
    with ExitStack() as stack:
        workers = [_Worker(device, stack.enter_context(child(compute_share))) for device in devices[: len(parts)]]
        running: _Running = {worker.child.connection: worker for worker in workers}
        dataset = work.dataset.unlabelled().select(work.todo)
        try:
            for worker in workers:
                worker.tell(_share(work, dataset, worker.device, len(workers)))
            yield from _images(running, iter(parts), work)
        finally:
            _stop(running, work)
    local.remember_rates(work, len(workers))


def _share(work: Work, dataset: Dataset, device: str, count: int) -> Share:
    """What the process of ``device`` is told, one of ``count``."""
    kind, _, number = device.partition(":")
    visible, name = (machine.gpu_id(int(number)), "gpu:0") if kind == "gpu" else ("-1", "cpu")
    jobs = tuple(replace(one.job, device=name) for one in work.missing)
    retry = work.missing[0].retry_rejected
    return Share(visible, jobs, dataset, work.store.location, retry, max(1, work.workers // count))


@dataclass(frozen=True, slots=True)
class _Worker:
    """The process of a device. Raises StorageError if it has ended."""

    device: str
    child: Child

    def tell(self, what: object) -> None:
        with self._alive():
            self.child.tell(what)

    def hear(self) -> Any:
        with self._alive():
            return self.child.hear()

    @contextmanager
    def _alive(self) -> Iterator[None]:
        try:
            yield
        except EndedError as error:
            raise StorageError(
                "a process that computed has ended",
                where=f"--devices, {self.device}",
                received=error,
                todo="run the same command again: it goes on from the rows that were committed",
            ) from None


_Running = dict[Any, _Worker]
"""Those that have not said their last word, by their connections."""


def _images(running: _Running, parts: Iterator[Sequence[int]], work: Work) -> Generator[Prepared, None, None]:
    """Deal out the parts, and yield the images that were read, until nobody is ``running`` any more."""
    while running:
        for connection in wait(list(running)):
            worker = running[connection]
            told = worker.hear()
            if told is None:
                worker.tell(next(parts, None))
            elif isinstance(told, Ended):
                del running[connection]
                _count(told, work)
                if told.error is not None:
                    raise told.error
            else:
                for image in told:
                    yield replace(image, index=work.todo[image.index])
                    if image.rejected and work.ends_at_reject:
                        return


def _stop(running: _Running, work: Work) -> None:
    """Have those who are still ``running`` commit what is complete, and count it."""
    for worker in running.values():
        with suppress(StorageError):
            worker.tell(None)
    until = time.monotonic() + _PATIENCE
    while running and (ready := wait(list(running), max(0.0, until - time.monotonic()))):
        for connection in ready:
            with suppress(StorageError):
                told = running[connection].hear()
                if not isinstance(told, Ended):
                    continue
                _count(told, work)
            del running[connection]


def _count(told: Ended, work: Work) -> None:
    for tally, more in zip(work.tallies, told.tallies, strict=True):
        tally.add(more)
