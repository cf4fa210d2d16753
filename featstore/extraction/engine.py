"""What an engine is: it computes and commits the rows that a run lacks, here or on other machines.

``run`` plans, counts and reports, whatever the engine; an engine reads images and hands them to lanes, wherever.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from featstore.dataset import Dataset
from featstore.extraction.missing import Missing
from featstore.extraction.reader import Prepared
from featstore.extraction.sink import MemorySink
from featstore.records import Reason
from featstore.store import Store


@dataclass(slots=True)
class Tally:
    """What became of one job in a run so far.

    ``computed`` counts the rows of features that were added, ``committed`` those (rejects among them) that are safe;
    ``rejected`` holds rejects by (digest, view); ``seconds`` is time by stage ("startup", "backbone", "write"), added
    up over all bases that compute side by side.
    """

    computed: int = 0
    committed: int = 0
    rejected: dict[tuple[bytes, int], Reason] = field(default_factory=dict)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, other: Tally) -> None:
        """Count what ``other`` counted, too."""
        self.computed += other.computed
        self.committed += other.committed
        self.rejected.update(other.rejected)
        for stage, seconds in other.seconds.items():
            self.seconds[stage] += seconds


@dataclass(frozen=True, slots=True)
class Work:
    """What a run asks of an engine.

    The images at the indices ``todo`` of ``dataset`` are to be read, and the rows computed that are ``missing``. They
    go to ``store``, or to ``memory`` (those of one job). ``workers`` threads read. An image that is rejected is the
    last one if the work ``ends_at_reject``. What is done is counted in ``tallies``, one for each of ``missing``.
    """

    dataset: Dataset
    todo: Sequence[int]
    missing: Sequence[Missing]
    store: Store
    workers: int
    memory: MemorySink | None
    tallies: Sequence[Tally]
    ends_at_reject: bool = False


class Engine(Protocol):
    """Computes what is asked for, and yields every image of it once it is read, in any order, its pixels let go or not.

    Who stops before the end closes the iterator: rows that are complete are then committed, and counted.
    Raises what :func:`featstore.extract` raises; then, too, rows that are complete are committed.
    """

    def __call__(self, work: Work) -> Generator[Prepared, None, None]:
        """Do the work."""
        ...
