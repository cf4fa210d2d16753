"""Blocks for the stages of the Ray engine, and that engine without Ray: both stages in this process."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import featstore
from featstore import Request, Store
from featstore.dataset import Dataset
from featstore.extraction import on_ray, ray_worker
from featstore.extraction.engine import Tally, Work
from featstore.extraction.missing import Missing
from featstore.extraction.ray_worker import Block, Computer, Plan
from featstore.extraction.reader import Prepared
from featstore.job import resolve_jobs

RUN = "a-run"


def work_on(photos: Path | Sequence[Path], store: Path, *names: str, **settings: Any) -> Work:
    """All of ``photos`` for the bases called ``names``, of 32 pixels unless said otherwise; into a new store."""
    opened, dataset = Store.open(store, create=True), featstore.open_dataset(photos)
    requests = [Request(name, **{"image_size": 32, **settings}) for name in names or ("vgg16",)]
    jobs = resolve_jobs(requests, opened, dataset)
    missing = [Missing(job, opened) for job in jobs]
    return Work(dataset, range(len(dataset)), missing, opened, 1, None, [Tally() for _ in jobs])


def plan_of(work: Work, run: str = RUN) -> Plan:
    """The plan of a run that has its token."""
    work.store.place.leave_token(ray_worker.token_of(run))
    jobs, retry = tuple(one.job for one in work.missing), work.missing[0].retry_rejected
    return Plan(ray_worker.versions(), run, jobs, str(work.store.path), retry, 1)


def read(dataset: Dataset, plan: Plan, number: int = 0) -> Any:
    """A block of all of ``dataset`` as a task gives it."""
    return ray_worker.read(ray_worker._row(block=ray_worker.packed(Block(number, dataset))), plan)


def compute(computer: Computer, table: Any) -> Any:
    """What an actor says of a block that was read."""
    return ray_worker.loads(computer(table)["done"][0].as_py())


def losing_each_block_once(work: Work) -> Generator[Prepared, None, None]:
    """An engine whose actors compute and commit each block, and die before they can tell."""
    plan = plan_of(work)
    for number, part in enumerate(on_ray._parts(work, 1)):
        table = read(work.dataset.select(part), plan, number)
        compute(Computer(plan), table)
        yield from on_ray._taken(compute(Computer(plan), table), part, work)
