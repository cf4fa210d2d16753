"""A contact sheet: one image under an augmentation policy, and under each of its ranges alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from featstore.augmentation import Policy, Transformation, augment, transformed
from heads.report.canvas import Theme, png

COLUMNS = 7
"""Pictures in a row of a contact sheet."""

_Pixels = npt.NDArray[np.uint8]

# What each range varies, and what the middle of it is.
_VARIED = {
    "rotation_range": ("rotation", 0.0, "{:+.0f}°"),
    "width_shift_range": ("width_shift", 0.0, "{:+.0%}"),
    "height_shift_range": ("height_shift", 0.0, "{:+.0%}"),
    "shear_range": ("shear", 0.0, "{:+.2f}°"),
    "zoom_range": ("zoom", 1.0, "{:.2f}"),
    "horizontal_flip": ("mirrored", 0.0, ""),
    "vertical_flip": ("upside_down", 0.0, ""),
}


@dataclass(frozen=True, slots=True)
class _Row:
    title: str
    pictures: tuple[_Pixels, ...]
    captions: tuple[str, ...]


def contact_sheet(pixels: _Pixels, digest: bytes, policy: Policy) -> bytes:
    """A PNG file: view 0 and the first views of the image uint8 (H, W, 3) with this digest; then a row for each range
    that the policy varies, from one end to the other with all else left as it is.
    """
    rows = [_views(pixels, digest, policy), *_alone(pixels, policy)]
    height, width = pixels.shape[:2]
    inches = 1.35

    def paint(figure: Figure, theme: Theme) -> None:
        grid = figure.subplots(len(rows), COLUMNS, squeeze=False)
        for axes_of_row, row in zip(grid, rows, strict=True):
            for axes in axes_of_row:
                axes.set_axis_off()
            for axes, picture, caption in zip(axes_of_row, row.pictures, row.captions, strict=False):
                axes.imshow(picture)
                axes.set_title(caption, fontsize=8, color=theme.muted, pad=2)
            title = axes_of_row[0].annotate(
                row.title, (0, 1), (0, 14), xycoords="axes fraction", textcoords="offset points", fontsize=9.5,
                fontweight="bold", color=theme.ink, annotation_clip=False,
            )  # fmt: skip
            title.set_in_layout(False)  # else the first column is as wide as its words
        top = 1 - 0.1 / figure.get_figheight()
        room = {"h_pad": 0.13, "rect": (0, 0, 1, top)}  # for the titles
        figure.get_layout_engine().set(**room)  # type: ignore[union-attr]

    return png(paint, (COLUMNS * inches, len(rows) * (inches * height / width + 0.42)))


def _views(pixels: _Pixels, digest: bytes, policy: Policy) -> _Row:
    pictures = tuple(augment(pixels, policy, digest, view) for view in range(COLUMNS))
    captions = ("view 0: the image", *(f"view {view}" for view in range(1, COLUMNS)))
    return _Row("the whole policy", pictures, captions)


def _alone(pixels: _Pixels, policy: Policy) -> Iterator[_Row]:
    for name, reach in policy.ranges.items():
        field, middle, words = _VARIED[name]
        if isinstance(reach, bool):
            values = [middle, 1.0]
            captions = ["as it is", "mirrored" if field == "mirrored" else "upside down"]
        else:
            values = np.linspace(middle - reach, middle + reach, COLUMNS).tolist()
            captions = [words.format(value) for value in values]
        ways = [_with(field, value) for value in values]
        pictures = tuple(transformed(pixels, way, policy.fill_mode) for way in ways)
        title = f"{name}={reach:g}" if not isinstance(reach, bool) else name
        title += " (degrees)" if "°" in words else ""
        yield _Row(f"{title}, alone", pictures, tuple(captions))


def _with(field: str, value: float) -> Transformation:
    if field == "zoom":
        return Transformation(height_zoom=value, width_zoom=value)
    given: dict[str, Any] = {field: bool(value) if field in ("mirrored", "upside_down") else value}
    return Transformation(**given)
