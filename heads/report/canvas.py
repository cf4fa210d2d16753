"""What plots are drawn on: colours for light and for dark pages, letters, files. Owns matplotlib, with ``plots``.

Figures are made one by one, without pyplot and its shared state; the same numbers give the same bytes. Names are drawn
as they are: no mathematics between dollar signs, and a hollow box for what the font lacks.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from featstore.wording import visible

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it tells people that it builds its font cache

SQUARE = (3.7, 3.5)
"""The usual size of a figure in inches of 96 CSS pixels: width, height."""

_LONGEST = 22
"""Characters of a name in a plot; the page's tables have it whole."""


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of a page: text, lesser text, lines, what lies beneath, and of data; the last of ``series`` is "others".

    Series: Paul Tol's "bright" and "light" schemes, told apart with any colour vision.
    """

    ink: str
    muted: str
    line: str
    surface: str
    series: tuple[str, ...]


LIGHT = Theme(
    "#1c2128", "#5b6470", "#e3e6ea", "#ffffff",
    ("#4477aa", "#ee6677", "#228833", "#aa3377", "#ccbb44", "#66ccee", "#a6adb5"),
)  # fmt: skip
DARK = Theme(
    "#e6e9ed", "#9aa4b0", "#2f3741", "#171b21",
    ("#77aadd", "#ee8866", "#44bb99", "#ffaabb", "#eedd88", "#99ddff", "#6b7683"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot: its file name without ending, words in its place, two SVG files and a PNG file (light, 200 dpi).

    width, height : CSS pixels.
    """

    name: str
    alt: str
    light: bytes
    dark: bytes
    png: bytes
    width: int
    height: int


Paint = Callable[[Figure, Theme], None]
"""Draws on an empty figure in the colours of a theme."""


def legend(figure: Figure, entries: tuple[Sequence[Any], Sequence[str]], **options: Any) -> None:
    """A legend above the axes, in as many columns as fit."""
    handles, labels = entries
    room = figure.get_figwidth() * 11  # characters of a line
    is_one_row = sum(len(label) + 5 for label in labels) < room
    columns = len(labels) if is_one_row else max(1, int(room // (max(map(len, labels)) + 4)))
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, **options)


def drawable(name: str, longest: int = _LONGEST) -> str:
    """A name for a plot: short, and with a hollow box for what the font lacks."""
    known = _glyphs()
    words = "".join(c if ord(c) in known else "□" for c in visible(name))
    return words if len(words) <= longest else words[: longest - 1] + "…"


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def draw(name: str, alt: str, paint: Paint, size: tuple[float, float] = SQUARE) -> Plot:
    """The plot that ``paint`` draws, in all its files."""
    files: list[bytes] = []
    for theme, formats in ((LIGHT, ("svg", "png")), (DARK, ("svg",))):
        with mpl.rc_context(_settings(theme)):
            figure = Figure(figsize=size, layout="constrained")
            paint(figure, theme)
            files += [_saved(figure, kind, theme) for kind in formats]
    light, png, dark = files
    return Plot(name, alt, light, dark, png, round(size[0] * 96), round(size[1] * 96))


def png(paint: Paint, size: tuple[float, float]) -> bytes:
    """What ``paint`` draws as a PNG file alone, in the light colours."""
    with mpl.rc_context(_settings(LIGHT)):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure, LIGHT)
        return _saved(figure, "png", LIGHT)


def _saved(figure: Figure, kind: str, theme: Theme) -> bytes:
    written = io.BytesIO()
    if kind == "svg":  # no date: the same plot, the same bytes
        figure.savefig(written, format=kind, dpi=200, transparent=True, metadata={"Date": None, "Creator": None})
    else:
        figure.savefig(written, format=kind, dpi=200, facecolor=theme.surface, metadata={"Software": None})
    return written.getvalue()


def _settings(theme: Theme) -> Any:
    """Everything from matplotlib's defaults, whatever the user's own style is, and then ours."""
    defaults: dict[str, Any] = {key: value for key, value in mpl.rcParamsDefault.items() if key != "backend"}
    return {
        **defaults,
        "svg.hashsalt": "featstore",
        "text.parse_math": False,
        "font.size": 9,
        "text.color": theme.ink,
        "axes.labelcolor": theme.muted,
        "axes.edgecolor": theme.line,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.line,
        "grid.linewidth": 0.7,
        "xtick.color": theme.line,
        "ytick.color": theme.line,
        "xtick.labelcolor": theme.muted,
        "ytick.labelcolor": theme.muted,
        "lines.linewidth": 1.8,
        "lines.markersize": 4.5,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "legend.handlelength": 1.6,
        "legend.columnspacing": 1.4,
    }
