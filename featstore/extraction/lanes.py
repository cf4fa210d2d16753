"""All lanes of a run, or of one of its workers: what is read is handed to those that lack it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from featstore.dataset import Dataset
from featstore.errors import FeatstoreError
from featstore.extraction.engine import Tally
from featstore.extraction.lane import Lane
from featstore.extraction.missing import Missing
from featstore.extraction.reader import Picture, Prepared
from featstore.extraction.sink import MemorySink
from featstore.store import Store


def pictures_of(missing: Iterable[Missing], dataset: Dataset, index: int, digest: bytes) -> frozenset[Picture]:
    """All that is wanted of the image at ``index``; safe to call from several threads."""
    return frozenset[Picture]().union(*(one.asked(dataset, index, digest) for one in missing))


class Lanes:
    """A lane for each of the jobs that rows are ``missing`` of. Their bases compute in one thread, on ``cores`` (None:
    all). For one thread. What becomes of a job is counted in its tally, of ``tallies``.
    """

    def __init__(
        self,
        missing: Sequence[Missing],
        store: Store,
        tallies: Sequence[Tally],
        *,
        memory: MemorySink | None = None,
        cores: int | None = None,
    ) -> None:
        self._missing = missing
        self._base = ThreadPoolExecutor(1, thread_name_prefix="featstore-base")
        self._lanes = [
            Lane(one.job, store, self._base, tally, sink=memory, cores=cores)
            for one, tally in zip(missing, tallies, strict=True)
        ]

    def take(self, image: Prepared) -> None:
        """Hand an image to the lanes that lack what was made of it."""
        if image.digest is None:
            return
        for missing, lane in zip(self._missing, self._lanes, strict=True):
            pictures = image.wanted & missing.pictures(image.digest)
            if not (pictures and lane.claim(image.digest)):
                continue
            for picture in sorted(pictures, key=lambda one: one.view):
                if image.rejected:
                    lane.reject(image.digest, picture.view, image.rejected.reason)
                else:
                    lane.push(image.digest, picture.view, image.pixels[picture])

    def finish(self) -> None:
        """Compute and commit all that was taken."""
        for lane in self._lanes:
            lane.finish()

    def count_in(self, tallies: Sequence[Tally]) -> None:
        """Count what comes in other tallies; after :meth:`finish`."""
        for lane, tally in zip(self._lanes, tallies, strict=True):
            lane.tally = tally

    def close(self) -> None:
        """Commit what is complete, because of an error; that one is to be reported, and no other."""
        for lane in self._lanes:
            with suppress(FeatstoreError):
                lane.close()

    def end(self) -> None:
        """Let the base's thread go."""
        self._base.shutdown()
