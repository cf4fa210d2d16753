"""The page as people use it, in a real browser: pictures that come in, bars, tables, keyboard, touch, both themes."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from featstore.records import Reason
from tests.commands import good
from tests.heads.service.conftest import Running, Serve
from tests.pictures import png
from tests.reliability.attacks import png_bomb
from tests.reliability.campaign import takes_long

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
    """``opened(running)``: the page of a server; at the end nothing may have been complained of in the console, but
    requests that the test itself makes fail: those with one of ``failing`` in their address.
    """
    contexts, told = [], []

    def visit(running: Running, *, failing: Sequence[str] = (), **given: Any) -> Any:
        def hear(message: Any) -> None:
            address = message.location["url"]
            meant = message.text.startswith("Failed to load resource") and any(part in address for part in failing)
            if message.type == "error" and not meant:
                told.append(f"{address}: {message.text}")

        context = browser.new_context(**given)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("console", hear)
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
    all_answered(page, len(pictures))


def all_answered(page: Any, count: int) -> None:
    page.get_by_text(f"{count} of {count} answered", exact=True).wait_for(timeout=30_000)


def with_another(running: Running, name: str) -> Path:
    """The bundle is served under a second name."""
    return Path(shutil.copytree(running.bundle, running.bundle.with_name(name)))


def focused(page: Any) -> str:
    """The words of what has the focus."""
    return str(page.evaluate("() => document.activeElement.textContent"))


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
    page = opened(serve(), failing=["/v1/neighbours/"])
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


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_files_are_chosen_with_the_mouse_or_with_the_keyboard_alone(serve: Serve, opened: Any, way: str) -> None:
    running = serve()
    page = opened(running)
    with page.expect_file_chooser() as chooser:
        if way == "mouse":
            page.get_by_role("button", name="choose files").click()
        else:
            while page.evaluate("() => document.activeElement.id") != "choose":
                page.keyboard.press("Tab")
            page.keyboard.press("Enter")
    assert chooser.value.is_multiple()
    chooser.value.set_files([running.photos / "train" / "cats" / f"{number}.png" for number in (0, 1)])
    all_answered(page, 2)
    assert page.locator(".answer h3").all_inner_texts() == ["1.png", "0.png"]
    assert page.locator(".bar").count() == 4
    assert page.evaluate("() => document.activeElement.id") == "choose"


def test_a_picture_is_pasted(serve: Serve, opened: Any) -> None:
    page = opened(serve(), permissions=["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async (data) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const image = new Blob([bytes], { type: "image/png" });
            await navigator.clipboard.write([new ClipboardItem({ "image/png": image })]);
        }""",
        base64.b64encode(png(3)).decode(),
    )
    page.keyboard.press("Control+V")
    all_answered(page, 1)
    assert page.locator(".bar").count() == 2


def test_a_folder_and_a_file_that_has_gone_cannot_be_read(serve: Serve, opened: Any, tmp_path: Path) -> None:
    page = opened(serve(), failing=["blob:"])
    folder = tmp_path / "folder"
    folder.mkdir()
    box = page.locator("#drop").bounding_box()
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    place = {"x": box["x"] + 9, "y": box["y"] + 9, "data": data}
    mouse = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        mouse.send("Input.dispatchDragEvent", {"type": kind, **place})
    all_answered(page, 1)
    assert page.locator(".answer h3").inner_text() == "folder"
    assert page.locator(".answer .rejected").inner_text() == "This file cannot be read."
    files = [tmp_path / "first.png", tmp_path / "gone.png"]
    for file in files:
        file.write_bytes(png(3))

    def take_away(route: Any) -> None:
        files[1].unlink()
        route.continue_()

    page.route("**/v1/predict", take_away)
    page.set_input_files("#files", files)
    all_answered(page, 2)
    assert page.locator(".answer h3").all_inner_texts() == ["gone.png", "first.png", "folder"]
    assert page.locator(".answer .rejected").all_inner_texts() == ["This file cannot be read."] * 2


