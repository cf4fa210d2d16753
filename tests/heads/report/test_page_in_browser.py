"""The page as a person gets it: in a real browser, without a network."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heads.report.board import FIRST_LINES
from tests.heads.report.conftest import Material, with_curve

pytestmark = pytest.mark.real

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium is installed (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def report(shared_material: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every plot and more heads than are shown at first."""
    material = with_curve(shared_material)
    others = shared_material.comparison.results[1:]
    more = [
        replace(one, cost=replace(one.cost, feature_bytes=1000 + i if i else 200)) for i in range(10) for one in others
    ]
    folder = tmp_path_factory.mktemp("browser")
    material.but(results=(*material.comparison.results, *more)).write(folder)
    return folder / "report.html"


class Opened:
    """A page in the browser, and what it did that it must not."""

    def __init__(self, browser: Any, report: Path, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(report.as_uri())

    def column(self, title: str) -> list[str]:
        """The cells below a heading, of the rows that are shown."""
        place = [text.strip() for text in self.page.locator("#leaderboard th").all_inner_texts()].index(title)
        return self.page.locator(f"#leaderboard tbody tr:visible td:nth-child({place + 1})").all_inner_texts()

    def heading(self, title: str) -> Any:
        return self.page.locator("#leaderboard th", has_text=re.compile(f"^{re.escape(title)}$"))


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[Opened]:
    """The page in a wide window; whatever a test did, there was no complaint and nothing was loaded."""
    found = Opened(browser, report, viewport={"width": 1280, "height": 900})
    yield found
    found.context.close()
    assert found.complaints == []
    assert [url for url in found.requests if not url.startswith("data:")] == [report.as_uri()]


def test_every_plot_and_every_picture_is_seen(opened: Opened) -> None:
    sizes = opened.page.evaluate(
        """async () => {
            const images = [...document.images];
            images.forEach((image) => { image.loading = "eager"; });
            await Promise.all(images.map((image) => image.decode()));
            return images.map((image) => [image.className, image.naturalWidth, image.clientWidth, image.clientHeight]);
        }"""
    )
    assert len([size for size in sizes if size[0] == "plot"]) == 10
    assert len(sizes) > 10
    assert all(min(size[1:]) > 20 for size in sizes)


def test_a_click_sorts_by_a_column_and_a_second_one_the_other_way_round(opened: Opened) -> None:
    heading = opened.heading("cache")
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    shown = opened.column("cache")
    assert shown[:2] == ["200 B", "200 B"]
    assert len(shown) == FIRST_LINES
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert opened.column("cache")[0] == "8.8 KiB"
    assert opened.page.locator("#leaderboard th[aria-sort]").count() == 1


def test_the_keyboard_sorts_too_and_what_has_no_value_stays_last(opened: Opened) -> None:
    opened.page.get_by_role("button", name="Show all").click()
    for expected in ("descending", "ascending"):
        opened.page.locator("#leaderboard th").first.get_by_role("button").focus()
        while opened.page.evaluate("document.activeElement.textContent") != "p":
            opened.page.keyboard.press("Tab")
        opened.page.keyboard.press("Enter")
        assert opened.heading("p").get_attribute("aria-sort") == expected
        values = opened.column("p")
        numbers = [float(value.strip("<")) for value in values if value != "–"]
        assert numbers == sorted(numbers, reverse=expected == "descending")
        assert values[len(numbers) :] == ["–"] * (len(values) - len(numbers))
        assert 0 < len(numbers) < len(values)


def test_the_rest_of_a_long_leaderboard_unfolds_and_folds(opened: Opened) -> None:
    button = opened.page.locator("button.more")
    assert len(opened.column("head")) == FIRST_LINES
    button.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    assert len(opened.column("head")) > FIRST_LINES
    button.press("Space")
    assert len(opened.column("head")) == FIRST_LINES


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_window_needs_no_scrolling_to_the_side_and_dark_is_dark(
    browser: Any, report: Path, scheme: str
) -> None:
    found = Opened(browser, report, viewport={"width": 390, "height": 800}, color_scheme=scheme)
    assert found.page.evaluate("document.documentElement.scrollWidth") == 390
    [red, *_] = found.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)")
    assert (red < 60) == (scheme == "dark")
    used = found.page.evaluate("document.querySelector('img.plot').currentSrc")
    source = found.page.locator("picture source").first.get_attribute("srcset")
    assert (used == source) == (scheme == "dark")
    found.context.close()
    assert found.complaints == []


def test_without_a_script_everything_is_still_there(browser: Any, report: Path) -> None:
    found = Opened(browser, report, java_script_enabled=False)
    assert len(found.column("head")) > FIRST_LINES
    assert not found.page.locator("button.more").is_visible()
    found.context.close()
