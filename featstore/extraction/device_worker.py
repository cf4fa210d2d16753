"""What runs in a process that has one device to itself: the engine of one machine, on images that are dealt out to it.

It asks for images by saying None, and gets indices, or None: then there are no more, or the run is over. Of images that
it has read it tells what is known of them, without pixels, and in the end what became of every job.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

from featstore.dataset import Dataset
from featstore.errors import FeatstoreError
from featstore.extraction import local
from featstore.extraction.engine import Tally, Work
from featstore.extraction.missing import Missing
from featstore.extraction.reader import Prepared
from featstore.job import Job
from featstore.runtime import BATCH_SIZE
from featstore.store import Store


@dataclass(frozen=True, slots=True)
class Share:
    """What a process needs to know; it hears it first.

    ``visible`` is what $CUDA_VISIBLE_DEVICES is to be; with that the ``jobs`` name the device. Images are dealt out as
    indices into ``dataset``.
    """

    visible: str
    jobs: tuple[Job, ...]
    dataset: Dataset
    store_path: str
    retry_rejected: bool
    workers: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The last word: what became of every job, and the error that ended it. All that is counted is committed."""

    tallies: Sequence[Tally]
    error: Exception | None


def compute_share(connection: Connection) -> None:
    """Hear a :class:`Share`, or None, and work on it until the last word."""
    share: Share | None = connection.recv()
    if share is None:  # it is over before it began
        return
    os.environ["CUDA_VISIBLE_DEVICES"] = share.visible  # before TensorFlow looks
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as nvidia-smi counts; else the fastest is 0
    tallies = [Tally() for _ in share.jobs]
    error: Exception | None = None
    try:
        _compute(connection, share, tallies)
    except FeatstoreError as expected:
        error = expected
    except Exception:  # a fault of ours: its traceback ends here, and not every library's error can be pickled
        error = RuntimeError(traceback.format_exc())
    with suppress(OSError):  # nobody listens any more
        connection.send(Ended(tallies, error))


def _compute(connection: Connection, share: Share, tallies: Sequence[Tally]) -> None:
    store = Store.open(share.store_path)
    missing = [Missing(job, store, retry_rejected=share.retry_rejected) for job in share.jobs]
    work = Work(share.dataset, range(len(share.dataset)), missing, store, share.workers, None, tallies)
    seen: list[Prepared] = []
    with closing(local.compute_some(work, _dealt(connection))) as images:
        for image in images:
            seen.append(replace(image, wanted=frozenset(), pixels={}))
            if len(seen) == BATCH_SIZE:
                connection.send(seen)
                seen = []
            if connection.poll():  # nothing was asked for: the run is over
                break
    connection.send(seen)


def _dealt(connection: Connection) -> Iterator[int]:
    while True:
        connection.send(None)
        part = connection.recv()
        if part is None:
            return
        yield from part