def test_every_reason_of_a_reject_has_its_sentence(serve: Serve, opened: Any) -> None:
    page = opened(serve())
    told = page.evaluate("async () => (await import('/pictures.js')).REASONS")
    assert set(told) == {reason.code for reason in Reason if reason is not Reason.OK}
    assert all(sentence.endswith(".") for sentence in told.values())


def test_neighbours_are_said_to_be_of_the_first_head_where_there_are_several(serve: Serve, opened: Any) -> None:
    running = serve()
    page = opened(running)
    drop(page, ("a.png", png(3)))
    assert page.locator(".near p").inner_text() == "Training images that look most like it"
    with_another(running, "a-first-head")
    page.locator("#leaderboard tbody tr").nth(1).wait_for()
    drop(page, ("b.png", png(4)))
    first = page.locator(".answer").first
    assert first.locator(".head > p").first.inner_text() == "a-first-head"
    assert first.locator(".near p").inner_text() == "Training images of a-first-head that look most like it"


def test_broken_and_huge_files_get_a_sentence_and_odd_names_stay_text(serve: Serve, opened: Any) -> None:
    running = serve()
    page = opened(running)
    odd = "<img src=x onerror=alert(1)>.png"
    broken = (
        ("half.png", png(1)[:80]),
        ("text.png", b"no picture"),
        ("huge.png", 17 * 2**20),
        ("bomb.png", png_bomb(60_000)),
        ("empty.png", b""),
    )
    drop(page, *broken, (odd, png(2)))
    sentences = [one.inner_text() for one in page.locator(".answer .rejected").all()]
    assert sentences == [
        "This file is empty.",
        "This picture has too many pixels.",
        "This file is too large: at most 16 MiB are taken.",
        "This is no picture.",
        "This picture ends too early: part of the file is missing.",
    ]
    assert page.locator(".answer h3").first.inner_text() == odd
    assert page.locator(".answer h3 img").count() == 0


def test_what_many_classes_confuse_is_seen_whole_where_there_is_room(serve: Serve, opened: Any) -> None:
    running = serve()
    page = opened(running)
    classes = [f"class {number}" for number in range(9)] + ["a name of very many letters " * 3]

    def of_ten(route: Any) -> None:
        answer = route.fetch()
        about = answer.json()
        about["confusion"] = {"classes": classes, "counts": [[7] * 10] * 10, "more_classes": 0}
        route.fulfill(response=answer, json=about)

    page.route("**/v1/heads/*", of_ten)
    page.locator("#leaderboard .link").first.click()
    page.locator(".confusion").wait_for()
    page.set_viewport_size({"width": 1200, "height": 900})
    around = page.locator(".scroll", has=page.locator(".confusion"))
    assert around.evaluate("one => one.scrollWidth - one.clientWidth") == 0


def test_the_leaderboard_is_sorted_with_the_keyboard_alone(serve: Serve, opened: Any) -> None:
    running = serve()
    with_another(running, "a-first-head")
    page = opened(running)
    page.locator("#leaderboard tbody tr").nth(1).wait_for()
    page.locator("#leaderboard button").first.focus()
    page.keyboard.press("Enter")
    names = [row.locator("td").first.inner_text() for row in page.locator("#leaderboard tbody tr").all()]
    assert names == sorted(names)
    page.keyboard.press("Enter")
    again = [row.locator("td").first.inner_text() for row in page.locator("#leaderboard tbody tr").all()]
    assert again == names[::-1]
    assert page.locator("#leaderboard th").first.get_attribute("aria-sort") == "descending"


