"""The page as people use it, in a real browser: pictures dropped, bars, neighbours, tables, keyboard, both themes."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands import good
from tests.heads.service.conftest import Running, Serve
from tests.pictures import png

CHROMIUM = shutil.which("chromium")
_TOKEN = "0123456789abcdef-token"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium here")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """``opened(running)``: the page of a server; at the end nothing may have been complained of in the console."""
    contexts, told = [], []

    def visit(running: Running, **given: Any) -> Any:
        context = browser.new_context(**given)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: told.append(str(error)))
        page.goto(running.url)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert told == []


def drop(page: Any, *pictures: tuple[str, bytes | int]) -> None:
    """Drop files on the page, as a person does with a mouse: of these bytes, or of so many zeros."""
    given = [(name, base64.b64encode(data).decode() if isinstance(data, bytes) else data) for name, data in pictures]
    transfer = page.evaluate_handle(
        """(given) => {
            const transfer = new DataTransfer();
            const bytes = (data) => typeof data === "number"
                ? new Uint8Array(data) : Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            for (const [name, data] of given) transfer.items.add(new File([bytes(data)], name));
            return transfer;
        }""",
        [list(one) for one in given],
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    page.locator("#progress", has_text=f"{len(pictures)} of {len(pictures)} answered").wait_for(timeout=30_000)


def test_dropped_pictures_show_what_the_command_line_predicts(serve: Serve, opened: Any) -> None:
    running = serve()
    file = running.photos / "test" / "dogs" / "3.png"
    words = ("predict", running.bundle, file, "--store", running.store.path, "--json")
    [told] = good(*words).json["predictions"]
    page = opened(running)
    drop(page, ("3.png", file.read_bytes()), ("new.png", png(555)))
    new, known = page.locator(".answer").all()
    assert known.locator("h3").inner_text() == "3.png"
    assert known.locator(".from").inner_text() == "known already: from the store"
    assert new.locator(".from").inner_text() == "new: computed now"
    best = known.locator(".bar.best")
    assert best.locator("span").first.inner_text() == told["label"]
    shown = {
        bar.locator("span").first.inner_text(): float(bar.locator("meter").get_attribute("value") or "nan")
        for bar in known.locator(".bar").all()
    }
    assert shown == pytest.approx(told["probabilities"], abs=1e-9)
    assert known.locator(".near li").count() == 8
    known.locator(".near img").first.wait_for()
    assert {one.inner_text() for one in known.locator(".near li span:nth-of-type(1)").all()} <= {"cats", "dogs"}


def test_of_many_classes_the_likeliest_are_shown_and_the_others_on_demand(serve: Serve, opened: Any) -> None:
    page = opened(serve())
    chances = {f"class {number}": (9 - number) / 45 for number in range(9)}
    says = {"head": "a head", "label": "class 0", "probabilities": chances}
    one = {"name": "a.png", "digest": "0" * 64, "rejected": None, "from_cache": True, "heads": [says]}
    page.route("**/v1/predict", lambda route: route.fulfill(json={"predictions": [one]}))
    drop(page, ("a.png", png(1)))
    names = page.locator(".bar span:first-child")
    assert names.all_inner_texts() == [f"class {number}" for number in range(5)]
    more = page.locator(".head summary", has_text="and 4 more")
    more.focus()
    page.keyboard.press("Enter")
    page.locator(".bar", has_text="class 8").wait_for()
    assert names.all_inner_texts() == [*chances]
    page.keyboard.press("Enter")
    page.locator(".bar", has_text="class 8").wait_for(state="hidden")
    page.keyboard.press("Enter")
    page.locator(".bar", has_text="class 8").wait_for()
    assert names.all_inner_texts() == [*chances], "none of them twice"


def test_broken_and_huge_files_get_a_sentence_and_odd_names_stay_text(serve: Serve, opened: Any) -> None:
    running = serve()
    page = opened(running)
    odd = "<img src=x onerror=alert(1)>.png"
    drop(page, ("half.png", png(1)[:80]), ("text.png", b"no picture"), ("huge.png", 17 * 2**20), (odd, png(2)))
    sentences = [one.inner_text() for one in page.locator(".rejected").all()]
    assert sentences == [
        "This file is too large: at most 16 MiB are taken.",
        "This is no picture.",
        "This picture ends too early: part of the file is missing.",
    ]
    assert page.locator(".answer h3").first.inner_text() == odd
    assert page.locator(".answer h3 img").count() == 0


def test_the_leaderboard_is_sorted_with_the_keyboard_alone(serve: Serve, opened: Any, tmp_path: Path) -> None:
    running = serve()
    shutil.copytree(running.bundle, running.bundle.with_name("a-first-head"))
    page = opened(running)
    page.locator("#leaderboard tbody tr").first.wait_for()
    page.locator("#leaderboard button").first.focus()
    page.keyboard.press("Enter")
    names = [row.locator("td").first.inner_text() for row in page.locator("#leaderboard tbody tr").all()]
    assert names == sorted(names)
    page.keyboard.press("Enter")
    again = [row.locator("td").first.inner_text() for row in page.locator("#leaderboard tbody tr").all()]
    assert again == names[::-1]
    assert page.locator("#leaderboard th").first.get_attribute("aria-sort") == "descending"


def test_a_head_opens_with_what_it_confuses_and_its_mistakes(serve: Serve, opened: Any) -> None:
    running = serve()
    [bundle] = running.served.bundles.values()
    bundle.judged.said[:2] = 1 - bundle.judged.truth[:2]
    page = opened(running)
    page.locator("#leaderboard button.link").focus()
    page.keyboard.press("Enter")
    page.locator("#details h3").wait_for()
    assert page.evaluate("() => document.activeElement.textContent") == running.head
    counts = [int(cell) for cell in page.locator("#details .confusion td.number").all_inner_texts()]
    assert counts == [count for line in bundle.card.held_out.confusion for count in line]
    assert page.locator("#details svg.plot circle").count() >= 1
    page.locator("#details .gallery img").first.wait_for()
    told = page.locator("#details .gallery li span:nth-of-type(1)").all_inner_texts()
    pairs = zip(bundle.judged.truth.tolist(), bundle.judged.said.tolist(), strict=True)
    names = bundle.card.classes
    assert sorted(told) == sorted(f"{names[truth]}, called {names[said]}" for truth, said in pairs if truth != said)
    assert len(told) >= 2
    page.get_by_role("button", name="Close").click()
    assert not page.locator("#details").is_visible()


def screen_place(page: Any, point: dict[str, Any]) -> tuple[float, float]:
    """Where the page draws a point of the map before it was moved."""
    box = page.locator("#map").bounding_box()
    side = 0.88 * min(box["width"], box["height"])
    return (
        box["x"] + box["width"] / 2 + (point["x"] - 0.5) * side,
        box["y"] + box["height"] / 2 + (point["y"] - 0.5) * side,
    )


def drawn_map(page: Any) -> None:
    page.locator("#map-head option").first.wait_for(state="attached")
    page.locator("#map-show").click()
    page.locator("#map-note", has_text="images").wait_for(timeout=60_000)
    page.locator("#map").scroll_into_view_if_needed()


def picture_of_map(page: Any) -> str:
    return str(page.evaluate("() => document.getElementById('map').toDataURL()"))


def test_the_map_shows_the_image_that_is_pointed_at_and_moves_and_zooms(serve: Serve, opened: Any) -> None:
    running = serve()
    points = running.ask("GET", f"/v1/heads/{running.head}/map").json()["points"]
    alone = max(
        points, key=lambda one: min(abs(one["x"] - o["x"]) + abs(one["y"] - o["y"]) for o in points if o is not one)
    )
    page = opened(running)
    drawn_map(page)
    page.mouse.move(*screen_place(page, alone))
    card = page.locator("#map-card")
    card.locator("img[src^=blob]").wait_for()
    assert card.inner_text().startswith(alone["label"])
    whole = picture_of_map(page)
    page.mouse.wheel(0, -400)
    page.wait_for_function("(old) => document.getElementById('map').toDataURL() !== old", arg=whole)
    x, y = screen_place(page, {"x": 0.5, "y": 0.5})
    nearer = picture_of_map(page)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 90, y + 60, steps=4)
    page.mouse.up()
    assert picture_of_map(page) != nearer
    page.get_by_role("button", name="all").click()
    page.mouse.move(0, 0)
    card.wait_for(state="hidden")
    page.locator("#map").focus()
    page.keyboard.press("Enter")
    card.wait_for()
    page.keyboard.press("ArrowLeft")
    card.wait_for(state="hidden")


def test_the_keyboard_alone_reaches_everything(serve: Serve, opened: Any) -> None:
    page = opened(serve())
    page.locator("#leaderboard tbody tr").first.wait_for()
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("() => document.activeElement.id || document.activeElement.textContent.trim()"))
    assert {"Pictures", "Heads", "Map", "Store", "choose", "head", "held out", "map-head", "map-show"} <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault_that_shuts_anybody_out(serve: Serve, opened: Any, scheme: str) -> None:
    """Every rule of axe-core (WCAG 2 A and AA, best practices), with every view of the page open."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    running = serve()
    [bundle] = running.served.bundles.values()
    bundle.judged.said[:2] = 1 - bundle.judged.truth[:2]
    page = opened(running, color_scheme=scheme)
    drop(page, ("a.png", png(3)), ("b.png", png(4)[:70]))
    page.locator("#leaderboard button.link").click()
    page.locator("#details h3").wait_for()
    drawn_map(page)
    found = axe.Axe().run(page).response["violations"]
    told = [f"{one['impact']}: {one['id']} {[node['html'][:120] for node in one['nodes'][:3]]}" for one in found]
    assert told == []


