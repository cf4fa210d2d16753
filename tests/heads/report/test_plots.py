from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from heads.kinds.problem import Curve
from heads.report import gather, plots
from heads.report.canvas import DARK, LIGHT, Plot, drawable
from heads.report.gather import FeatureMap
from heads.report.plots import CostPoint

POINTS = [
    CostPoint(1e6, 0.99, (0.97, 1.0), "vgg16", "avg"),
    CostPoint(2e7, 0.98, (0.96, 0.99), "xception", "flatten"),
    CostPoint(1e5, 0.95, (0.93, 0.97), "vgg16", "max"),
]


def is_whole(plot: Plot) -> bool:
    with Image.open(io.BytesIO(plot.png)) as picture:
        picture.load()
        return picture.width > 300 and b"<svg" in plot.light and b"<svg" in plot.dark


def test_a_plot_is_a_png_and_an_svg_for_light_and_for_dark_pages() -> None:
    plot = plots.cost("cost-bytes", POINTS, "bytes", in_bytes=True)
    assert is_whole(plot)
    assert LIGHT.series[0].encode() in plot.light
    assert DARK.series[0].encode() in plot.dark
    assert plot.light != plot.dark
    assert "0.990" in plot.alt


def test_the_same_numbers_give_the_same_bytes_whatever_the_users_style_is() -> None:
    import matplotlib as mpl

    first = plots.cost("cost", POINTS, "seconds")
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        assert plots.cost("cost", POINTS, "seconds") == first
        assert mpl.rcParams["font.size"] == 30


def test_few_bad_heads_do_not_press_the_good_ones_into_a_line() -> None:
    good = [replace(POINTS[0], accuracy=0.98 + i / 1000) for i in range(10)]
    assert plots._floor([point.accuracy for point in good] + [0.5]) > 0.9
    assert plots._floor([0.9, 0.8, 0.7, 0.6]) < 0.6
    assert is_whole(plots.cost("cost", [*good, replace(POINTS[0], accuracy=0.5)], "seconds"))


def test_nothing_cheaper_is_above_the_front() -> None:
    assert plots._front(POINTS) == [(1e5, 0.95), (1e6, 0.99), (2e7, 0.99)]


@pytest.mark.parametrize("measure", ["loss", "accuracy"])
@pytest.mark.parametrize(
    "curve",
    [
        Curve((0.9, 0.5), (0.5, 0.9), (1.0, 0.7), (0.4, 0.8)),
        Curve((0.9,), (0.5,)),
        Curve((0.9,), (0.5,), (1.0,), (0.4,)),
    ],
    ids=["two epochs", "no held-out rows", "one epoch"],
)
def test_a_learning_curve_may_have_one_epoch_and_no_held_out_rows(curve: Curve, measure: str) -> None:
    plot = plots.learning_curve("learning-1", curve, measure, "validation")
    assert is_whole(plot)
    assert plot.name == f"learning-1-{measure}"
    assert ("on validation" in plot.alt) == bool(curve.held_out_loss)


@pytest.mark.parametrize("classes", [2, 5, 40])
def test_a_confusion_matrix_shows_the_chosen_classes(classes: int) -> None:
    matrix = np.random.default_rng(0).integers(0, 9, (classes, classes)).tolist()
    chosen = gather.most_confused(matrix, plots.MOST_CONFUSED)
    assert is_whole(plots.confusion("confusion", matrix, chosen, [f"class {i}" for i in range(classes)], "test"))


def test_reliability_roc_and_map_are_drawn_for_hostile_names(material: Any) -> None:
    best, classes = material.comparison.best, material.comparison.classes
    found = gather.feature_map(material.tables, best)
    assert found is not None
    assert is_whole(plots.reliability(*gather.reliability(best)))
    assert is_whole(plots.roc(gather.roc_lines(best, classes)))
    assert is_whole(plots.feature_map(found, classes, "validation"))


def test_of_many_classes_the_map_colours_the_largest_and_greys_the_rest() -> None:
    y = np.arange(60) % 30
    found = FeatureMap(np.random.default_rng(0).normal(size=(60, 2)), y, y == 3, 60)
    assert is_whole(plots.feature_map(found, [f"class {i}" for i in range(30)], "validation"))


def test_a_name_in_a_plot_is_no_formula_and_what_the_font_lacks_is_a_box() -> None:
    assert drawable("$x_1$") == "$x_1$"
    assert drawable("猫") == "□"
    assert drawable("a\nb\u202e\udcff") == r"a\nb\u202e\xff"
    assert drawable("x" * 40) == "x" * 21 + "…"


def test_drawing_leaves_no_shared_state_behind() -> None:
    code = (
        "import sys; from heads.report import plots; from heads.kinds.problem import Curve; "
        "plots.learning_curve('a', Curve((1.0,), (1.0,)), 'loss', 'x'); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("False", "")