def test_a_long_name_is_cut_off_and_can_be_read_and_the_ring_of_the_focus_is_whole(serve: Serve, opened: Any) -> None:
    running = serve()
    name = "a-long-name-" * 12
    with_another(running, name)
    page = opened(running)
    button = page.locator("#leaderboard button.link", has_text=name)
    button.focus()
    assert button.get_attribute("title") == name
    cell = button.locator("xpath=..")
    inner, outer = button.bounding_box(), cell.bounding_box()
    ring = 4
    assert outer["x"] + ring <= inner["x"]
    assert inner["x"] + inner["width"] + ring <= outer["x"] + outer["width"]
    assert page.evaluate("() => document.getElementById('leaderboard').offsetWidth") <= 1200
    assert cell.evaluate("(cell) => getComputedStyle(cell).overflow") == "visible"
    row = page.locator("#leaderboard tbody tr").first
    assert row.locator("td[title]").all_inner_texts() == ["vgg16", "cats, dogs"]


def test_a_head_opens_with_what_it_confuses_and_its_mistakes(serve: Serve, opened: Any) -> None:
    running = serve()
    [bundle] = running.served.bundles.values()
    bundle.judged.said[:2] = 1 - bundle.judged.truth[:2]
    page = opened(running)
    page.locator("#leaderboard button.link").focus()
    page.keyboard.press("Enter")
    page.locator("#details .confusion").wait_for()
    assert focused(page) == running.head
    counts = [int(cell) for cell in page.locator("#details .confusion td.number").all_inner_texts()]
    assert counts == [count for line in bundle.card.held_out.confusion for count in line]
    assert page.locator("#details svg.plot circle").count() >= 1
    page.locator("#details .gallery img").first.wait_for()
    told = page.locator("#details .gallery li span:nth-of-type(1)").all_inner_texts()
    pairs = zip(bundle.judged.truth.tolist(), bundle.judged.said.tolist(), strict=True)
    names = bundle.card.classes
    assert sorted(told) == sorted(f"{names[truth]}, called {names[said]}" for truth, said in pairs if truth != said)
    assert len(told) >= 2
    page.get_by_role("button", name="Close").focus()
    page.keyboard.press("Enter")
    for _ in range(2):  # closed by its button, and by Escape
        assert not page.locator("#details").is_visible()
        assert page.evaluate("() => document.activeElement.matches('#leaderboard button.link')")
        assert focused(page) == running.head
        page.keyboard.press("Enter")
        page.locator("#details .confusion").wait_for()
        page.keyboard.press("Escape")
    assert not page.locator("#details").is_visible()


@takes_long
def test_an_open_head_is_told_anew_when_its_bundle_changes_and_closed_when_it_goes(serve: Serve, opened: Any) -> None:
    running = serve()
    another = with_another(running, "another")
    page = opened(running)
    page.locator("#leaderboard button.link", has_text="another").click()
    page.locator("#details .confusion").wait_for()
    before = page.locator("#details .gallery li").count()
    bundle = running.served.bundles["another"]
    bundle.judged.said[:] = 1 - bundle.judged.truth
    page.locator("#details .gallery li").nth(len(bundle.judged.truth) - 1).wait_for()
    assert page.locator("#details .gallery li").count() > before
    assert focused(page) == "another"
    shutil.rmtree(another)
    page.locator("#details").wait_for(state="hidden")
    assert page.locator("#leaderboard tbody tr").count() == 1
    assert page.evaluate("() => document.activeElement.contains(document.getElementById('leaderboard'))")
    assert page.evaluate("() => document.activeElement !== document.body")


def test_why_a_head_does_not_open_is_told_in_its_place_until_it_does(serve: Serve, opened: Any) -> None:
    page = opened(serve(), failing=["/v1/heads/"])
    page.route("**/v1/heads/*", lambda route: route.abort())
    page.locator("#leaderboard button.link").click()
    page.locator("#details .rejected", has_text="cannot be reached").wait_for()
    page.unroute("**/v1/heads/*")
    page.locator("#details .confusion").wait_for()
    assert page.locator("#details .rejected").count() == 0
    assert not page.locator("#problem").is_visible()


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


def lonely_point(running: Running) -> dict[str, Any]:
    """The point of the map that is farthest from all others."""
    points = running.ask("GET", f"/v1/heads/{running.head}/map").json()["points"]
    return max(
        points, key=lambda one: min(abs(one["x"] - o["x"]) + abs(one["y"] - o["y"]) for o in points if o is not one)
    )


