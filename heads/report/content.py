"""All that a page shows of one comparison, in the order of the page; the template only lays it out."""

from __future__ import annotations

import base64
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from featstore.dataset import Dataset
from featstore.decode import MAX_FILE_BYTES, thumbnail
from featstore.extraction import Extraction
from featstore.records import SPLITS, Rejected
from featstore.table import Table
from featstore.versions import installed_versions
from heads.evaluation.metrics import ClassMetrics
from heads.kinds.problem import Curve
from heads.report import gather, plots
from heads.report.board import Board, leaderboard, source
from heads.report.canvas import Plot
from heads.report.gather import Mistake
from heads.report.plots import CostPoint
from heads.training.results import Comparison, Result

MOST_MISTAKES = 24
"""Images in the gallery."""

MOST_ROWS = 200
"""Lines of the lists of leaks and of rejected images; a sentence says how many more there are."""

_THUMBNAIL = 240
_MOST_CURVES = 4
_MOST_CLASSES = 30
_MOST_CONFUSIONS = 8


@dataclass(frozen=True, slots=True)
class Shot:
    """A mistake with its picture as a data URI; without one, ``missing`` says why."""

    mistake: Mistake
    picture: str
    missing: str


@dataclass(frozen=True, slots=True)
class CurvePair:
    """The learning curves of one dense head: loss and accuracy."""

    result: Result
    plots: tuple[Plot, Plot]


@dataclass(frozen=True, slots=True)
class Content:
    """What the template reads; every tuple may be empty, and a plot is None where there is nothing to draw.

    unlike : the commonest mistakes (class, called, images). splits : (name, images). rates : classes, worst F1 first.
    """

    board: Board
    curves: tuple[CurvePair, ...]
    more_curves: int
    confusions: tuple[Plot, ...]
    unlike: tuple[tuple[str, str, int], ...]
    rates: tuple[ClassMetrics, ...]
    more_rates: int
    reliability: Plot | None
    roc: Plot | None
    costs: tuple[Plot, ...]
    map: Plot | None
    map_points: int
    map_total: int
    shots: tuple[Shot, ...]
    mistakes: int
    splits: tuple[tuple[str, int], ...]
    versions: Mapping[str, str]

    @property
    def plots(self) -> tuple[Plot, ...]:
        """Every plot of the page."""
        found = [
            *(plot for pair in self.curves for plot in pair.plots), *self.confusions, self.reliability, self.roc,
            *self.costs, self.map,
        ]  # fmt: skip
        return tuple(plot for plot in found if plot is not None)


def content(
    comparison: Comparison, dataset: Dataset, done: Extraction, tables: Mapping[str, Table], *, seed: int
) -> Content:
    """Gather and draw everything; the pictures of the worst mistakes are read from the dataset's source."""
    best, classes = comparison.best, comparison.classes
    curved = [(result, curve) for result in comparison.results if (curve := result.choice.curve) is not None]
    wrong = gather.worst_mistakes(best, classes, MOST_MISTAKES)
    found_map = gather.feature_map(tables, best, seed=seed)
    roc_lines = gather.roc_lines(best, classes)
    rates = sorted((rate for rate in best.held_out.per_class if rate.n), key=lambda rate: rate.f1)
    return Content(
        board=leaderboard(comparison),
        curves=tuple(_curves(place, *pair) for place, pair in enumerate(curved[:_MOST_CURVES])),
        more_curves=len(curved[_MOST_CURVES:]),
        confusions=_confusions(best, classes),
        unlike=tuple(
            (classes[truth], classes[said], n)
            for truth, said, n in gather.confusions(best.held_out.confusion, _MOST_CONFUSIONS)
        ),
        rates=tuple(rates[:_MOST_CLASSES]),
        more_rates=len(rates[_MOST_CLASSES:]),
        reliability=plots.reliability(*gather.reliability(best)),
        roc=plots.roc(roc_lines) if roc_lines else None,
        costs=_costs(comparison.results),
        map=plots.feature_map(found_map, classes, best.choice.on) if found_map else None,
        map_points=len(found_map.y) if found_map else 0,
        map_total=found_map.total if found_map else 0,
        shots=tuple(_shot(mistake, dataset) for mistake in wrong),
        mistakes=int((best.probabilities.argmax(axis=1) != best.answers).sum()),
        splits=_splits(dataset, done),
        versions={
            **installed_versions(), "scikit-learn": version("scikit-learn"), "python": platform.python_version()
        },
    )  # fmt: skip


def _curves(place: int, result: Result, curve: Curve) -> CurvePair:
    name = f"learning-{place + 1}"
    where = result.choice.on
    return CurvePair(
        result,
        (plots.learning_curve(name, curve, "loss", where), plots.learning_curve(name, curve, "accuracy", where)),
    )


def _confusions(best: Result, classes: Sequence[str]) -> tuple[Plot, ...]:
    drawn = []
    for name, metrics, where in (("held-out", best.held_out, best.choice.on), ("test", best.test, "test")):
        if metrics is None:
            continue
        chosen = gather.most_confused(metrics.confusion, plots.MOST_CONFUSED)
        drawn.append(plots.confusion(f"confusion-{name}", metrics.confusion, chosen, classes, where))
    return tuple(drawn)


def _costs(results: Sequence[Result]) -> tuple[Plot, ...]:
    """Accuracy against bytes, extraction seconds, and seconds of fitting; a cost that is not known of all has no plot.

    Where only the best was fitted again, fitting is that of the whole grid.
    """
    is_fitted = all(result.cost.fit_seconds is not None for result in results)
    fit_label = "seconds of the last fit" if is_fitted else "seconds of fitting the whole grid"
    kinds: list[tuple[str, str, list[float | None]]] = [
        ("cost-bytes", "bytes of cached features", [float(result.cost.feature_bytes) for result in results]),
        ("cost-extraction", "seconds of extraction", [result.cost.image_seconds for result in results]),
        ("cost-fit", fit_label, [r.cost.fit_seconds if is_fitted else r.cost.choose_seconds for r in results]),
    ]
    drawn = []
    for name, label, values in kinds:
        points = [_point(result, value) for result, value in zip(results, values, strict=True) if value]
        if len(points) == len(results):
            drawn.append(plots.cost(name, points, label, in_bytes=name == "cost-bytes"))
    return tuple(drawn)


def _point(result: Result, value: float) -> CostPoint:
    accuracy = result.held_out.accuracy
    return CostPoint(value, accuracy.value, accuracy.interval, source(result), result.pooling)


def _shot(mistake: Mistake, dataset: Dataset) -> Shot:
    try:
        picture = thumbnail(dataset.source.read(mistake.path, MAX_FILE_BYTES), _THUMBNAIL)
    except Rejected as error:
        return Shot(mistake, "", f"This picture can no longer be shown: {error.detail}.")
    return Shot(mistake, f"data:image/jpeg;base64,{base64.b64encode(picture).decode('ascii')}", "")


def _splits(dataset: Dataset, done: Extraction) -> tuple[tuple[str, int], ...]:
    codes = dataset.split_of(done.digests)
    counts = [(name, int((codes == code).sum())) for code, name in enumerate(SPLITS)]
    return tuple((name, count) for name, count in counts if count)
