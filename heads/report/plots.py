"""The plots of a report: plain numbers in, files out. With ``canvas``, the owner of matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from heads.evaluation.reliability import Reliability
from heads.kinds.problem import Curve
from heads.report.canvas import LIGHT, SQUARE, Plot, Theme, draw, drawable, legend, png
from heads.report.gather import FeatureMap, RocLine

MOST_CONFUSED = 16
"""Classes in a confusion matrix: more could not be read."""

_FEW = 8
"""Up to so many classes a confusion matrix is small, and has its zeros written."""

_MARKERS = {"avg": "o", "max": "s", "flatten": "D", "map": "^"}


@dataclass(frozen=True, slots=True)
class CostPoint:
    """A head by what it costs (bytes or seconds) and its held-out accuracy with interval."""

    cost: float
    accuracy: float
    interval: tuple[float, float]
    backbone: str
    pooling: str


def learning_curve(name: str, curve: Curve, measure: str, where: str) -> Plot:
    """Loss or accuracy (``measure``) of a dense head by epoch, on train and on the held-out images (``where``)."""
    train, held_out = _measured(curve, measure)
    last = f"; at the end {train[-1]:.3f} on train" + (f", {held_out[-1]:.3f} on {where}" if held_out else "")

    def paint(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        _by_epoch(axes, theme, curve, measure, where)
        legend(figure, axes.get_legend_handles_labels())

    return draw(f"{name}-{measure}", f"{measure} by epoch{last}", paint, (4.6, 3.2))


def learning_curves(curve: Curve, where: str) -> bytes:
    """Loss and accuracy of a network side by side, as :func:`learning_curve` draws them, a PNG file."""

    def paint(figure: Figure, theme: Theme) -> None:
        both = figure.subplots(1, 2)
        for axes, measure in zip(both, ("loss", "accuracy"), strict=True):
            _by_epoch(axes, theme, curve, measure, where)
        legend(figure, both[0].get_legend_handles_labels())

    return png(paint, (8.4, 3.4))


def _measured(curve: Curve, measure: str) -> tuple[Sequence[float], Sequence[float]]:
    """On train and on held-out images; the latter may be missing."""
    if measure == "loss":
        return curve.loss, curve.held_out_loss
    return curve.accuracy, curve.held_out_accuracy


def _by_epoch(axes: Axes, theme: Theme, curve: Curve, measure: str, where: str) -> None:
    train, held_out = _measured(curve, measure)
    marker = "o" if len(train) == 1 else ""
    for values, label, colour, style in ((train, "train", 0, "--"), (held_out, where, 1, "-")):
        if values:
            epochs = range(1, len(values) + 1)
            axes.plot(epochs, values, style, marker=marker, color=theme.series[colour], label=label)
    axes.set(xlabel="epoch", ylabel=measure)
    if measure == "loss":
        axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(1 - 0.02 * len(train), len(train) * 1.02)


def confusion(
    name: str, matrix: Sequence[Sequence[int]], chosen: Sequence[int], classes: Sequence[str], where: str
) -> Plot:
    """Images by class (row) and by what they were called (column) of the ``chosen`` classes, given the whole matrix.

    A cell's shade is its share of all images of its class.
    """
    whole = np.asarray(matrix, np.int64)
    counts = whole[np.ix_(chosen, chosen)]
    shares = counts / np.maximum(whole.sum(axis=1)[chosen, None], 1)
    size, is_small = len(counts), len(counts) <= _FEW

    def paint(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        shades = LinearSegmentedColormap.from_list("", [theme.line, theme.series[0]])
        axes.pcolormesh(shares, cmap=shades, vmin=0, vmax=1, edgecolors=theme.surface, linewidth=2 if is_small else 1)
        for truth, said in np.argwhere(counts if not is_small else np.ones_like(counts)):
            colour = theme.surface if shares[truth, said] > 0.5 else theme.ink
            fontsize = 13 if size < 5 else 9
            text = f"{counts[truth, said]}"
            axes.text(said + 0.5, truth + 0.5, text, ha="center", va="center", color=colour, fontsize=fontsize)
        ticks, names = np.arange(size) + 0.5, [drawable(classes[i], 18) for i in chosen]
        is_level = size < 4 and max(map(len, names)) * size < 24
        axes.set_xticks(ticks, names, rotation=0 if is_level else 60, ha="center" if is_level else "right")
        axes.set_yticks(ticks, names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
        axes.set(xlabel="called", ylabel="is", aspect="equal")
        axes.invert_yaxis()

    alt = f"confusion matrix on {where}: {np.trace(whole)} of {whole.sum()} images are right"
    return draw(name, alt, paint, SQUARE if is_small else (5.4, 5.2))


def reliability(after: Reliability, before: Reliability | None) -> Plot:
    """How often the head is right by how sure it is; below, how many images it is so sure of."""

    def paint(figure: Figure, theme: Theme) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        upper.plot([0, 1], [0, 1], color=theme.muted, linewidth=1, linestyle=":", label="as sure as right")
        if before is not None:
            upper.plot(before.confidence, before.accuracy, "s--", color=theme.series[1], label="before calibration")
        label = "after calibration" if before is not None else "this head"
        upper.plot(after.confidence, after.accuracy, "o-", color=theme.series[0], label=label)
        upper.set(ylabel="share that is right", xlim=(-0.02, 1.02), ylim=(-0.04, 1.04))
        lower.bar(after.confidence, after.counts, width=0.03, color=theme.series[0])
        lower.set(xlabel="probability of the likeliest class", ylabel="images")
        lower.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        legend(figure, upper.get_legend_handles_labels())

    gap = float(np.abs(after.accuracy - after.confidence) @ after.counts / after.counts.sum())
    return draw("reliability", f"reliability diagram; expected calibration error {gap:.3f}", paint)


def roc(lines: Sequence[RocLine]) -> Plot:
    """Receiver operating characteristics; the first line is the one that counts."""

    def paint(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=theme.muted, linewidth=1, linestyle=":")
        for place, line in reversed(list(enumerate(lines))):
            colour, width = theme.series[place % len(theme.series)], 1.2 if place else 2.2
            label = f"{drawable(line.name)}  {line.auc:.3f}"
            axes.plot(line.false_positives, line.true_positives, color=colour, linewidth=width, label=label)
        axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set_aspect("equal")
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1], loc="lower right", title="area under the curve")

    return draw("roc", f"ROC curve; area under the curve {lines[0].auc:.3f}", paint)


def cost(name: str, points: Sequence[CostPoint], label: str, *, in_bytes: bool = False) -> Plot:
    """Held-out accuracy against a cost; the first point, the best head, is ringed, no cheaper one is above the line."""
    floor = _floor([point.accuracy for point in points])
    shown = [point for point in points if point.accuracy >= floor]
    highest = max(point.interval[1] for point in points)

    def paint(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        colours = _colours([point.backbone for point in points], theme)
        axes.step(*zip(*_front(points), strict=True), where="post", color=theme.muted, linewidth=1, zorder=1)
        for point in reversed(shown):
            colour, is_best = colours[point.backbone], point is points[0]
            axes.plot([point.cost] * 2, point.interval, color=colour, alpha=0.3, linewidth=1, zorder=2)
            axes.plot(
                point.cost, point.accuracy, _MARKERS.get(point.pooling, "o"), color=colour, markersize=6, zorder=3,
                markeredgecolor=theme.ink if is_best else theme.surface, markeredgewidth=1.8 if is_best else 0.6,
            )  # fmt: skip
        if hidden := len(points) - len(shown):
            axes.annotate(f"{hidden} below", (0.98, 0.02), xycoords="axes fraction", ha="right", color=theme.muted)
        _scale([point.cost for point in points], axes, in_bytes)
        axes.set(xlabel=label, ylabel="held-out accuracy", ylim=(floor, highest + 0.04 * (highest - floor)))
        legend(figure, _cost_legend(points, colours, theme))

    best = points[0]
    return draw(name, f"accuracy against {label}; the best head has {best.accuracy:.3f} at {best.cost:.3g}", paint)


def feature_map(found: FeatureMap, classes: Sequence[str], where: str) -> Plot:
    """The features in the plane, coloured by class; held-out images that were called wrongly are ringed."""
    present, counts = np.unique(found.y, return_counts=True)
    shown = present[np.argsort(-counts, kind="stable")][: len(LIGHT.series) - 1]
    rest = ~np.isin(found.y, shown)

    def paint(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        groups = [(found.y == i, drawable(classes[i]), theme.series[place]) for place, i in enumerate(sorted(shown))]
        others = [(rest, f"{len(present) - len(shown)} other classes", theme.series[-1])] if rest.any() else []
        for rows, name, colour in [*others, *groups]:
            x, y = found.places[rows].T
            axes.scatter(x, y, s=9, color=colour, alpha=0.8, linewidth=0, label=name, rasterized=True)
        if found.wrong.any():
            x, y = found.places[found.wrong].T
            label = f"called wrongly ({where})"
            axes.scatter(x, y, s=40, facecolor="none", edgecolor=theme.ink, linewidth=1.2, label=label)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        legend(figure, axes.get_legend_handles_labels(), markerscale=1.3)

    return draw("map", f"map of the features of {len(found.y)} images, coloured by class", paint, (5.8, 4.2))


def _scale(costs: Sequence[float], axes: Axes, in_bytes: bool) -> None:
    low, high = min(costs), max(costs)
    axes.set_xscale("log")
    axes.set_xlim(low / 1.6, high * 1.6)  # so wide that a tick is in it
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
    axes.xaxis.set_major_formatter(EngFormatter("B") if in_bytes else FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)


def _floor(accuracies: Sequence[float]) -> float:
    """Where the axis of accuracies begins: few bad heads must not press all good ones into one line."""
    highest, typical = max(accuracies), float(np.quantile(accuracies, 0.2))
    lowest = min(accuracies) - 0.3 * (highest - min(accuracies)) - 0.005
    return max(lowest, highest - 3 * max(highest - typical, 0.01))


def _front(points: Sequence[CostPoint]) -> list[tuple[float, float]]:
    front: list[tuple[float, float]] = []
    for cost, accuracy in sorted((point.cost, -point.accuracy) for point in points):
        if not front or -accuracy > front[-1][1]:
            front.append((cost, -accuracy))
    return [*front, (max(point.cost for point in points), front[-1][1])]


def _colours(names: Sequence[str], theme: Theme) -> dict[str, str]:
    unique = sorted(set(names))
    return {name: theme.series[min(place, len(theme.series) - 1)] for place, name in enumerate(unique)}


def _cost_legend(points: Sequence[CostPoint], colours: dict[str, str], theme: Theme) -> tuple[list[Any], list[str]]:
    poolings = [name for name in _MARKERS if any(point.pooling == name for point in points)]
    own = list(colours)[: len(theme.series) - 1]
    dots = [Line2D([], [], marker="o", linestyle="", color=colours[name]) for name in own]
    shapes = [Line2D([], [], marker=_MARKERS[name], linestyle="", color=theme.muted) for name in poolings]
    return [*dots, *shapes], [*map(drawable, own), *poolings]