def scrolled(page: Any) -> float:
    return float(page.evaluate("() => window.scrollY"))


def test_the_map_shows_the_image_that_is_pointed_at_and_moves_and_zooms(serve: Serve, opened: Any) -> None:
    running = serve()
    alone = lonely_point(running)
    page = opened(running)
    drawn_map(page)
    page.mouse.move(*screen_place(page, alone))
    card = page.locator("#map-card")
    card.locator("img[src^=blob]").wait_for()
    assert card.inner_text().startswith(alone["label"])
    assert page.get_by_role("application", name="Arrow keys move, plus and minus zoom").count() == 1
    whole = picture_of_map(page)
    page.mouse.down()
    page.mouse.up()
    assert picture_of_map(page) == whole, "what was clicked is still shown"
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


def test_the_map_has_colours_for_the_dark_that_follow_the_browser(serve: Serve, opened: Any) -> None:
    page = opened(serve())
    page.emulate_media(color_scheme="light")
    drawn_map(page)
    colour = "() => document.querySelector('#map-legend .key').style.background"
    light, picture = page.evaluate(colour), picture_of_map(page)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("(old) => document.getElementById('map').toDataURL() !== old", arg=picture)
    assert page.evaluate(colour) != light


def test_the_wheel_scrolls_the_page_over_a_map_that_was_not_clicked(serve: Serve, opened: Any) -> None:
    page = opened(serve())
    drawn_map(page)
    page.mouse.move(*screen_place(page, {"x": 0, "y": 0.5}))
    before = scrolled(page)
    page.mouse.wheel(0, -100)
    page.wait_for_function("(before) => window.scrollY <= before - 100", arg=before)
    page.mouse.move(*screen_place(page, {"x": -0.2, "y": 0.5}))
    whole = picture_of_map(page)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -200)
    page.keyboard.up("Control")
    page.wait_for_function("(old) => document.getElementById('map').toDataURL() !== old", arg=whole)


def test_a_finger_chooses_on_the_map_and_scrolls_the_page_over_it(serve: Serve, opened: Any) -> None:
    running = serve()
    alone = lonely_point(running)
    page = opened(running, viewport={"width": 360, "height": 800}, has_touch=True)
    drawn_map(page)
    finger = page.context.new_cdp_session(page)

    def swipe_down() -> None:
        x, y = screen_place(page, {"x": 0.5, "y": 0.3})
        for kind, moved in (("touchStart", 0), *(("touchMove", 15 * step) for step in range(1, 11))):
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y + moved}]})
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        page.wait_for_timeout(300)

    before, whole = scrolled(page), picture_of_map(page)
    swipe_down()
    assert scrolled(page) < before - 50
    assert picture_of_map(page) == whole
    page.locator("#map").scroll_into_view_if_needed()
    page.touchscreen.tap(*screen_place(page, alone))
    card = page.locator("#map-card")
    card.locator("img[src^=blob]").wait_for()
    assert card.inner_text().startswith(alone["label"])
    before, whole = scrolled(page), picture_of_map(page)
    swipe_down()
    assert scrolled(page) == before, "the map that was tapped is moved instead"
    assert picture_of_map(page) != whole


def test_the_keyboard_alone_reaches_everything(serve: Serve, opened: Any) -> None:
    page = opened(serve())
    page.locator("#leaderboard tbody tr").first.wait_for()
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("() => document.activeElement.id || document.activeElement.textContent.trim()"))
    assert {"Pictures", "Heads", "Map", "Store", "choose", "head", "held out", "map-head", "map-show"} <= reached


