from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore import whole
from featstore.errors import FeatstoreError
from featstore.extraction import RejectedImage
from featstore.records import Reason
from heads.evaluation.leaks import Leak
from heads.report import gather, plots
from heads.report.board import FIRST_LINES, leaderboard, p_values
from heads.report.canvas import Plot
from heads.report.gather import FeatureMap
from heads.training.results import Variants
from tests.heads.report.conftest import MakeMaterial, Material, with_curve


class Reader(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.parts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.parts).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes seconds: only the tests that ask for it get real plots."""
    if "drawn" in request.fixturenames:
        return

    def feature_map(tables: Any, *_: Any, **__: Any) -> FeatureMap:
        y = tables["train"].y
        return FeatureMap(np.zeros((len(y), 2)), y, y < 0, len(y))

    monkeypatch.setattr(gather, "feature_map", feature_map)
    monkeypatch.setattr(
        plots, "draw", lambda name, alt, *_: Plot(name, alt, b"<svg/>", b"<svg/>", b"\x89PNG", 300, 300)
    )


@pytest.fixture
def drawn() -> None:
    """With real plots."""


def test_the_page_says_which_head_to_use_what_it_was_chosen_on_and_that_test_was_scored_once(
    material: Material, tmp_path: Path
) -> None:
    best = material.comparison.best
    words = Reader(material.write(tmp_path)).words
    assert f"Use {best.head} on vgg16 avg" in words
    assert "chosen for its accuracy on validation; the test images were looked at once" in words
    for metrics in (best.held_out, best.test):
        assert metrics is not None
        low, high = metrics.accuracy.interval
        assert f"{metrics.accuracy.value:.3f} 95 % interval [{low:.3f}, {high:.3f}], {metrics.n} images" in words
    assert "pets & <b>" in words


def test_every_plot_is_in_the_page_and_a_png_file(material: Material, tmp_path: Path, drawn: None) -> None:
    reader = Reader(with_curve(material).write(tmp_path))
    names = {
        "confusion-held-out", "confusion-test", "cost-bytes", "cost-extraction", "cost-fit", "learning-1-accuracy",
        "learning-1-loss", "map", "reliability", "roc",
    }  # fmt: skip
    assert {path.stem for path in (tmp_path / "plots").iterdir()} == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (tmp_path / "plots").iterdir())
    drawn = [image for image in reader.of("img") if image.get("class") == "plot"]
    assert len(drawn) == len(reader.of("source")) == len(names)
    assert all(image["alt"] and image["width"] and image["height"] for image in drawn)


def test_names_of_files_and_classes_are_text_and_nothing_else(material: Material, tmp_path: Path) -> None:
    text = material.write(tmp_path, notes=("<script>note</script>",))
    reader = Reader(text)
    assert text.count("<script") == len(reader.of("script")) == 1
    assert not [image for image in reader.of("img") if not (image["src"] or "").startswith("data:image/")]
    assert not [name for _, attributes in reader.tags for name in attributes if name.startswith("on")]
    assert "<script>alert('class')</script>" in reader.words
    assert 'cat "and" $\\frac{x$ 猫' in reader.words
    assert r"dog\xff\u202egod\n\x1b[2J" in reader.words
    assert "<img src=x onerror=alert(1)>" in reader.words
    assert "broken <i>.png truncated" in reader.words
    assert not set("\x1b\u202e") & set(text)


def test_the_page_forbids_itself_to_load_anything(material: Material, tmp_path: Path) -> None:
    text = material.write(tmp_path)
    [policy] = [m["content"] or "" for m in Reader(text).of("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        [part] = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        hashed = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        assert f"'sha256-{hashed}'" in policy
    assert not re.search(r"""(?:src|href|srcset)=["'](?!data:|#)""", text)
    assert "style=" not in text


def test_the_same_comparison_gives_the_same_page(material: Material, tmp_path: Path, drawn: None) -> None:
    assert material.write(tmp_path / "one") == material.write(tmp_path / "two")


def test_the_leaderboard_has_a_line_a_head_with_keys_to_sort_by(material: Material) -> None:
    board = leaderboard(material.comparison)
    assert len(board.lines) == 3
    titles = [column.title for column in board.columns]
    best = dict(zip(titles, board.lines[0].cells, strict=True))
    accuracy = material.comparison.best.held_out.accuracy
    assert best["accuracy"].key == accuracy.value
    assert best["accuracy"].whisker is not None
    assert best["cache"].key == 9_000
    assert best["extract s"].text == "2.50"
    assert (best["p"].text, best["p"].key) == ("–", None)


def test_a_p_value_belongs_to_its_own_head_though_another_has_none(material: Material) -> None:
    results, pairs = material.comparison.results, material.comparison.pairs
    assert p_values(material.comparison) == [None, *(pair.adjusted for pair in pairs)]
    assert len(pairs) == len(results) - 1 == 2
    fewer = replace(material.comparison, pairs=pairs[1:])
    assert p_values(fewer) == [None, None, pairs[1].adjusted]


def test_p_values_say_how_many_comparisons_were_paid_for(material: Material, tmp_path: Path) -> None:
    assert "adjusted by Holm for all 3 pairs of heads" in Reader(material.write(tmp_path)).words


