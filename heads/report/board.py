"""The leaderboard and the other tables of a page: words for people, and the keys that they are sorted by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from featstore.show import size
from heads.evaluation.compare import SIGNIFICANT
from heads.evaluation.metrics import Measure, Metrics
from heads.report.terminal import MEASURES, setting, with_interval
from heads.training.results import Comparison, Result

FIRST_LINES = 20
"""Lines that are shown before the leaderboard is unfolded; their intervals are the scale of all that are drawn."""

_NONE = "–"


@dataclass(frozen=True, slots=True)
class Column:
    """A heading: its words, what they mean, whether numbers are below it, and what a first click sorts by."""

    title: str
    about: str = ""
    is_number: bool = True
    first: str = "ascending"


@dataclass(frozen=True, slots=True)
class Whisker:
    """An interval and its value as places from 0 to 100 on the scale that a column shares; what is below it is at 0."""

    low: float
    value: float
    high: float


@dataclass(frozen=True, slots=True)
class Cell:
    """What is shown, what it is sorted by (None: last, whatever the direction), and an interval to draw."""

    text: str
    key: float | str | None
    whisker: Whisker | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the leaderboard; ``worse``: significantly worse than the best."""

    cells: tuple[Cell, ...]
    worse: bool


@dataclass(frozen=True, slots=True)
class Board:
    """Columns and lines; ``sorted_by`` is the index of the column that the lines are in the order of."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    sorted_by: int


def leaderboard(comparison: Comparison) -> Board:
    """Every head that was compared, best first."""
    results = comparison.results
    on = " / ".join(dict.fromkeys(result.choice.on for result in results))
    columns = (
        Column("features", "backbone and pooling", is_number=False),
        Column("head", is_number=False),
        Column("setting", "chosen there", is_number=False),
        Column("accuracy", f"on {on}, with its 95 % interval", first="descending"),
        Column("p", "McNemar's exact test against the best, Holm-adjusted", first="descending"),
        Column("log loss", "nats; less is better"),
        Column("ECE", "expected calibration error; less is better"),
        Column("AUC", "area under the ROC curve, averaged over classes", first="descending"),
        Column("cache", "of the features of all images"),
        Column("extract s", "running the backbones over all images"),
        Column("choose s", "the whole grid of settings"),
        Column("fit s", "the last fit"),
    )
    ends = [end for result in results[:FIRST_LINES] for end in result.held_out.accuracy.interval]
    low, high = min(ends), max(ends)
    lines = []
    for result, p in zip(results, p_values(comparison), strict=True):
        metrics, cost = result.held_out, result.cost
        cells = (
            _text(result.features),
            _text(result.head),
            _text(setting(result.varied) or "preset"),
            Cell(f"{metrics.accuracy.value:.3f}", metrics.accuracy.value, _whisker(metrics.accuracy, low, high)),
            Cell(_NONE if p is None else p_words(p), p),
            _measure(metrics.log_loss),
            _measure(metrics.ece),
            _measure(metrics.roc_auc),
            Cell(size(cost.feature_bytes), cost.feature_bytes),
            _seconds(cost.image_seconds),
            _seconds(cost.choose_seconds),
            _seconds(cost.fit_seconds),
        )
        lines.append(Line(cells, worse=p is not None and p < SIGNIFICANT))
    return Board(columns, tuple(lines), sorted_by=3)


def p_values(comparison: Comparison) -> list[float | None]:
    """The adjusted p-value of every result against the best; None for the best, and where there was no comparison.

    Pairs are in the order of the results, and a result may lack one.
    """
    pairs = list(reversed(comparison.pairs))
    found: list[float | None] = [None]
    for result in comparison.results[1:]:
        is_compared = bool(pairs) and pairs[-1].second == result.name
        found.append(pairs.pop().adjusted if is_compared else None)
    return found


def source(result: Result) -> str:
    """What is paid for once: the backbone, with the preprocessing where it is not its own."""
    return result.backbone if result.preprocessing == "keras" else f"{result.backbone} {result.preprocessing}"


def no_worse(comparison: Comparison) -> Sequence[Result]:
    """The other heads that were compared with the best and cannot be told from it."""
    pairs = zip(comparison.results, p_values(comparison), strict=True)
    return [result for result, p in pairs if p is not None and p >= SIGNIFICANT]


def cheaper(comparison: Comparison) -> Result | None:
    """Of the heads that cannot be told from the best, the one whose features take least; None if none takes less."""
    by_time = all(result.cost.image_seconds is not None for result in comparison.results)

    def price(result: Result) -> float:
        return result.cost.image_seconds or 0.0 if by_time else float(result.cost.feature_bytes)

    cheapest = min(no_worse(comparison), key=price, default=None)
    return cheapest if cheapest is not None and price(cheapest) < 0.9 * price(comparison.best) else None


def metric_rows(metrics: Metrics) -> list[tuple[str, str]]:
    """Every measure by name, with its interval."""
    return [(words, with_interval(getattr(metrics, name))) for words, name in MEASURES]


def p_words(p: float) -> str:
    """A p-value in as many digits as mean something."""
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _text(words: str) -> Cell:
    return Cell(words, words)


def _measure(found: Measure | None) -> Cell:
    return Cell(_NONE, None) if found is None else Cell(f"{found.value:.3f}", found.value)


def _seconds(seconds: float | None) -> Cell:
    if seconds is None:
        return Cell(_NONE, None)
    return Cell(f"{seconds:.2f}" if seconds < 10 else f"{seconds:.1f}" if seconds < 100 else f"{seconds:.0f}", seconds)


def _whisker(found: Measure, low: float, high: float) -> Whisker:
    span = (high - low) or 1.0
    places = (100 * (at - low) / span for at in (found.interval[0], found.value, found.interval[1]))
    return Whisker(*(round(max(place, 0.0), 1) for place in places))
