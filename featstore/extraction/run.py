"""The composer of a run: which images to read, who computes what is missing, what came of it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from featstore import machine
from featstore.dataset import Dataset
from featstore.errors import DamageError, InputError, Interrupted, NoSpaceError, ReadOnlyError, StorageError
from featstore.extraction import local
from featstore.extraction.engine import Engine, Tally, Work
from featstore.extraction.missing import Missing
from featstore.extraction.reader import Prepared
from featstore.extraction.report import ExtractReport, RejectedImage, SpecReport
from featstore.extraction.sink import MemorySink
from featstore.job import Job
from featstore.progress import Advance, Progress, silent
from featstore.records import Digests, Reason
from featstore.scan import StatCache, known_digests
from featstore.store import Store

_SAVE_SECONDS = 60.0
"""How often what is known of files is saved during a run."""


@dataclass(frozen=True, slots=True)
class ExtractOptions:
    """How to run; none of it changes a row. ``workers`` are the reading threads (None: one a core)."""

    on_error: Literal["skip", "fail"] = "skip"
    rehash: bool = False
    retry_rejected: bool = False
    workers: int | None = None


@dataclass(frozen=True, slots=True)
class Extraction:
    """A finished run: what it did, and the dataset's digests uint8 (N, 32) with ``known`` bool (N,).

    ``reasons`` is the number of each image's Reason, int16 (jobs, N), 0 where all views asked for have features, -1
    where the job does not ask for it; ``computed`` bool (jobs, N) tells whether a row of it was computed in this run (a
    copy of a computed image included).
    """

    report: ExtractReport
    jobs: tuple[Job, ...]
    digests: Digests
    known: npt.NDArray[np.bool_]
    reasons: npt.NDArray[np.int16]
    computed: npt.NDArray[np.bool_]


def extract(
    dataset: Dataset,
    jobs: Sequence[Job],
    store: Store,
    options: ExtractOptions | None = None,
    progress: Progress = silent,
    memory: MemorySink | None = None,
    engine: Engine = local.compute,
) -> Extraction:
    """Compute and commit every row of ``jobs`` that ``store`` lacks for ``dataset``; one pass over the files.

    ``engine`` is what computes, here or elsewhere. With ``memory`` (for one job only) new rows go there, and the store
    is read but not written.

    Raises
    ------
    DamageError : an image was rejected and ``on_error`` is "fail".
    ReadOnlyError, NoSpaceError, StorageError : the store cannot be written; what was committed stays.
    Interrupted : on Ctrl-C, after the finished rows have been committed.
    """
    if not jobs:
        raise InputError("nothing to extract with", where="backbone", expected="at least one", received="none")
    return _Run(dataset, jobs, store, options or ExtractOptions(), memory, engine).go(progress)


class _Run:
    def __init__(
        self,
        dataset: Dataset,
        jobs: Sequence[Job],
        store: Store,
        options: ExtractOptions,
        memory: MemorySink | None,
        engine: Engine,
    ) -> None:
        self.started = time.perf_counter()
        self.dataset, self.store, self.options, self.memory, self.engine = dataset, store, options, memory, engine
        self.missing = [Missing(job, store, retry_rejected=options.retry_rejected) for job in jobs]
        self.tallies = [Tally() for _ in jobs]
        self.cache = StatCache.load(store.scan_folder, dataset.source.location)
        self.scan = known_digests(dataset, self.cache, rehash=options.rehash)
        self.seconds = defaultdict(float, scan=time.perf_counter() - self.started)
        self.workers = options.workers or machine.describe().cores
        self.saved = time.monotonic()

    def go(self, progress: Progress) -> Extraction:
        todo = self._todo()
        if len(todo):
            label = "extract " + " + ".join(dict.fromkeys(one.job.spec.backbone for one in self.missing))
            with progress(label, len(todo)) as advance:
                self._compute(todo, advance)
        each = [self._reasons(*pair) for pair in zip(self.missing, self.tallies, strict=True)]
        report = self._report(each)
        if self.options.on_error == "fail" and report.rejects:
            raise _rejection(report.rejects)
        fresh = np.stack([one(self.scan.values).any(axis=0) for one in self.missing])
        reasons = np.stack([of_views.max(axis=0) for of_views in each])
        jobs = tuple(one.job for one in self.missing)
        return Extraction(report, jobs, self.scan.values, self.scan.known, reasons, fresh & (reasons == 0))

    def _todo(self) -> npt.NDArray[np.intp]:
        """Indices of the images to read: those of unknown content and those that a row is missing of."""
        needed = ~self.scan.known
        for one in self.missing:
            asked = one.job.asks(self.dataset, self.scan.values)
            needed = needed | (asked & one(self.scan.values).any(axis=0))
        return np.flatnonzero(needed)

    def _compute(self, todo: npt.NDArray[np.intp], advance: Advance) -> None:
        work = Work(
            self.dataset,
            todo.tolist(),
            self.missing,
            self.store,
            self.workers,
            self.memory,
            self.tallies,
            ends_at_reject=self.options.on_error == "fail",
        )
        try:
            with closing(self.engine(work)) as images:
                for image in images:
                    self._take(image)
                    advance(1)
        except KeyboardInterrupt:
            raise self._interrupted() from None
        finally:
            self.cache.save()

    def _interrupted(self) -> Interrupted:
        if self.memory is not None:
            return Interrupted("interrupted: nothing was to be kept, and nothing was")
        return Interrupted(
            f"interrupted: {sum(tally.committed for tally in self.tallies)} new rows are kept in the store",
            where=self.store.location,
            todo="run the same command again: it goes on from there",
        )

    def _take(self, image: Prepared) -> None:
        """Remember what is known of an image now."""
        self.seconds["read"] += image.read_seconds
        self.seconds["decode"] += image.decode_seconds
        self.scan.known[image.index] = image.digest is not None
        self.scan.rejects.pop(image.index, None)  # what an earlier look said
        if image.digest is None or image.stamp is None:
            if image.rejected:
                self.scan.rejects[image.index] = image.rejected
            return
        self.scan.values[image.index] = np.frombuffer(image.digest, np.uint8)
        self.cache.put(self.dataset.paths[image.index], image.stamp, image.digest)
        if time.monotonic() - self.saved > _SAVE_SECONDS:  # a kill must not cost reading a million files again
            self.cache.save()
            self.saved = time.monotonic()

    def _set_damaged_aside(self) -> int:
        """Have the damaged segments that were found set aside, and count them; their rows were missing like any others.
        A lost spec is written anew.

        Where the store cannot be written they stay: none of their rows is served anyway.
        """
        aside = 0
        for one in self.missing:
            namespace = self.store.namespace(one.job.spec)
            is_whole = not one.rows.own.damaged and (namespace.is_described or not namespace.exists)
            if not is_whole and self.memory is None:
                with suppress(InputError, ReadOnlyError, NoSpaceError, StorageError):
                    namespace.writer({})
                    aside += len(one.rows.own.damaged)
        return aside

    def _report(self, reasons: Sequence[npt.NDArray[np.int16]]) -> ExtractReport:
        quarantined = self._set_damaged_aside()
        rejects = tuple(self._rejects(np.max([of_views.max(axis=0) for of_views in reasons], axis=0)))
        for tally in self.tallies:
            for stage, seconds in tally.seconds.items():
                self.seconds[stage] += seconds
        parts = zip(self.missing, self.tallies, reasons, strict=True)
        return ExtractReport(
            images=len(self.dataset),
            specs=tuple(_spec_report(one.job, tally, why) for one, tally, why in parts),
            rejects=rejects,
            seconds=time.perf_counter() - self.started,
            stages=dict(self.seconds),
            workers=self.workers,
            store=self.store.location,
            store_bytes=self.store.size(),
            quarantined=quarantined,
        )

    def _reasons(self, missing: Missing, tally: Tally) -> npt.NDArray[np.int16]:
        """The number of the Reason of each view and image for one job, int16 (V, N), 0 where it has features."""
        reasons = np.maximum(missing.status(self.scan.values), 0)
        if self.options.retry_rejected:
            reasons[:] = 0
        if tally.rejected:
            digests = [digest.tobytes() for digest in self.scan.values]
            for view, row in zip(missing.job.views, reasons, strict=True):
                row[:] = [tally.rejected.get((digest, view), old) for digest, old in zip(digests, row, strict=True)]
        for index, rejected in self.scan.rejects.items():
            reasons[:, index] = rejected.reason
        return np.where(missing.job.asks(self.dataset, self.scan.values), reasons, np.int16(-1))

    def _rejects(self, reasons: npt.NDArray[np.int16]) -> list[RejectedImage]:
        return [
            RejectedImage(
                self.dataset.paths[i],
                self.scan.values[i].tobytes().hex() if self.scan.known[i] else "",
                Reason(int(reasons[i])),
            )
            for i in np.flatnonzero(reasons > 0)
        ]


def _spec_report(job: Job, tally: Tally, reasons: npt.NDArray[np.int16]) -> SpecReport:
    rejected = int((reasons > 0).sum())
    seconds = tally.seconds["backbone"]
    return SpecReport(
        backbone=job.spec.backbone,
        fingerprint=job.spec.fingerprint,
        preprocessing=job.spec.preprocessing,
        pooling=job.spec.pooling,
        precision=job.spec.precision,
        runtime=job.runtime,
        augmentation=job.spec.augmentation,
        views=len(job.views),
        hits=int((reasons >= 0).sum()) - tally.computed - rejected,
        computed=tally.computed,
        rejected=rejected,
        seconds=seconds,
        images_per_second=tally.computed / seconds if seconds else 0.0,
    )


def _rejection(rejects: Sequence[RejectedImage]) -> DamageError:
    first = rejects[0]
    return DamageError(
        f"{len(rejects)} image{'s were' if len(rejects) > 1 else ' was'} rejected, and --on-error is fail",
        where=first.path,
        expected="a JPEG, PNG, WebP, BMP or GIF that can be decoded",
        received=first.reason.code,
        todo="mend or remove the file, or pass --on-error skip to go on without it",
    )
