"""What was trained and predicted, for people: small tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from shlex import quote
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from featstore.show import duration, grid, size
from featstore.wording import counted, visible
from heads.evaluation.compare import SIGNIFICANT
from heads.evaluation.evaluated import Evaluated, Evaluation
from heads.evaluation.metrics import Measure, Metrics
from heads.live.plan import LiveResult
from heads.predict import Prediction
from heads.report.gather import confusions
from heads.training.results import Comparison

_WIDE = 96
"""Columns of a terminal from which the seconds are shown too."""


def leaderboard(comparison: Comparison, width: int = _WIDE, most: int = 30) -> Table:
    """A line for each of the best ``most`` heads, ranked by what they were chosen on; only the best was tested.

    Less than 96 columns of ``width`` leave the seconds out.
    """
    shown = comparison.results[:most]
    judged = " / ".join(dict.fromkeys(result.choice.on for result in shown))
    numbers = [judged, "test", *(("choose s", "fit s") if width >= _WIDE else ())]
    table = grid("features", "head", "setting", *numbers, right=numbers)
    hidden = f"; {len(comparison.results) - most} more heads follow" if len(comparison.results) > most else ""
    tested = "; only the best head was scored on the test images" if any(result.test for result in shown) else ""
    table.caption = f"accuracy [95 % interval]{tested}{hidden}"
    table.caption_justify = "left"
    for place, result in enumerate(shown):
        fit_seconds = result.cost.fit_seconds
        seconds = (f"{result.cost.choose_seconds:.2f}", "–" if fit_seconds is None else f"{fit_seconds:.2f}")
        cells = (
            result.features,
            result.head,
            setting(result.varied) or "preset",
            _accuracy(result.held_out),
            _accuracy(result.test),
            *(seconds if width >= _WIDE else ()),
        )
        table.add_row(*map(plain, cells), style="" if place else "bold")
    return table


def where_saved(comparison: Comparison) -> tuple[str, ...]:
    """Where the best head is and how to use it, and the page that shows all; nothing of what was not written."""
    saved = [result.bundle for result in comparison.results if result.bundle is not None]
    best = (f"the best head is in {saved[0]}: featstore predict {quote(str(saved[0]))} IMAGES…",) if saved else ()
    page = (f"everything on one page: {comparison.report}",) if comparison.report else ()
    return best + page


def predictions(found: Sequence[Prediction], top: int = 3) -> Table:
    """A line for each image: its likeliest class, up to ``top`` with their probabilities, or why it has none."""
    table = grid("image", "class", "probability", "next", "features", right=("probability",))
    for prediction in found:
        if prediction.label is None:
            table.add_row(plain(prediction.path), "", "", "", plain(f"rejected: {prediction.reason.code}"))
            continue
        first, *others = prediction.top(top)
        cells = (
            prediction.path,
            first[0],
            f"{first[1]:.3f}",
            ", ".join(f"{name} {probability:.3f}" for name, probability in others),
            "cached" if prediction.from_cache else "computed",
        )
        table.add_row(*map(plain, cells))
    return table


MEASURES = (
    ("accuracy", "accuracy"),
    ("balanced accuracy", "balanced_accuracy"),
    ("macro F1", "macro_f1"),
    ("ROC AUC", "roc_auc"),
    ("log loss", "log_loss"),
    ("Brier", "brier"),
    ("calibration error", "ece"),
)
"""What is shown of a head's metrics: in words, and by its name."""

_PAIRS = 6
"""Pairs of heads up to which all are shown; of more only those that differ."""

_MATRIX = 8
"""Classes up to which a whole confusion matrix is shown."""


def evaluation(found: Evaluation) -> Iterator[RenderableType]:
    """What an evaluation came to: a line a head where there are several, each head's numbers, and which ones differ."""
    several = len(found.results) > 1
    if several:
        yield from (_lines_of_heads(found), "")
    for result in found.results:
        yield from (plain(result.bundle), _measures(result), "", _classes(result.metrics), "")
        if len(result.metrics.per_class) > _MATRIX:
            yield from (_mistakes(result.metrics), "")
    if several:
        yield _comparisons(found)


def _lines_of_heads(found: Evaluation) -> Table:
    shown = [entry for entry in MEASURES if entry[1] in ("accuracy", "roc_auc", "log_loss")]
    table = grid("head", *(words for words, _ in shown), right=[words for words, _ in shown])
    for name, result in zip(found.names, found.results, strict=True):
        table.add_row(plain(name), *(with_interval(getattr(result.metrics, measure)) for _, measure in shown))
    return table


