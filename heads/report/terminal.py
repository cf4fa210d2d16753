"""What was trained and predicted, for people: small tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from featstore.show import grid
from heads.evaluation.metrics import Measure, Metrics
from heads.predict import Prediction
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
    table.caption = f"accuracy [95 % interval]; only the best head was scored on the test images{hidden}"
    table.caption_justify = "left"
    for place, result in enumerate(shown):
        fit_seconds = result.cost.fit_seconds
        seconds = (f"{result.cost.choose_seconds:.2f}", "–" if fit_seconds is None else f"{fit_seconds:.2f}")
        cells = (
            f"{result.backbone} {result.pooling}",
            result.head,
            setting(result.choice.chosen.params),
            _accuracy(result.held_out),
            _accuracy(result.test),
            *(seconds if width >= _WIDE else ()),
        )
        table.add_row(*map(plain, cells), style="" if place else "bold")
    return table


def where_saved(comparison: Comparison) -> tuple[str, ...]:
    """Where the best head is and how to use it; nothing if none was saved."""
    saved = [result.bundle for result in comparison.results if result.bundle is not None]
    if not saved:
        return ()
    return (f"the best head is in {saved[0]}: featstore predict {saved[0]} IMAGES…",)


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


def plain(words: str) -> Text:
    """Text that is never read as markup: class and file names are anyone's. What cannot be printed is escaped."""
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in words)
    return Text("".join(shown))


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
