"""Blocks for the stages of the Ray engine, and that engine without Ray: both stages in this process."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from featstore.dataset import Dataset
from featstore.extraction import on_ray, ray_worker
from featstore.extraction.blocks import parts_of
from featstore.extraction.engine import Work
from featstore.extraction.ray_worker import Block, Computer, Plan
from featstore.extraction.reader import Prepared

RUN = "a-run"


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
    for number, part in enumerate(parts_of(work, 1)):
        table = read(work.dataset.select(part), plan, number)
        compute(Computer(plan), table)
        yield from on_ray._taken(compute(Computer(plan), table), part, work)
