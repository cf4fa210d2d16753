"""Run every way that fits the budget, each in a process of its own, so that its memory is its own, too.

The cheapest is named beforehand, cached features and logistic regression; every other is tested against it. The test
split is scored once, at the end, for the way that was best on validation.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from featstore.dataset import Dataset, open_dataset
from featstore.errors import InputError
from featstore.progress import Progress, for_stream, silent
from featstore.records import SPLITS
from featstore.scan import digest_all
from featstore.store import Store
from heads.compose import train_on
from heads.contest.plan import Contest, Way
from heads.contest.standing import Line, Outcome, Standing
from heads.evaluate import evaluate_on
from heads.evaluation.compare import against_first
from heads.evaluation.metrics import measure
from heads.live.plan import LiveOptions, LivePlan
from heads.live.run import train_live
from heads.training.train import TrainOptions

LEAST_SECONDS = 20.0
"""A network that would get less of the budget is left out."""


def compare_ways(contest: Contest, *, store: Store, out: Path, progress: Progress = silent) -> Standing:
    """Run every way that fits into the budget; killed, the same call goes on with the networks where it was.

    Raises what training and extraction raise; a way that fails for its own reasons is left out, with a note.
    """
    dataset = _open(contest)
    ways, notes = contest.ways, []
    started, lines = time.monotonic(), []
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as processes:
        for place, way in enumerate(ways):
            slice_ = _slice(contest, ways[place:], time.monotonic() - started)
            if way.head is None and slice_ is not None and slice_ < LEAST_SECONDS:
                notes.append(f"left out for want of time: {way.name}")
                continue
            try:
                outcomes = tuple(
                    processes.submit(_run, contest, way, seed, store.path, out, slice_ and slice_ / contest.seeds,
                                     progress is not silent).result()
                    for seed in range(contest.seeds if way.head != "logreg" else 1)
                )  # fmt: skip
            except InputError as error:
                notes.append(f"left out: {way.name}: {error.what}")
                continue
            first = outcomes[0]
            if first.epochs[0] < first.epochs[1]:
                notes.append(f"cut short by the budget: {way.name}, {first.epochs[0]} of {first.epochs[1]} epochs")
            lines.append(Line(way, outcomes, measure(first.answers, first.probabilities, first.classes)))
    if not lines:
        raise InputError("nothing could be compared", where=contest.data, received="; ".join(notes))
    pairs = against_first([line.way.name for line in lines], np.stack([line.outcomes[0].right for line in lines]))
    lines = [lines[0], *(replace(line, pair=pair) for line, pair in zip(lines[1:], pairs, strict=True))]
    standing = Standing(dataset.name, len(dataset), tuple(lines), (*_reading(contest), *notes))
    return _tested(standing, contest, dataset, store, out, progress)


def _reading(contest: Contest) -> Iterator[str]:
    if contest.limit:
        yield f"a quick look: {contest.limit} training images"
    yield "every way was judged on the same validation images; the test split was scored once, for the best alone"
    yield "base seconds are the pictures by this machine's measured rate, whether they were in the store already or not"


def _slice(contest: Contest, left: Sequence[Way], used: float) -> float | None:
    """Seconds for the next network, of what is left; cached heads take what they take."""
    if contest.minutes is None or left[0].head is not None:
        return None
    weights = [way.weight for way in left if way.head is None]
    return max(0.0, contest.minutes * 60 - used) * left[0].weight / sum(weights) * 0.9


def _open(contest: Contest) -> Dataset:
    dataset = open_dataset(contest.data, contest.dataset)
    if contest.limit is None:
        return dataset
    digests = digest_all(dataset, None).values
    splits, random = dataset.split_of(digests), np.random.default_rng(contest.dataset.seed)
    chosen = []
    for code, most in ((0, contest.limit), (1, -(-contest.limit // 2)), (2, -(-contest.limit // 2))):
        inside = random.permutation(np.flatnonzero(splits == code))
        chosen.append(inside[:most])
    kept = np.sort(np.concatenate(chosen))
    return replace(dataset.select(kept), splits=splits[kept].astype(np.int8))


def _run(contest: Contest, way: Way, seed: int, store: Path, out: Path, seconds: float | None, aloud: bool) -> Outcome:
    """In a process of its own."""
    dataset, place = _open(contest), Store.open(store)
    progress: Progress = for_stream() if aloud else silent
    if way.head is not None:
        return _cached(dataset, way, seed, place, progress)
    options = LiveOptions(batch_size=32, patience=5, seed=seed, seconds=seconds)
    return _network(dataset, replace(way.plan, options=options), place, out, progress)


def _cached(dataset: Dataset, way: Way, seed: int, store: Store, progress: Progress) -> Outcome:
    request = way.plan.request
    done, compared = train_on(
        dataset, [request], [str(way.head)], store=store, bundles=None, options=TrainOptions(seed=seed),
        progress=progress,
    )  # fmt: skip
    best = compared.best
    return Outcome(
        probabilities=best.probabilities,
        answers=best.answers,
        paths=best.paths,
        classes=compared.classes,
        base_seconds=best.cost.image_seconds,
        train_seconds=best.cost.choose_seconds,
        base_images=sum(spec.hits + spec.computed for spec in done.report.specs),
        peak_bytes=_peak(),
        bytes=best.cost.feature_bytes,
    )


def _network(dataset: Dataset, plan: LivePlan, store: Store, out: Path, progress: Progress) -> Outcome:
    found = train_live(dataset, plan, store=store, out=out, with_test=False, progress=progress)
    return Outcome(
        probabilities=found.probabilities,
        answers=found.answers,
        paths=found.paths,
        classes=dataset.classes,
        base_seconds=found.base_seconds,
        train_seconds=sum(found.epoch_seconds),
        base_images=found.base_images,
        peak_bytes=found.peak_bytes,
        bytes=found.bytes,
        epochs=(len(found.epoch_seconds), sum(stage.epochs for stage in plan.stages)),
        bundle=found.bundle,
    )


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _tested(
    standing: Standing, contest: Contest, dataset: Dataset, store: Store, out: Path, progress: Progress
) -> Standing:
    """The standing with the one score on the test split, if there is one."""
    best = standing.best
    if best.way.head is not None:
        options = TrainOptions(seed=0)
        _, compared = train_on(
            dataset, [best.way.plan.request], [best.way.head], store=store, bundles=out / "bundles", options=options,
            progress=progress,
        )  # fmt: skip
        test, bundle = compared.best.test, compared.best.bundle
    else:
        bundle = best.outcomes[0].bundle
        has_test = (dataset.splits == SPLITS.index("test")).any() or (dataset.splits < 0).any()
        test = None
        if bundle is not None and has_test:
            [found] = evaluate_on(dataset, [bundle], split="test", store=store, progress=progress).results
            test = found.metrics
    outcomes = (replace(best.outcomes[0], bundle=bundle), *best.outcomes[1:])
    tested = replace(best, outcomes=outcomes, test=test)
    return replace(standing, lines=tuple(tested if line is best else line for line in standing.lines))
