"""What was trained and predicted, for people: small tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from featstore.show import grid
from heads.evaluate import Score
from heads.predict import Prediction
from heads.train import TrainReport

_WIDE = 96
"""Columns of a terminal from which the seconds are shown too."""


def leaderboard(report: TrainReport, width: int = _WIDE) -> Table:
    """A line for each trained head, best first by what it was chosen on; the test score is shown, never ranked by.

    Less than 96 columns of ``width`` leave the seconds out.
    """
    ranked = report.ranked()
    judged = " / ".join(dict.fromkeys(result.chosen_on for result in ranked))
    numbers = [judged, "test", *(("choose s", "fit s") if width >= _WIDE else ())]
    table = grid("features", "head", "setting", *numbers, right=numbers)
    table.caption, table.caption_justify = "accuracy [95 % interval]; ranked without looking at the test images", "left"
    for place, result in enumerate(ranked):
        seconds = (f"{result.seconds - result.fit_seconds:.2f}", f"{result.fit_seconds:.2f}")
        cells = (
            f"{result.backbone} {result.pooling}",
            result.head,
            _params(result.params),
            _score(result.held_out),
            _score(result.test),
            *(seconds if width >= _WIDE else ()),
        )
        table.add_row(*map(_plain, cells), style="" if place else "bold")
    return table


def where_saved(report: TrainReport) -> tuple[str, ...]:
    """Where the best head is and how to use it; nothing if none was saved."""
    saved = [result.bundle for result in report.ranked() if result.bundle is not None]
    if not saved:
        return ()
    return (f"the best head is in {saved[0]}: featstore predict {saved[0]} IMAGES…",)


def predictions(found: Sequence[Prediction], top: int = 3) -> Table:
    """A line for each image: its likeliest class, up to ``top`` with their probabilities, or why it has none."""
    table = grid("image", "class", "probability", "next", "features", right=("probability",))
    for prediction in found:
        if prediction.label is None:
            table.add_row(_plain(prediction.path), "", "", "", _plain(f"rejected: {prediction.reason.code}"))
            continue
        first, *others = prediction.top(top)
        cells = (
            prediction.path,
            first[0],
            f"{first[1]:.3f}",
            ", ".join(f"{name} {probability:.3f}" for name, probability in others),
            "cached" if prediction.from_cache else "computed",
        )
        table.add_row(*map(_plain, cells))
    return table


def _plain(words: str) -> Text:
    """Text that is never read as markup: class and file names are anyone's. What cannot be printed is escaped."""
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in words)
    return Text("".join(shown))


def _params(params: Mapping[str, float]) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in params.items())


def _score(score: Score | None) -> str:
    if score is None:
        return "–"
    low, high = score.interval
    return f"{score.accuracy:.3f} [{low:.3f}, {high:.3f}]"