def test_the_store_is_told(serve: Serve, opened: Any) -> None:
    page = opened(serve())
    page.locator("#namespaces tbody tr").first.wait_for()
    cells = page.locator("#namespaces tbody tr td").all_inner_texts()
    assert cells[:2] == ["vgg16", "block5_pool"]
    assert cells[5] == "36"
    assert page.locator("#answered").inner_text().startswith("No picture has been asked about")


def test_the_store_tells_how_often_it_helped_and_why_pictures_were_rejected(serve: Serve, opened: Any) -> None:
    running = serve()
    known = (running.photos / "test" / "cats" / "0.png").read_bytes()
    page = opened(running)
    drop(page, ("a.png", known), ("b.png", png(77)), ("c.png", png(4)[:70]))
    words = "3 pictures, of which 50 % were known already (1 from the store, 1 computed), and 1 could not be used."
    page.locator("#answered", has_text=words).wait_for()
    running.served.close()  # what is new is in the store now
    page.reload()
    page.locator(".reasons li", has_text="1 truncated").wait_for()


def test_the_token_is_asked_for_once(serve: Serve, opened: Any) -> None:
    page = opened(serve(token=_TOKEN))
    page.locator("#access").wait_for()
    page.keyboard.press("Tab")
    page.locator("#token").fill("another-token-0123456")
    page.keyboard.press("Enter")
    page.locator("#problem", has_text="The service refuses this token.").wait_for()
    page.locator("#token").fill(_TOKEN)
    page.keyboard.press("Enter")
    page.locator("#leaderboard tbody tr").first.wait_for()
    drop(page, ("a.png", png(3)))
    assert page.locator(".bar").count() == 2
    page.reload()
    page.locator("#leaderboard tbody tr").first.wait_for()
    assert not page.locator("#access").is_visible()


def test_a_service_that_is_gone_is_told_in_a_sentence(serve: Serve, opened: Any) -> None:
    page = opened(serve())
    page.locator("#leaderboard tbody tr").first.wait_for()
    page.route("**/v1/**", lambda route: route.abort())
    drop(page, ("a.png", png(1)))
    assert page.locator(".answer .rejected").inner_text() == "The service cannot be reached. Is it still running?"


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_every_screen(serve: Serve, opened: Any, width: int, scheme: str) -> None:
    page = opened(serve(), viewport={"width": width, "height": 800}, color_scheme=scheme)
    drop(page, ("a.png", png(3)), ("b.png", png(4)[:70]))
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    background = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(15, 18, 22)") == (scheme == "dark")


def test_nothing_is_loaded_from_elsewhere(serve: Serve, browser: Any) -> None:
    running = serve()
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(running.url)
    drop(page, ("a.png", png(3)))
    context.close()
    assert asked
    assert all(url.startswith((running.url, "blob:", "data:")) for url in asked)
