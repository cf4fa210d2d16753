"""The composer of a run: which images to read, which lane wants them, what came of it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from featstore import machine, rates
from featstore.dataset import Dataset
from featstore.errors import DamageError, FeatstoreError, InputError, Interrupted
from featstore.extraction.lane import Lane, MemorySink
from featstore.extraction.reader import Picture, Prepared, in_order, prepare
from featstore.extraction.report import ExtractReport, RejectedImage, SpecReport
from featstore.job import Job
from featstore.progress import Advance, Progress, silent
from featstore.records import SPLITS, Digests, Reason
from featstore.runtime import BATCH_SIZE
from featstore.scan import StatCache, known_digests
from featstore.store import Store

_MEASURABLE = 4 * BATCH_SIZE
"""Rows after which a run's rate is worth remembering for the next plan."""

_SAVE_SECONDS = 60.0
"""How often what is known of files is saved during a run."""

_AHEAD = 4 * BATCH_SIZE
"""Pictures made ahead of the backbone; with the pixels of one this bounds the memory of a run."""


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
) -> Extraction:
    """Compute and commit every row of ``jobs`` that ``store`` lacks for ``dataset``; one pass over the files.

    With ``memory`` (for one job only) new rows go there, and the store is read but not written.

    Raises
    ------
    DamageError : an image was rejected and ``on_error`` is "fail".
    ReadOnlyError, NoSpaceError, StorageError : the store cannot be written; what was committed stays.
    Interrupted : on Ctrl-C, after the finished rows have been committed.
    """
    if not jobs:
        raise InputError("nothing to extract with", where="backbone", expected="at least one", received="none")
    return _Run(dataset, jobs, store, options or ExtractOptions(), memory).go(progress)