def test_a_long_leaderboard_can_be_unfolded_and_a_short_one_need_not(material: Material, tmp_path: Path) -> None:
    assert "data-unfolds" not in material.write(tmp_path).split("<script>")[0]
    results = material.comparison.results
    long = material.but(results=(*results, *results[1:] * 10))
    assert len(long.comparison.results) > FIRST_LINES
    assert f"Show all {len(long.comparison.results)} heads" in long.write(tmp_path)


def test_mistakes_have_pictures_classes_and_probabilities(material: Material, tmp_path: Path) -> None:
    reader = Reader(material.write(tmp_path))
    mistakes = int((material.comparison.best.probabilities.argmax(axis=1) != material.comparison.best.answers).sum())
    shown = [image for image in reader.of("img") if (image["src"] or "").startswith("data:image/jpeg;base64,")]
    assert 0 < len(shown) == min(mistakes, 24)
    assert ("All " if mistakes <= 24 else "The worst 24 of ") + f"{mistakes} wrongly called images" in reader.words


def test_a_picture_that_vanished_is_a_sentence(make: MakeMaterial, tmp_path: Path) -> None:
    material = make({"train": 40, "validation": 60})
    for path in material.dataset.paths:
        (tmp_path / "pictures" / path).unlink()
    assert "This picture can no longer be shown: No such file or directory." in Reader(material.write(tmp_path)).words


def test_without_a_mistake_or_a_test_split_the_page_says_so(material: Material, tmp_path: Path) -> None:
    best = material.comparison.best
    right = np.eye(3)[best.answers] * 0.97 + 0.01
    words = Reader(material.best(probabilities=right, test=None).write(tmp_path)).words
    assert "No image of validation was called wrongly." in words
    assert "there is no score on test images" in words
    assert not (tmp_path / "plots" / "confusion-test.png").exists()


def test_a_single_mistake_is_worded_as_one(material: Material, tmp_path: Path) -> None:
    answers = material.comparison.best.answers
    nearly = np.eye(3)[np.append((answers[0] + 1) % 3, answers[1:])] * 0.97 + 0.01
    words = Reader(material.best(probabilities=nearly).write(tmp_path)).words
    assert "The only image of validation that was called wrongly." in words


def test_leaks_are_listed_and_scores_given_with_and_without_them(material: Material, tmp_path: Path) -> None:
    best = material.comparison.best
    leak = Leak("validation", "<copy>.png", "train", "train/copy.png", 1.0, exact=True, same_label=False)
    metrics = best.held_out
    without = replace(metrics, n=59, accuracy=replace(metrics.accuracy, value=0.123))
    doubted = material.best(held_out_variants=Variants(metrics, without)).but
    words = Reader(
        Material(replace(doubted().comparison, leaks=(leak,)), material.dataset, material.done, material.tables).write(
            tmp_path
        )
    ).words
    assert "1 image of validation and test has an exact or a near copy in an earlier split" in words
    assert "<copy>.png train/copy.png exact copy differ" in words
    assert re.search(r"0\.123 \[.*?\] 59", words)
    assert "has a copy, or nearly one, in an earlier split" in Reader(material.but(leaks=()).write(tmp_path)).words


def test_a_long_list_of_rejects_is_cut_and_says_so(material: Material, tmp_path: Path) -> None:
    rejects = tuple(RejectedImage(f"{i}.png", "", Reason.EMPTY_FILE) for i in range(250))
    report = replace(material.done.report, rejects=rejects, ledger=Path("ledger.csv"))
    words = Reader(replace(material, done=replace(material.done, report=report)).write(tmp_path)).words
    assert "250 empty-file" in words
    assert "And 50 more , in ledger.csv" in words.replace("more,", "more ,")


def test_one_head_chosen_by_folds_on_forty_classes_has_a_report(make: MakeMaterial, tmp_path: Path) -> None:
    material = make({"train": 120}, tuple(f"class {i}" for i in range(40)))
    first = material.comparison.best
    reader = Reader(material.but(results=(first,), pairs=(), notes=()).write(tmp_path / "out"))
    assert "those of the commonest mistakes" in reader.words
    assert "the 30 worst of 40" in reader.words
    assert "Commonest mistakes" in reader.words
    assert f"Accuracy on {first.choice.on}" in reader.words


def test_an_unknown_cost_has_no_plot(material: Material, tmp_path: Path) -> None:
    first = material.comparison.best
    material.best(cost=replace(first.cost, image_seconds=None)).write(tmp_path)
    names = {path.stem for path in (tmp_path / "plots").iterdir()}
    assert "cost-extraction" not in names
    assert "cost-bytes" in names


def test_a_failed_write_leaves_the_old_page_whole_and_no_scraps(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = material.write(tmp_path)
    files = sorted(tmp_path.rglob("*"))

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(whole.os, "fsync", full)
    with pytest.raises(FeatstoreError, match=r"report"):
        material.write(tmp_path, seed=1)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == before
    assert sorted(tmp_path.rglob("*")) == files


@pytest.mark.parametrize("package", ["report", "contest"])
def test_the_files_of_a_page_are_part_of_the_package(package: str) -> None:
    root = Path(__file__).parents[3]
    files = [path for path in (root / "heads" / package).glob("page.*") if path.suffix != ".py"]
    assert files
    for path in files:
        assert f"{package}/{path.name}" in (root / "setup.cfg").read_text()
