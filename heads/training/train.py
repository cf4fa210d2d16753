"""Compare heads on cached tables: choose each on held-out rows, rank them, fit the choice again, test it once."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np

from featstore.errors import InputError
from featstore.progress import Progress, silent
from featstore.table import StoredRows, Table, stack_tables
from featstore.versions import installed_versions
from featstore.wording import counted
from heads.bundles.bundle import write_bundle
from heads.bundles.card import Card, rows_digest
from heads.bundles.images import JudgedImages
from heads.evaluation.calibration import Method, cross_calibrated, fit_calibration
from heads.evaluation.clip import fit_clip
from heads.evaluation.leaks import Leak, find_leaks, unsearched
from heads.evaluation.metrics import measure
from heads.kinds.catalog import HEADS, find
from heads.kinds.grids import kinds_of
from heads.kinds.problem import HeadKind
from heads.training.choice import Choice, choose, prepare
from heads.training.doubts import against_best, judged_again, score_on_test, warnings_of
from heads.training.fit import FittedHead, over_all_classes, refit
from heads.training.journal import Journal, key_of
from heads.training.results import Comparison, Cost, Result, TrainingSet, ranked

RefitOn = Literal["train", "train+validation"]


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How heads are compared.

    balanced : weigh images inversely to the size of their class.
    calibrate : how scores become probabilities; None is a temperature for heads whose scores are no log-odds.
    refit_on : the rows of the last fit, which follows the choice.
    fit_all : fit and save every head, not only the best; only the best is scored on test.
    as_sweep : leave out combinations that a kind is not meant for, instead of trying what was asked for.
    stream : leave features in the store and learn from batches of them, as from tables that are too large anyway.
    grids : values to try in place of a kind's own, as in :func:`heads.kinds.grids.kinds_of`.
    """

    balanced: bool = False
    calibrate: Method | None = None
    refit_on: RefitOn = "train"
    fit_all: bool = True
    as_sweep: bool = False
    stream: bool = False
    seed: int = 0
    grids: tuple[str, ...] = ()


