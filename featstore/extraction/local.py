"""The engine of one machine: threads read and decode, one base at a time computes, the caller's thread commits."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from functools import partial

from featstore import rates
from featstore.extraction.engine import Work
from featstore.extraction.lanes import Lanes, pictures_of
from featstore.extraction.reader import Prepared, in_order, prepare
from featstore.runtime import BATCH_SIZE

_MEASURABLE = 4 * BATCH_SIZE
"""Rows after which a run's rate is worth remembering for the next plan."""

_AHEAD = 4 * BATCH_SIZE
"""Pictures made ahead of the backbone; with the pixels of one this bounds the memory of a run."""


def compute(work: Work) -> Generator[Prepared, None, None]:
    """See :class:`featstore.extraction.engine.Engine`; images come in their order."""
    yield from compute_some(work, work.todo)
    remember_rates(work)


def compute_some(work: Work, todo: Iterable[int]) -> Generator[Prepared, None, None]:
    """The same of the images ``todo``, as they become known, in place of the work's own; no rate is remembered."""
    lanes = Lanes(work.missing, work.store, work.tallies, memory=work.memory)
    read = partial(prepare, work.dataset, wanted=partial(pictures_of, work.missing, work.dataset))
    ahead = max(1, _AHEAD // sum(len(one.job.views) for one in work.missing))
    try:
        for image in in_order(read, todo, workers=work.workers, ahead=ahead):
            lanes.take(image)
            yield image
            if image.rejected and work.ends_at_reject:
                break
        lanes.finish()
    except BaseException:
        lanes.close()
        raise
    finally:
        lanes.end()


def remember_rates(work: Work, side_by_side: int = 1) -> None:
    """Remember how fast this machine has been, on which so many processes computed what is in the tallies."""
    for one, tally in zip(work.missing, work.tallies, strict=True):
        known = rates.is_measured(one.job, work.store)
        if tally.computed >= (_MEASURABLE if known else BATCH_SIZE):  # a rough measure is better than none
            rates.record(one.job, work.store, side_by_side * tally.computed / tally.seconds["backbone"])
