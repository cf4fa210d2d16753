from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from featstore import DatasetOptions, Request
from featstore.errors import StorageError
from heads.contest.plan import Contest
from heads.contest.show import front, picture, terminal, write_page
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
    assert max(map(len, text(standing(), 80).splitlines())) <= 80 or "memory" not in text(standing(), 80)


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


def test_a_page_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StorageError):
        write_page(tmp_path / "out", standing())


def test_the_json_has_a_line_for_each_way() -> None:
    value = standing().to_json()
    assert [one["test"] is not None for one in value["results"]] == [False, False, False, True]
    assert value["best"] == value["results"][3]["name"]
    assert value["results"][1]["against_cheapest"]["only_second"] == 10
