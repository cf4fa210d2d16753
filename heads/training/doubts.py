"""What could fool one about the chosen head: its calibration, copies across splits, and heads that are as good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from featstore.table import Table
from featstore.wording import counted
from heads.evaluation.compare import SIGNIFICANT, Pair, compare
from heads.evaluation.leaks import THRESHOLD, Leak
from heads.evaluation.metrics import Metrics, measure
from heads.kinds.head import Labels, softmax
from heads.training.fit import FittedHead, over_all_classes
from heads.training.results import Result, Variants

_Floats = npt.NDArray[np.float64]


def judged_again(result: Result, classes: tuple[str, ...], leaks: Sequence[Leak], *, seed: int) -> Result:
    """The result with the variants of its held-out metrics: before calibration, and without the leaks."""
    plain = over_all_classes(softmax(result.choice.logits), result.choice.labels, len(classes))
    split = "validation" if result.choice.on == "validation" else ""  # folds of train have no leak from train
    rest = _without(leaks, split, result.paths, result.answers, result.probabilities, classes, seed)
    return replace(result, held_out_variants=Variants(measure(result.answers, plain, classes, seed=seed), rest))


def score_on_test(
    result: Result, fitted: FittedHead, test: Table | None, leaks: Sequence[Leak], *, seed: int
) -> Result:
    """The result with its one score on the test split and its variants; as it is where there is no label there."""
    if test is None or not (test.y >= 0).any():
        return result
    known = test.select(test.y >= 0)
    logits = fitted.logits(known.X)
    probabilities, plain = fitted.probabilities(logits), fitted.probabilities(logits, calibrated=False)
    rest = _without(leaks, "test", known.paths, known.y, probabilities, known.classes, seed)
    return replace(
        result,
        test=measure(known.y, probabilities, known.classes, seed=seed),
        test_variants=Variants(measure(known.y, plain, known.classes, seed=seed), rest),
    )


def against_best(best_first: Sequence[Result]) -> tuple[Pair, ...]:
    """The best head against each other one that was judged on the same images, by McNemar's test.

    Every pair of heads is paid for: which of them is the best was seen on these images.
    """
    best = best_first[0]
    same = [result for result in best_first if result.paths == best.paths]
    right = np.stack([result.probabilities.argmax(axis=1) == result.answers for result in same])
    return compare([result.name for result in same], right)[: len(same) - 1]


def warnings_of(best: Result, pairs: Sequence[Pair], leaks: Sequence[Leak]) -> tuple[str, ...]:
    """The same in sentences: how many heads are as good for all that is known, what copies do to the scores."""
    notes = []
    if pairs:
        as_good = sum(pair.adjusted >= SIGNIFICANT for pair in pairs)
        every = len(pairs) * (len(pairs) + 1) // 2
        notes.append(
            f"{as_good or 'none'} of the {counted(len(pairs), 'other head')} cannot be told from the best on "
            f"{best.choice.on} (McNemar's test at 5 %, adjusted by Holm for {counted(every, 'pair')} of heads)"
        )
    before = best.held_out_variants.uncalibrated if best.held_out_variants else best.held_out
    if before != best.held_out:
        notes.append(
            f"calibration took the log loss of the best on {best.choice.on} from {before.log_loss.value:.4f} to "
            f"{best.held_out.log_loss.value:.4f}, the calibration error from {before.ece.value:.4f} to "
            f"{best.held_out.ece.value:.4f}"
        )
    for split in ("validation", "test"):
        found = [leak for leak in leaks if leak.split == split]
        if found:
            exact = sum(leak.exact for leak in found)
            stand = "stands" if len(found) == 1 else "stand"
            notes.append(
                f"{counted(len(found), f'{split} image')} also {stand} in an earlier split (exact copies: {exact}; "
                f"near ones, by a cosine of the features of {THRESHOLD:g} or more: {len(found) - exact}; the report "
                f"and --json list all), as {found[0].path} is {found[0].original}{_scores(best, split)}"
            )
    return tuple(notes)


def _scores(best: Result, split: str) -> str:
    scores: Mapping[str, tuple[Metrics | None, Variants | None]] = {
        "validation": (best.held_out, best.held_out_variants),
        "test": (best.test, best.test_variants),
    }
    metrics, variants = scores[split]
    if metrics is None or variants is None or variants.without_leaks is None:
        return ""
    rest = variants.without_leaks
    return f"; accuracy {metrics.accuracy.value:.3f} with them, {rest.accuracy.value:.3f} without ({rest.n} images)"


def _without(
    leaks: Sequence[Leak], split: str, paths: Sequence[str], y: Labels, probabilities: _Floats,
    classes: tuple[str, ...], seed: int,
) -> Metrics | None:  # fmt: skip
    """The metrics of the images that train has no copy of; None if that is all of them, or none."""
    leaked = {leak.path for leak in leaks if leak.split == split}
    kept = np.array([path not in leaked for path in paths])
    if kept.all() or not kept.any():
        return None
    return measure(y[kept], probabilities[kept], classes, seed=seed)
