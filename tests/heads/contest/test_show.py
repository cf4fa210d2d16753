from __future__ import annotations

import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from featstore import DatasetOptions, Request
from featstore.errors import InputError
from heads.contest.plan import Contest
from heads.contest.show import by_views, front, picture, terminal, write_page
from heads.contest.standing import Line, Outcome, Standing
from heads.evaluation.compare import against_first
from heads.evaluation.metrics import measure


def standing(dataset: str = "pets") -> Standing:
    """Four ways: the first is quick, the second better and dearer, the third is beaten by both, the last is best."""
    ways = Contest("photos", DatasetOptions(), Request("vgg16"), views=1).ways
    y = np.arange(200) % 2
    lines = []
    for way, wrong, seconds in zip(ways, (20, 10, 40, 4), (1.0, 5.0, 6.0, 300.0), strict=False):
        p = np.where(y == 1, 0.9, 0.1)
        p[:wrong] = 1 - p[:wrong]
        probabilities = np.stack([1 - p, p], axis=1)
        outcome = Outcome(probabilities, y, ("a.png",) * 200, ("cats", "dogs"), 0.5, seconds - 0.5, 100, 2**30, 2**20)
        lines.append(Line(way, (outcome, outcome), measure(y, probabilities, ("cats", "dogs"))))
    pairs = against_first([line.way.name for line in lines], np.stack([line.outcomes[0].right for line in lines]))
    found = [lines[0]]
    for line, pair in zip(lines[1:], pairs, strict=True):
        found.append(Line(line.way, line.outcomes, line.held_out, pair, line.held_out if line is lines[-1] else None))
    return Standing(dataset, 1399, tuple(found), ("left out for want of time: <from scratch>",))


def text(found: Standing, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(terminal(found, width))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_front_are_the_ways_that_none_beats_in_both() -> None:
    found = standing()
    assert [found.lines.index(line) for line in front(found.lines)] == [0, 1, 3]
    assert found.best is found.lines[3]


def test_a_table_tells_accuracy_cost_and_chance() -> None:
    lines = text(standing()).splitlines()
    assert "against cheapest" in lines[0]
    assert lines[1].startswith("*")
    assert not lines[3].startswith("*")
    assert "+10 images" in lines[2]
    assert "may be chance" not in lines[4]
    assert "over 2 seeds" in lines[1]
    assert "1.0 GiB" in lines[1]


def test_eighty_columns_hold_every_name_accuracy_and_time_unbroken() -> None:
    names = [way.name for way in Contest("photos", DatasetOptions(), Request("vgg16"), views=4).ways]
    few = standing()
    many = [replace(line, way=replace(line.way, name=name)) for line, name in zip(few.lines * 3, names, strict=False)]
    shown = text(replace(few, lines=tuple(many)), 80)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(names) == 10
    for name, line in zip(names, lines[1:], strict=False):
        assert f" {name} " in line
        assert line.endswith((" s", " min")) or " s " in line or "min" in line
        assert re.search(r"0\.\d{3} \[0\.\d{3}, [01]\.\d{3}\]", line)
    assert "the best on test: 0.9" in shown


def test_a_page_holds_every_way_and_loads_nothing(tmp_path: Path) -> None:
    page = write_page(tmp_path / "out", standing("<b>pets</b>"))
    html = page.read_text()
    assert "&lt;b&gt;pets&lt;/b&gt;" in html
    assert "<b>pets" not in html
    assert "&lt;from scratch&gt;" in html
    assert all(line.way.name in html for line in standing().lines)
    assert "default-src 'none'" in html
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert (tmp_path / "out" / "accuracy-against-cost.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_names_every_way_for_those_who_cannot_see_it() -> None:
    assert all(line.way.name in picture(standing()).alt for line in standing().lines)


def test_a_way_of_unknown_cost_is_in_the_table_but_not_on_the_front(tmp_path: Path) -> None:
    found = standing()
    first = found.lines[0]
    unknown = tuple(replace(outcome, base_seconds=None) for outcome in first.outcomes)
    found = replace(found, lines=(replace(first, outcomes=unknown), *found.lines[1:]))
    assert found.lines[0] not in front(found.lines)
    assert "0.5 s and the base" in text(found)
    assert found.to_json()["results"][0]["seconds"] is None
    write_page(tmp_path, found)
    nothing = tuple(replace(line, outcomes=unknown) for line in found.lines)
    assert picture(replace(found, lines=nothing)).png.startswith(b"\x89PNG")


def test_the_curve_over_views_is_drawn_where_there_is_one() -> None:
    assert by_views(standing()) is None
    plain = Contest("photos", DatasetOptions(), Request("vgg16"), views=4).ways
    lines = standing().lines
    several = tuple(
        replace(line, way=way) for line, way in zip(lines, (plain[0], plain[2], plain[3], plain[5]), strict=True)
    )
    drawn = by_views(replace(standing(), lines=several))
    assert drawn is not None
    assert drawn.alt.endswith("1: 0.900, 2: 0.950, 4: 0.800")


def test_a_browser_shows_every_way_and_both_plots_and_loads_nothing(tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    plain = Contest("photos", DatasetOptions(), Request("vgg16"), views=4).ways
    lines = tuple(replace(line, way=way) for line, way in zip(standing().lines, plain[2:6], strict=True))
    page_file = write_page(tmp_path, replace(standing(), lines=lines))
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        asked, said = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.goto(page_file.as_uri())
        names = [row.inner_text().split("\t")[1] for row in page.locator("tbody tr").all()]
        drawn = page.eval_on_selector_all("img.plot", "images => images.map(i => i.complete && i.naturalWidth > 100)")
        browser.close()
    assert names == [line.way.name for line in lines]
    assert drawn == [True, True]
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def test_a_page_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="cannot write the page"):
        write_page(tmp_path / "out", standing())


def test_the_json_has_a_line_for_each_way() -> None:
    value = standing().to_json()
    assert [one["test"] is not None for one in value["results"]] == [False, False, False, True]
    assert value["best"] == value["results"][3]["name"]
    assert value["results"][1]["against_cheapest"]["only_second"] == 10