def train(
    sets: Sequence[TrainingSet],
    heads: Sequence[str],
    *,
    bundles: Path | None,
    options: TrainOptions | None = None,
    journal: Path | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Compare each of the ``heads`` (names of :data:`heads.kinds.catalog.HEADS`) on each of the ``sets``.

    bundles : the folder to save heads in, None to fit and save none. journal : the folder of choices already made.
    Raises InputError for an unknown head or grid before any work, or if no head fits any table, and what
    :mod:`heads.training.choice` and :func:`heads.bundles.bundle.write_bundle` raise.
    """
    options = options or TrainOptions()
    kinds = kinds_of(heads, options.grids)
    results: list[Result] = []
    notes: list[str] = []
    with progress("choosing", len(sets) * len(kinds), "heads") as advance:
        for place in range(len(sets)):
            for result in _results(place, sets, kinds, Journal(journal), options, notes):
                results += [result] if result else []
                advance(1)
    if not results:
        raise InputError("no head was trained", received="; ".join(notes), todo="ask for other heads or poolings")
    best_first = ranked(results)
    classes = tuple(one.name for one in best_first[0].held_out.per_class)
    tables = sets[_narrowest(best_first[0], sets)].tables()
    originals = {split: table.originals for split, table in tables.items()}
    leaks = find_leaks(originals, progress=progress)
    notes += unsearched(originals)
    best_first = (judged_again(best_first[0], classes, leaks, seed=options.seed), *best_first[1:])
    if bundles is not None:
        best_first = _fit_again(best_first, sets, leaks, bundles, options, notes, progress)
    pairs = against_best(best_first)
    notes += [*_how(best_first, options), *warnings_of(best_first[0], pairs, leaks)]
    return Comparison(best_first, classes, tuple(notes), pairs, leaks)


def _narrowest(best: Result, sets: Sequence[TrainingSet]) -> int:
    """The set that copies are looked for in: average pooling tells images apart best, and is quick."""
    return next((i for i, one in enumerate(sets) if one.pooling == "avg"), best.place)


def _results(
    place: int, sets: Sequence[TrainingSet], kinds: Sequence[HeadKind], journal: Journal, options: TrainOptions,
    notes: list[str],
) -> Iterator[Result | None]:  # fmt: skip
    """A result for each kind, its choice from the journal or made now; None for one that is left out, and a note.

    The test split is not even looked at. The tables are let go before those of the next set are read.
    """
    training_set = sets[place]
    tables = training_set.tables()
    train_table, validation = tables["train"], tables.get("validation")
    if isinstance(train_table.X, StoredRows):
        mib = sum(table.X.nbytes for table in tables.values()) // 2**20
        notes.append(
            f"the features of {training_set.backbone} {training_set.pooling} ({mib} MiB) stay in the store, and heads "
            "learn from batches of them"
        )
    judging = None
    for kind in kinds:
        why = _left_out(kind, training_set, train_table, options.as_sweep)
        if why is not None:
            notes += (
                [f"{kind.name} on {training_set.backbone} {training_set.pooling} was left out: {why}"] if why else []
            )
            yield None
            continue
        key = key_of(kind, train_table, validation, balanced=options.balanced, seed=options.seed)
        choice = journal.read(key)
        if choice is None:
            judging = judging or prepare(train_table, validation, balanced=options.balanced, seed=options.seed)
            choice = choose(kind, judging)
            journal.write(key, choice)
        yield _result(place, sets, kind, choice, tables, options)


def _left_out(kind: HeadKind, training_set: TrainingSet, table: Table, as_sweep: bool) -> str | None:
    """Why a kind is not fitted on this table, empty where that surprises nobody; None if it is."""
    width = sum(table.widths)
    if len(table.widths) < kind.blocks:
        return "" if as_sweep else "it combines backbones, ask for them as -b vgg16+xception"
    if isinstance(table.X, StoredRows) and not kind.stream:
        able = ", ".join(one.name for one in HEADS.values() if one.stream)
        return f"its features stay in the store, and only some heads learn from there: {able}"
    if kind.longest is not None and len(table) > kind.longest:
        return f"{len(table)} images are more than {kind.longest}"
    if as_sweep and kind.widest is not None and width > kind.widest:
        return f"{width} features are more than {kind.widest}"
    return "" if as_sweep and training_set.pooling not in kind.poolings else None


def _result(
    place: int, sets: Sequence[TrainingSet], kind: HeadKind, choice: Choice, tables: Mapping[str, Table],
    options: TrainOptions,
) -> Result:  # fmt: skip
    training_set = sets[place]
    held_out = tables["validation" if choice.on == "validation" else "train"]
    probabilities = cross_calibrated(_method(kind, options), choice.logits, choice.columns, seed=options.seed)
    probabilities = over_all_classes(probabilities, choice.labels, len(held_out.classes))
    answers = held_out.y[choice.rows]
    return Result(
        backbone=training_set.backbone,
        pooling=training_set.pooling,
        preprocessing=training_set.preprocessing,
        views=training_set.views,
        head=kind.name,
        fingerprints=tuple(spec.fingerprint for spec in held_out.specs),
        choice=choice,
        probabilities=probabilities,
        answers=answers,
        paths=tuple(held_out.paths[row] for row in choice.rows),
        digests=held_out.digests[choice.rows],
        held_out=measure(answers, probabilities, held_out.classes, seed=options.seed),
        cost=Cost(training_set.feature_bytes, training_set.image_seconds, choice.seconds),
        place=place,
    )


def _method(kind: HeadKind, options: TrainOptions) -> Method:
    return options.calibrate or ("temperature" if kind.tempered else "none")


def _how(best_first: Sequence[Result], options: TrainOptions) -> list[str]:
    best = best_first[0]
    values = sum(len(result.choice.trials) for result in best_first)
    words = (
        f"{counted(values, 'setting')} of {counted(len(best_first), 'head')} were compared on {best.choice.on} "
        f"({counted(best.held_out.n, 'image')}); the best of many flatters there"
    )
    early = [result for result in best_first if result.choice.chosen.params.get("patience")]
    stopped = ["heads that stop early chose their number of epochs on the same images"] if early else []
    on = options.refit_on if best.choice.on == "validation" else "train"
    tested = "the test split is scored once, for the best alone" if best.test else "no test image was scored"
    return [words, *stopped, f"refitted on {on}; {tested}"]


def _fit_again(
    best_first: Sequence[Result], sets: Sequence[TrainingSet], leaks: Sequence[Leak], bundles: Path,
    options: TrainOptions, notes: list[str], progress: Progress,
) -> tuple[Result, ...]:  # fmt: skip
    wanted = best_first if options.fit_all else best_first[:1]
    done: dict[int, Result] = {}
    with progress("fitting", len(wanted), "heads") as advance:
        for place in dict.fromkeys(result.place for result in wanted):  # a table is read once for all of its heads
            tables = sets[place].tables()
            for result in wanted:
                if result.place == place:
                    to_test = leaks if result is best_first[0] else None
                    done[id(result)] = _fit_one(result, sets[place], tables, to_test, bundles, options, notes)
                    advance(1)
    return tuple(done.get(id(result), result) for result in best_first)


def _fit_one(
    result: Result, training_set: TrainingSet, tables: Mapping[str, Table], leaks: Sequence[Leak] | None,
    bundles: Path, options: TrainOptions, notes: list[str],
) -> Result:  # fmt: skip
    """Fit the choice again and save it; it is scored on the test split if ``leaks`` are given, None for all others."""
    kind, table = find(result.head), tables["train"]
    if options.refit_on == "train+validation" and "validation" in tables:
        table = stack_tables(table, tables["validation"])
    calibration = fit_calibration(_method(kind, options), result.choice.logits, result.choice.columns)
    fitted = refit(kind, result.choice, table, calibration, balanced=options.balanced, seed=options.seed)
    result = replace(result, cost=replace(result.cost, fit_seconds=fitted.seconds))
    if fitted.calibration != calibration:
        notes.append(f"{result.name} is not calibrated: the validation images brought classes that train does not have")
    if leaks is not None:
        result = score_on_test(result, fitted, tables.get("test"), leaks, seed=options.seed)
    card = _card(fitted, result, training_set, table, options)
    judged = JudgedImages.of(result.digests, result.answers, result.probabilities)
    return replace(result, bundle=write_bundle(bundles, card, fitted.head, fitted.images, judged))


def _card(fitted: FittedHead, result: Result, training_set: TrainingSet, table: Table, options: TrainOptions) -> Card:
    known = np.isin(result.answers, result.choice.labels)
    return Card(
        kind=result.head,
        params=result.choice.chosen.params,
        seed=options.seed,
        balanced=options.balanced,
        specs=table.specs,
        origins=training_set.origins,
        widths=table.widths,
        classes=fitted.classes,
        calibration=fitted.calibration,
        clip=fit_clip(result.probabilities[known], result.answers[known]) if known.any() else None,
        trials=result.choice.trials,
        chosen_on=result.choice.on,
        held_out=result.held_out,
        test=result.test,
        fitted_on=fitted.fitted_on,
        augmentation=table.augmentation,
        views=training_set.views,
        rows=len(fitted.y),
        rows_digest=rows_digest(fitted.digests, [fitted.all_classes[label] for label in fitted.y]),
        snapshot=table.snapshot,
        versions={
            **installed_versions(),
            "python": platform.python_version(),
            "scikit-learn": version("scikit-learn"),
        },
    )
