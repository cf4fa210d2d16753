"""Run every way that fits the budget, each in a process of its own, so that its memory is its own, too.

The cheapest is named beforehand, cached features and logistic regression; every other is tested against it. The test
split is scored once, at the end, for the way that was best on validation.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import featstore
from featstore import machine, rates
from featstore.dataset import Dataset, open_dataset, require_trainable
from featstore.errors import DamageError, InputError
from featstore.job import resolve_jobs
from featstore.processes import EndedError, in_a_process
from featstore.progress import Progress, for_stream, silent
from featstore.records import SPLITS
from featstore.scan import digest_all
from featstore.show import duration
from featstore.store import Store
from featstore.wording import counted
from heads.compose import train_on
from heads.contest.plan import Contest, Way
from heads.contest.standing import Line, Outcome, Standing
from heads.evaluate import evaluate_on
from heads.evaluation.compare import against_first
from heads.evaluation.metrics import Metrics, measure
from heads.live.plan import LiveOptions, LivePlan
from heads.live.run import train_live
from heads.live.splits import require_held_out
from heads.training.train import TrainOptions

LEAST_SECONDS = 20.0
"""A network that would get less of the budget is left out."""

PATIENCE = 0.5
"""Early stopping: the share of its epochs that a network may go on without a better validation loss."""


def compare_ways(contest: Contest, *, store: Store, out: Path, progress: Progress = silent) -> Standing:
    """Run every way that fits into the budget; killed, the same call goes on with the networks where they were.

    A way that cannot be run, for itself or because its process is ended from outside, is left out, with a note.
    Raises InputError for a dataset without enough images to train or validate on, or if no way can be run, and what
    the first of them raises for want of permission or space.
    """
    dataset = _open(contest, store)
    _require_comparable(dataset, store)
    ran, notes = _run_all(contest, dataset, store, out, aloud=progress is not silent)
    if not ran:
        raise InputError("nothing could be compared", where=contest.data, received="; ".join(notes))
    lines, some = _judged(ran)
    standing = Standing(dataset.name, len(dataset), lines)
    best = standing.best
    test, bundle = _tested(best, dataset, store, out, progress)
    tested = replace(best, test=test, outcomes=(replace(best.outcomes[0], bundle=bundle), *best.outcomes[1:]))
    lines = tuple(tested if line is best else line for line in lines)
    return replace(standing, lines=lines, notes=(*_reading(contest, dataset, lines, some), *notes))


def _require_comparable(dataset: Dataset, store: Store) -> None:
    """Raise now, and once, what every way would."""
    splits = dataset.split_of(digest_all(dataset, store.scan_folder).values)
    require_trainable(dataset, splits)
    require_held_out(dataset, splits)


_Ran = dict[Way, tuple[Outcome, ...]]


def _run_all(contest: Contest, dataset: Dataset, store: Store, out: Path, *, aloud: bool) -> tuple[_Ran, list[str]]:
    """What came of every way that fits, in their order, and a note on each of the others."""
    started, ran, notes = time.monotonic(), _Ran(), list[str]()
    waiting = dict.fromkeys(contest.ways, "")
    for _ in range(2):  # what finds no room is asked once more, when it is known what the others have left over
        ways, waiting = list(waiting), {}
        for place, way in enumerate(ways):
            left = None if contest.minutes is None else contest.minutes * 60 - (time.monotonic() - started)
            seconds, why = _fits(ways[place:], left, _extraction_seconds(dataset, way, store), is_first=not ran)
            if why:
                waiting[way] = why
                continue
            seeds = range(contest.seeds if way.head != "logreg" else 1)
            each = None if seconds is None else seconds / len(seeds)
            given = (store.location, out, each, aloud)
            try:
                ran[way] = tuple(in_a_process(_run, contest, way, seed, *given) for seed in seeds)
            except (InputError, DamageError) as error:
                notes.append(f"left out: {way.name}: {error.what}")
            except EndedError:
                notes.append(f"left out: {way.name}: its process was ended from outside, perhaps for want of memory")
    notes += [f"left out for want of time: {way.name}{why}" for way, why in waiting.items()]
    return {way: ran[way] for way in contest.ways if way in ran}, notes


def _fits(
    left: Sequence[Way], remaining: float | None, extraction: float, *, is_first: bool
) -> tuple[float | None, str]:
    """The seconds that the first of the ways ``left`` may train, None for all it wants, and why it does not fit, or "".

    remaining : of the budget, None without one. extraction : what the way needs before it can train. A network gets its
    share of what remains, less its extraction; the cheapest way is run in any case.
    """
    way = left[0]
    if remaining is None or is_first:
        return None, ""
    if way.head is not None:
        why = f" (its extraction takes about {duration(extraction)})" if extraction > max(0.0, remaining) else ""
        return None, why
    weights = [other.weight for other in left if other.head is None]
    share = 0.9 * max(0.0, remaining) * way.weight / sum(weights) - extraction
    return share, "" if share >= LEAST_SECONDS else f" (it would get {duration(max(0.0, share))})"


def _extraction_seconds(dataset: Dataset, way: Way, store: Store) -> float:
    """About how long it takes to extract what the way lacks; of maps all, though some may be stored already."""
    request = way.plan.request
    if way.head is not None:
        return sum(part.seconds or 0.0 for part in featstore.plan(dataset, request, store=store).specs)
    if not way.plan.on_maps:
        return 0.0
    [job, *_] = resolve_jobs([request], store, dataset)
    rate = rates.estimate(job, store)
    return _trained_and_judged(dataset, store, request.views) / rate.images_per_second if rate else 0.0


def _trained_and_judged(dataset: Dataset, store: Store, views: int) -> int:
    """Pictures that training and validation need of the base: all views of the one, the images of the other."""
    splits = dataset.split_of(digest_all(dataset, store.scan_folder).values)[dataset.labels >= 0]
    train, validation = ((splits == SPLITS.index(name)).sum() for name in ("train", "validation"))
    return int(views * train + validation)


def _judged(ran: dict[Way, tuple[Outcome, ...]]) -> tuple[tuple[Line, ...], int]:
    """A line for each way, all on the validation images that every one of them judged; how many others there are."""
    everyone = [outcome for outcomes in ran.values() for outcome in outcomes]
    common = set.intersection(*(set(outcome.paths) for outcome in everyone))
    every = {path for outcome in everyone for path in outcome.paths}
    paths = tuple(path for path in everyone[0].paths if path in common)
    lines = []
    for way, outcomes in ran.items():
        same = tuple(outcome.only(paths) for outcome in outcomes)
        lines.append(Line(way, same, measure(same[0].answers, same[0].probabilities, same[0].classes)))
    pairs = against_first([line.way.name for line in lines], np.stack([line.outcomes[0].right for line in lines]))
    rest = (replace(line, pair=pair) for line, pair in zip(lines[1:], pairs, strict=True))
    return (lines[0], *rest), len(every) - len(paths)


def _reading(contest: Contest, dataset: Dataset, lines: Sequence[Line], some: int) -> Iterator[str]:
    if contest.limit:
        train, *others = (int((dataset.splits == code).sum()) for code in range(3))
        yield f"a quick look: {counted(train, 'image')} to train on, {others[0]} to validate and {others[1]} to test"
    yield f"every way was judged on the same {counted(len(lines[0].outcomes[0].paths), 'validation image')}"
    if some:
        yield f"{counted(some, 'validation image')} that not every way can judge (of a class new to it, say) left out"
    if any(line.test for line in lines):
        yield "the test split was scored once, for the best on validation alone; that one is the best of many there"
    networks = [line for line in lines if line.way.head is None]
    if networks:
        yield "networks keep their best epoch on the validation images; half their epochs without a better one end them"
    for line in networks:
        cut = [outcome.epochs for outcome in line.outcomes if outcome.cut_short]
        if cut:
            yield f"cut short by the budget: {line.way.name}, {cut[0][0]} of {cut[0][1]} epochs"
    yield "base seconds are the pictures by this machine's measured rate, whether they were in the store already or not"
    yield "memory is what a process really held: a cached way whose rows are all in the store does without the base"


def _open(contest: Contest, store: Store) -> Dataset:
    dataset = open_dataset(contest.data, contest.dataset)
    if contest.limit is None:
        return dataset
    digests = digest_all(dataset, store.scan_folder).values
    splits, random = dataset.split_of(digests), np.random.default_rng(contest.dataset.seed)
    chosen = []
    for code, most in ((0, contest.limit), (1, -(-contest.limit // 2)), (2, -(-contest.limit // 2))):
        inside = random.permutation(np.flatnonzero(splits == code))
        chosen.append(inside[:most])
    kept = np.sort(np.concatenate(chosen))
    return replace(dataset.select(kept), splits=splits[kept].astype(np.int8))


def _run(contest: Contest, way: Way, seed: int, store: str, out: Path, seconds: float | None, aloud: bool) -> Outcome:
    """In a process of its own."""
    place = Store.open(store)
    dataset, progress = _open(contest, place), for_stream() if aloud else silent
    if way.head is not None:
        return _cached(dataset, way, seed, place, progress)
    patience = max(1, round(PATIENCE * way.plan.epochs))
    options = LiveOptions(batch_size=32, patience=patience, seed=seed, seconds=seconds)
    return _network(dataset, replace(way.plan, options=options), place, out, progress)


def _cached(dataset: Dataset, way: Way, seed: int, store: Store, progress: Progress) -> Outcome:
    request = way.plan.request
    done, compared = train_on(
        dataset, [request], [str(way.head)], store=store, bundles=None, options=TrainOptions(seed=seed),
        progress=progress,
    )  # fmt: skip
    best = compared.best
    images = _trained_and_judged(dataset, store, request.views)
    share = images / sum(spec.hits + spec.computed + spec.rejected for spec in done.report.specs)
    seconds = best.cost.image_seconds
    return Outcome(
        probabilities=best.probabilities,
        answers=best.answers,
        paths=best.paths,
        classes=compared.classes,
        base_seconds=None if seconds is None else share * seconds,
        train_seconds=best.cost.choose_seconds,
        base_images=images,
        peak_bytes=machine.peak_memory(),
        bytes=round(share * best.cost.feature_bytes),
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
        cut_short=found.cut_short,
        bundle=found.bundle,
    )


def _tested(
    best: Line, dataset: Dataset, store: Store, out: Path, progress: Progress
) -> tuple[Metrics | None, Path | None]:
    """The one score on the test split, if there is one, and the bundle of the best way."""
    if best.way.head is not None:
        _, compared = train_on(
            dataset, [best.way.plan.request], [best.way.head], store=store, bundles=out / "bundles", progress=progress
        )
        return compared.best.test, compared.best.bundle
    bundle = best.outcomes[0].bundle
    splits = dataset.split_of(digest_all(dataset, store.scan_folder).values)
    if bundle is None or not (splits[dataset.labels >= 0] == SPLITS.index("test")).any():
        return None, bundle
    [found] = evaluate_on(dataset, [bundle], split="test", store=store, progress=progress).results
    return found.metrics, bundle