class _Run:
    def __init__(
        self,
        dataset: Dataset,
        jobs: Sequence[Job],
        store: Store,
        options: ExtractOptions,
        memory: MemorySink | None,
    ) -> None:
        self.started = time.perf_counter()
        self.dataset, self.store, self.options = dataset, store, options
        self.base = ThreadPoolExecutor(1, thread_name_prefix="featstore-base")
        retry = options.retry_rejected
        self.lanes = [Lane(job, store, self.base, retry_rejected=retry, sink=memory) for job in jobs]
        self.cache = StatCache.load(store.scan_folder, dataset.source.location)
        self.scan = known_digests(dataset, self.cache, rehash=options.rehash)
        self.seconds = defaultdict(float, scan=time.perf_counter() - self.started)
        self.workers = options.workers or machine.describe().cores
        self.saved = time.monotonic()

    def go(self, progress: Progress) -> Extraction:
        todo = self._todo()
        if len(todo):
            label = "extract " + " + ".join(dict.fromkeys(lane.job.spec.backbone for lane in self.lanes))
            with progress(label, len(todo)) as advance:
                self._compute(todo, advance)
        for lane in self.lanes:
            lane.set_damaged_aside()
        each = [self._reasons(lane) for lane in self.lanes]
        report = self._report(each)
        if self.options.on_error == "fail" and report.rejects:
            raise _rejection(report.rejects)
        fresh = np.stack([lane.missing(self.scan.values).any(axis=0) for lane in self.lanes])
        reasons = np.stack([of_views.max(axis=0) for of_views in each])
        jobs = tuple(lane.job for lane in self.lanes)
        return Extraction(report, jobs, self.scan.values, self.scan.known, reasons, fresh & (reasons == 0))

    def _todo(self) -> npt.NDArray[np.intp]:
        """Indices of the images to read: those of unknown content and those that a lane has no row for."""
        needed = ~self.scan.known
        for lane in self.lanes:
            asked = lane.job.asks(self.dataset, self.scan.values)
            needed = needed | (asked & lane.missing(self.scan.values).any(axis=0))
        return np.flatnonzero(needed)

    def _compute(self, todo: npt.NDArray[np.intp], advance: Advance) -> None:
        read = partial(prepare, self.dataset, wanted=self._wanted)
        ahead = max(1, _AHEAD // sum(len(lane.job.views) for lane in self.lanes))
        try:
            for image in in_order(read, todo.tolist(), workers=self.workers, ahead=ahead):
                self._take(image)
                advance(1)
                if image.rejected and self.options.on_error == "fail":
                    break
            for lane in self.lanes:
                lane.finish()
        except KeyboardInterrupt:
            self._close_lanes()
            kept = sum(lane.committed for lane in self.lanes)
            raise Interrupted(
                f"interrupted: {kept} new rows are kept in the store",
                where=self.store.path,
                todo="run the same command again: it goes on from there",
            ) from None
        except BaseException:
            self._close_lanes()
            raise
        finally:
            self.base.shutdown()
            self.cache.save()

    def _wanted(self, index: int, digest: bytes) -> frozenset[Picture]:
        return frozenset().union(*(self._pictures(lane, index, digest) for lane in self.lanes))

    def _pictures(self, lane: Lane, index: int, digest: bytes) -> frozenset[Picture]:
        """What the lane wants of an image: nothing if its job is not about the image's split."""
        asked = lane.job.splits == SPLITS or self.dataset.split_at(index, digest) in lane.job.splits
        return lane.pictures(digest) if asked else frozenset()

    def _take(self, image: Prepared) -> None:
        """Hand one image to the lanes that want it."""
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
        for lane in self.lanes:
            pictures = self._pictures(lane, image.index, image.digest)
            if not (pictures and lane.claim(image.digest)):
                continue
            for picture in sorted(pictures, key=lambda one: one.view):
                if image.rejected:
                    lane.reject(image.digest, picture.view, image.rejected.reason)
                else:
                    lane.push(image.digest, picture.view, image.pixels[picture])

    def _close_lanes(self) -> None:
        """Commit what is complete; the error that brought us here is the one to report."""
        for lane in self.lanes:
            try:
                lane.close()
            except FeatstoreError:
                continue

    def _report(self, reasons: Sequence[npt.NDArray[np.int16]]) -> ExtractReport:
        rejects = tuple(self._rejects(np.max([of_views.max(axis=0) for of_views in reasons], axis=0)))
        for lane in self.lanes:
            for stage, seconds in lane.seconds.items():
                self.seconds[stage] += seconds
            known = rates.is_measured(lane.job, self.store)
            if lane.computed >= (_MEASURABLE if known else BATCH_SIZE):  # a rough measure is better than none
                rates.record(lane.job, self.store, lane.computed / lane.seconds["backbone"])
        return ExtractReport(
            images=len(self.dataset),
            specs=tuple(_spec_report(lane, why) for lane, why in zip(self.lanes, reasons, strict=True)),
            rejects=rejects,
            seconds=time.perf_counter() - self.started,
            stages=dict(self.seconds),
            workers=self.workers,
            store=self.store.path,
            store_bytes=self.store.size(),
            quarantined=sum(lane.quarantined for lane in self.lanes),
        )

    def _reasons(self, lane: Lane) -> npt.NDArray[np.int16]:
        """The number of the Reason of each view and image for one lane, int16 (V, N), 0 where it has features."""
        reasons = np.maximum(lane.status(self.scan.values), 0)
        if self.options.retry_rejected:
            reasons[:] = 0
        if lane.rejected:
            digests = [digest.tobytes() for digest in self.scan.values]
            for view, row in zip(lane.job.views, reasons, strict=True):
                row[:] = [lane.rejected.get((digest, view), old) for digest, old in zip(digests, row, strict=True)]
        for index, rejected in self.scan.rejects.items():
            reasons[:, index] = rejected.reason
        return np.where(lane.job.asks(self.dataset, self.scan.values), reasons, np.int16(-1))

    def _rejects(self, reasons: npt.NDArray[np.int16]) -> list[RejectedImage]:
        return [
            RejectedImage(
                self.dataset.paths[i],
                self.scan.values[i].tobytes().hex() if self.scan.known[i] else "",
                Reason(int(reasons[i])),
            )
            for i in np.flatnonzero(reasons > 0)
        ]


def _spec_report(lane: Lane, reasons: npt.NDArray[np.int16]) -> SpecReport:
    rejected = int((reasons > 0).sum())
    seconds = lane.seconds["backbone"]
    return SpecReport(
        backbone=lane.job.spec.backbone,
        fingerprint=lane.job.spec.fingerprint,
        preprocessing=lane.job.spec.preprocessing,
        pooling=lane.job.spec.pooling,
        precision=lane.job.spec.precision,
        runtime=lane.job.runtime,
        augmentation=lane.job.spec.augmentation,
        views=len(lane.job.views),
        hits=int((reasons >= 0).sum()) - lane.computed - rejected,
        computed=lane.computed,
        rejected=rejected,
        seconds=seconds,
        images_per_second=lane.computed / seconds if seconds else 0.0,
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