def tab_to(page: Any, wanted: str) -> None:
    """Press Tab until what matches this selector has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("(wanted) => document.activeElement.matches(wanted)", wanted):
            return
    raise AssertionError(f"Tab does not lead to {wanted}")


def test_with_the_keyboard_alone_one_sorts_opens_and_closes_a_head_and_moves_the_map(serve: Serve, opened: Any) -> None:
    running = serve()
    with_another(running, "a-first-head")
    page = opened(running)
    page.locator("#leaderboard tbody tr").nth(1).wait_for()
    tab_to(page, "#leaderboard [data-key=name]")
    page.keyboard.press("Enter")
    assert page.locator("#leaderboard th").first.get_attribute("aria-sort") == "ascending"
    tab_to(page, "#leaderboard button.link")
    page.keyboard.press("Enter")
    page.locator("#details .confusion").wait_for()
    tab_to(page, "#details-close")
    page.keyboard.press("Enter")
    page.locator("#details").wait_for(state="hidden")
    tab_to(page, "#map-show")
    page.keyboard.press("Enter")
    page.locator("#map-note", has_text="images").wait_for(timeout=60_000)
    tab_to(page, "#map")
    whole = picture_of_map(page)
    for keys in (("+", "-"), ("ArrowLeft", "ArrowRight"), ("ArrowUp", "ArrowDown"), ("-", "0"), ("ArrowRight", "0")):
        page.keyboard.press(keys[0])
        assert picture_of_map(page) != whole, keys
        page.keyboard.press(keys[1])
        page.wait_for_function("(whole) => document.getElementById('map').toDataURL() === whole", arg=whole)
    page.keyboard.press("Enter")
    page.locator("#map-card").wait_for()
    page.keyboard.press("Escape")
    page.locator("#map-card").wait_for(state="hidden")


def test_numbers_are_sorted_as_numbers_and_those_that_are_not_known_come_last(serve: Serve, opened: Any) -> None:
    running = serve()
    told = running.ask("GET", "/v1/heads").json()
    [head] = told["heads"]
    scores = {"a": (0.9, None), "b": (1.0, 0.5), "c": (0.09, 0.75)}
    told["heads"] = [
        {**head, "name": name, "held_out_accuracy": held_out, "test_accuracy": test}
        for name, (held_out, test) in scores.items()
    ]
    page = opened(running)
    page.route("**/v1/heads", lambda route: route.fulfill(json=told))
    page.locator("#leaderboard tbody tr").nth(2).wait_for()
    for key, orders in (("held_out_accuracy", ("cab", "bac")), ("test_accuracy", ("cba", "bca"))):
        for order in orders:
            page.locator(f"#leaderboard [data-key={key}]").click()
            rows = page.locator("#leaderboard tbody tr").all()
            assert "".join(row.locator("td").first.inner_text() for row in rows) == order


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault_that_shuts_anybody_out(serve: Serve, opened: Any, scheme: str) -> None:
    """Every rule of axe-core (WCAG 2 A and AA, best practices), with every view of the page open."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    running = serve()
    [bundle] = running.served.bundles.values()
    bundle.judged.said[:2] = 1 - bundle.judged.truth[:2]
    broken_bundle(running)
    page = opened(running, color_scheme=scheme)
    drop(page, ("a.png", png(3)), ("b.png", png(4)[:70]))
    page.locator("#leaderboard button.link").click()
    page.locator("#details .confusion").wait_for()
    page.locator("#unusable li").wait_for()
    drawn_map(page)
    assert faults(axe, page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault_where_the_token_is_asked_for(serve: Serve, opened: Any, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = opened(serve(token=_TOKEN), failing=["/v1/heads"], color_scheme=scheme)
    page.locator("#access").wait_for()
    page.locator("#problem").wait_for()
    assert faults(axe, page) == []


def faults(axe: Any, page: Any) -> list[str]:
    found = axe.Axe().run(page).response["violations"]
    return [f"{one['impact']}: {one['id']} {[node['html'][:120] for node in one['nodes'][:3]]}" for one in found]


def broken_bundle(running: Running) -> Path:
    """A bundle that cannot be used lies beside the other."""
    another = with_another(running, "another")
    (another / "card.json").write_bytes(b"{")
    return another


def test_the_store_is_told(serve: Serve, opened: Any) -> None:
    running = serve()
    page = opened(running)
    page.locator("#namespaces tbody tr").first.wait_for()
    cells = page.locator("#namespaces tbody tr td").all_inner_texts()
    assert cells[:2] == ["vgg16", "block5_pool"]
    assert cells[5] == "36"
    [namespace] = running.ask("GET", "/v1/stores").json()["namespaces"]
    number, unit = cells[7].split()
    assert float(number) * 1024 ** ["B", "KiB", "MiB", "GiB"].index(unit) == pytest.approx(namespace["bytes"], rel=0.05)
    assert page.locator("#answered").inner_text().startswith("No picture has been asked about")


def test_the_store_tells_how_often_it_helped_and_why_pictures_were_rejected(serve: Serve, opened: Any) -> None:
    running = serve()
    known = (running.photos / "test" / "cats" / "0.png").read_bytes()
    page = opened(running)
    drop(page, ("a.png", known), ("b.png", png(77)), ("c.png", png(4)[:70]))
    words = "3 pictures, of which 33 % were known already (1 from the store, 1 computed), and 1 could not be used."
    page.locator("#answered", has_text=words).wait_for()
    running.served.close()  # what is new is in the store now
    page.reload()
    page.locator(".reasons li", has_text="1 truncated").wait_for()


@takes_long
def test_the_store_is_asked_again_until_it_has_told(serve: Serve, opened: Any) -> None:
    page = opened(serve(), failing=["/v1/stores"])
    page.route("**/v1/stores", lambda route: route.abort())
    page.reload()
    page.locator("#leaderboard tbody tr").first.wait_for()
    page.locator("#problem", has_text="cannot be reached").wait_for()
    with page.expect_request("**/v1/stores"):
        pass
    page.wait_for_timeout(300)
    assert page.locator("#problem").is_visible()
    page.unroute("**/v1/stores")
    page.locator("#namespaces tbody tr").first.wait_for()
    page.locator("#problem").wait_for(state="hidden")


@takes_long
def test_a_service_that_hangs_is_asked_by_one_request_at_a_time(serve: Serve, opened: Any) -> None:
    page = opened(serve(), failing=["/v1/heads"])
    page.locator("#namespaces tbody tr").first.wait_for()
    held: list[Any] = []
    page.route("**/v1/heads", lambda route: held.append(route))
    page.wait_for_timeout(7000)
    assert len(held) == 1
    page.locator("#problem", has_text="cannot be reached").wait_for()
    page.unroute("**/v1/heads")
    page.locator("#problem").wait_for(state="hidden")


def test_an_answer_that_is_not_the_services_is_told_from_none(serve: Serve, opened: Any) -> None:
    page = opened(serve(), failing=["/v1/stores"])
    page.route("**/v1/stores", lambda route: route.fulfill(body="<p>Sign in to this network"))
    page.reload()
    page.locator("#problem", has_text="it is no JSON").wait_for()
    page.unroute("**/v1/stores")
    page.locator("#problem").wait_for(state="hidden")


def test_the_token_is_asked_for_once(serve: Serve, opened: Any) -> None:
    page = opened(serve(token=_TOKEN), failing=["/v1/heads"])
    page.locator("#access").wait_for()
    page.keyboard.press("Tab")
    page.locator("#token").fill("another-token-0123456")
    page.keyboard.press("Enter")
    page.locator("#problem", has_text="The service refuses this token.").wait_for()
    page.locator("#token").fill(_TOKEN)
    page.keyboard.press("Enter")
    page.locator("#leaderboard tbody tr").first.wait_for()
    page.locator("#access").wait_for(state="hidden")
    page.locator("#problem").wait_for(state="hidden")
    assert focused(page) == "choose files"
    drop(page, ("a.png", png(3)))
    assert page.locator(".bar").count() == 2
    page.reload()
    page.locator("#leaderboard tbody tr").first.wait_for()
    assert not page.locator("#access").is_visible()


def test_a_look_that_began_without_the_token_does_not_ask_for_it_again(serve: Serve, opened: Any) -> None:
    page = opened(serve(token=_TOKEN), failing=["/v1/heads"])
    page.locator("#access").wait_for()
    page.locator("#token").fill(_TOKEN)
    held: list[Any] = []
    page.route("**/v1/heads", lambda route: held.append(route), times=1)
    with page.expect_request("**/v1/heads"):
        pass
    page.evaluate("() => { for (let timer = 0; timer < 1000; timer += 1) clearInterval(timer); }")  # the last look
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)
    held[0].continue_()
    page.locator("#leaderboard tbody tr").first.wait_for()
    page.locator("#access").wait_for(state="hidden")


@takes_long
def test_a_token_is_no_longer_asked_for_when_the_service_answers_again(serve: Serve, opened: Any) -> None:
    page = opened(serve(), failing=["/v1/heads"])
    page.route("**/v1/heads", lambda route: route.fulfill(status=401, json={"detail": "this needs the token"}))
    page.locator("#access").wait_for()
    page.unroute("**/v1/heads")
    page.locator("#access").wait_for(state="hidden")
    page.locator("#problem").wait_for(state="hidden")


def test_a_token_that_cannot_be_sent_is_told_and_not_kept(serve: Serve, opened: Any) -> None:
    page = opened(serve(token=_TOKEN), failing=["/v1/heads"])
    page.locator("#token").fill(_TOKEN + "\u200b")
    page.keyboard.press("Enter")
    page.locator("#problem", has_text="This token has a character that cannot be sent.").wait_for()
    assert page.locator("#access").is_visible()
    assert page.evaluate("() => sessionStorage.getItem('token')") is None
    page.locator("#token").fill(f" {_TOKEN}\t")
    page.keyboard.press("Enter")
    page.locator("#leaderboard tbody tr").first.wait_for()
    page.locator("#problem").wait_for(state="hidden")


def test_a_service_that_is_gone_is_told_in_a_sentence(serve: Serve, opened: Any) -> None:
    page = opened(serve(), failing=["/v1/"])
    page.locator("#leaderboard tbody tr").first.wait_for()
    page.route("**/v1/**", lambda route: route.abort())
    drop(page, ("a.png", png(1)))
    assert page.locator(".answer .rejected").inner_text() == "The service cannot be reached. Is it still running?"


def test_the_page_follows_what_is_served_and_takes_back_what_no_longer_holds(serve: Serve, opened: Any) -> None:
    running = serve()
    page = opened(running, failing=["/v1/heads"])
    page.locator("#leaderboard tbody tr").first.wait_for()
    page.locator("#leaderboard button.link").first.focus()
    another = with_another(running, "another")
    page.locator("#leaderboard tbody tr").nth(1).wait_for()
    assert focused(page) == running.bundle.name
    (another / "card.json").write_bytes(b"{")
    page.locator("#unusable li", has_text="another").wait_for()
    page.route("**/v1/heads", lambda route: route.abort())
    page.locator("#problem", has_text="cannot be reached").wait_for()
    page.unroute("**/v1/heads")
    page.locator("#problem").wait_for(state="hidden")


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_every_screen(serve: Serve, opened: Any, width: int, scheme: str, tmp_path: Path) -> None:
    """Its picture, with every view open, is kept in $FEATSTORE_SCREENSHOTS, to be looked at."""
    running = serve()
    [bundle] = running.served.bundles.values()
    bundle.judged.said[:2] = 1 - bundle.judged.truth[:2]
    broken_bundle(running)
    page = opened(running, viewport={"width": width, "height": 800}, color_scheme=scheme)
    drop(page, ("a.png", png(3)), ("b.png", png(4)[:70]))
    page.locator("#leaderboard button.link").click()
    page.locator("#details .gallery img").first.wait_for()
    page.locator("#unusable li").wait_for()
    drawn_map(page)
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    background = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(15, 18, 22)") == (scheme == "dark")
    picture = Path(os.environ.get("FEATSTORE_SCREENSHOTS", tmp_path)) / f"page-{scheme}-{width}.png"
    page.evaluate("() => window.scrollTo(0, 0)")
    assert page.screenshot(path=picture, full_page=True)


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