def _measures(result: Evaluated) -> Table:
    """A line a measure: as it is, before calibration, and without the images that were seen in training."""
    columns = [(counted(result.metrics.n, "image"), result.metrics)]
    if result.uncalibrated:
        columns.append(("before calibration", result.uncalibrated))
    if result.without_seen:
        columns.append((f"without the {len(result.seen)} seen", result.without_seen))
    heads = [words for words, _ in columns]
    table = grid("", *heads, right=heads)
    for words, name in MEASURES:
        table.add_row(words, *(with_interval(getattr(metrics, name)) for _, metrics in columns))
    return table


def _classes(metrics: Metrics) -> Table:
    """A line a class; with few classes the confusion matrix beside it: what its images were called."""
    counts = ["images", "precision", "recall", "F1"]
    table = grid("class", *counts, right=counts)
    with_matrix = len(metrics.per_class) <= _MATRIX
    for entry in metrics.per_class if with_matrix else ():
        table.add_column(plain(f"called {entry.name}"), justify="right", overflow="fold")
    for entry, row in zip(metrics.per_class, metrics.confusion, strict=True):
        numbers = [f"{value:.3f}" for value in (entry.precision, entry.recall, entry.f1)]
        table.add_row(plain(entry.name), str(entry.n), *numbers, *(map(str, row) if with_matrix else ()))
    return table


def _mistakes(metrics: Metrics) -> Table:
    table = grid("most frequent mistakes", "called", "images", right=("images",))
    for truth, said, count in confusions(metrics.confusion, _MATRIX):
        table.add_row(plain(metrics.per_class[truth].name), plain(metrics.per_class[said].name), str(count))
    return table


def _comparisons(found: Evaluation) -> Table:
    names = {result.bundle: name for name, result in zip(found.names, found.results, strict=True)}
    numbers = ("only it right", "only the other", "p", "adjusted")
    table = grid("head", "other", *numbers, right=numbers)
    shown = found.comparisons
    if len(shown) > _PAIRS:
        shown = tuple(pair for pair in shown if pair.adjusted < SIGNIFICANT)
    for pair in shown:
        counts = (str(pair.only_first), str(pair.only_second), f"{pair.p:.3g}", f"{pair.adjusted:.3g}")
        table.add_row(plain(names[pair.first]), plain(names[pair.second]), *counts)
    table.caption = (
        f"McNemar's exact test on the same {counted(found.images, 'image')}; adjusted by Holm for "
        f"{counted(len(found.comparisons), 'comparison')}"
        + (
            f"; {len(found.comparisons) - len(shown)} that do not differ are left out"
            if len(shown) < len(found.comparisons)
            else ""
        )
    )
    table.caption_justify = "left"
    return table


def plain(words: str) -> Text:
    """Text that is never read as markup: class and file names are anyone's. What cannot be printed is escaped."""
    return Text(visible(words))


def setting(params: Mapping[str, Any]) -> str:
    """Hyperparameters in a few words: ``C=0.01, hidden=256``."""
    return ", ".join(f"{name}={_value(value)}" for name, value in params.items())


def with_interval(found: Measure | None) -> str:
    """``0.903 [0.870, 0.930]``, a dash for nothing."""
    if found is None:
        return "–"
    low, high = found.interval
    return f"{found.value:.3f} [{low:.3f}, {high:.3f}]"


def _accuracy(metrics: Metrics | None) -> str:
    return with_interval(metrics.accuracy if metrics else None)


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def live(found: LiveResult) -> Table:
    """What a trained network is worth and what it cost."""
    table = grid("", "")
    table.show_header = False
    epochs, tested = found.epoch_seconds, found.test
    facts = {
        "network": f"{found.name}: {found.trainable:,} of {found.total:,} numbers trained",
        "validation": f"accuracy {_accuracy(found.held_out)} ({counted(found.held_out.n, 'image')})",
        "test": f"accuracy {_accuracy(tested)} ({counted(tested.n, 'image')}), scored once" if tested else "",
        "training": f"{counted(len(epochs), 'epoch')}, {sum(epochs) / max(1, len(epochs)):.1f} s each; "
        f"{duration(found.seconds)} in all, {found.base_images} images through the base",
        "memory": f"{size(found.peak_bytes)} at most; {size(found.bytes)} on disk",
        "base": str(found.base) if found.base else "",
        "head": str(found.bundle),
    }
    for name, value in facts.items():
        if value:
            table.add_row(Text(name, "bold"), plain(value))
    return table
