"""docs/BUNDLES.md, held to what the code does."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from featstore.spec import MOST_PIXELS_A_SIDE
from heads.bundles import arrays
from heads.bundles.arrays import FITTED, JUDGED, MOST_ARRAYS, Layout, head_layout
from heads.bundles.bundle import _HEADS, MOST_BYTES
from heads.bundles.card import BUNDLE_FORMAT, BUNDLE_VERSION, MOST_PARTS, Card
from heads.kinds.linear import LinearHead
from tests.heads.bundles.make import write_bundle

DOCUMENT = (Path(__file__).parents[3] / "docs" / "BUNDLES.md").read_text()


def rows_of(heading: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    section = DOCUMENT.split(f"\n## {heading}\n")[1].split("\n## ")[0].replace(r"\|", "¦")
    return [[c.strip() for c in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| `")]


def test_it_tells_of_every_field_of_a_card_and_of_no_other(card: Card, head: LinearHead, bundles: Path) -> None:
    folder = write_bundle(bundles, card, head)
    content = json.loads((folder / "card.json").read_text())
    told = {name.removesuffix("[]") for cells in rows_of("`card.json`") for name in re.findall(r"`([^`]+)`", cells[0])}
    assert told == set(content)
    inside = {name: set(re.findall(r"`([\w]+)`", cells[1])) for cells in rows_of("`card.json`") for name in [cells[0]]}
    assert set(content["head"]) == inside["`head`"]
    assert set(content["features"][0]) == inside["`features[]`"]
    assert set(content["trained_on"]) == inside["`trained_on`"]
    assert (content["format"], content["version"]) == (BUNDLE_FORMAT, BUNDLE_VERSION)
    assert f"version {BUNDLE_VERSION}" in DOCUMENT.splitlines()[0]


def test_it_tells_of_every_format_of_a_head() -> None:
    assert [cells[0].strip("`") for cells in rows_of("`head.npz`")] == ["linear", "dense", "kernel", "neighbours"]
    assert set(_HEADS) == {"linear", "dense", "kernel", "neighbours"}


def told_of(cell: str, layout: Layout) -> dict[str, tuple[str, ...]]:
    """Of each array of ``layout`` the type and the sides that come next in the cell after its name."""
    behind = {name: cell[cell.index(f"`{name}`") :] for name in layout}
    dtypes = {name: re.findall(r"u?int\d+|float\d+", rest)[0] for name, rest in behind.items()}
    sides = {name: re.findall(r"\(([^)]+)\)", rest)[0].strip(",").split(", ") for name, rest in behind.items()}
    return {name: (dtypes[name], *sides[name]) for name in layout}


def test_its_arrays_are_those_that_are_looked_for() -> None:
    cells = {"rows.npz": "", "held-out.npz": ""}
    for file, array, *_ in rows_of("`rows.npz` and `held-out.npz`"):
        cells[file.strip("`")] += array
    layouts = [(cells["rows.npz"], FITTED), (cells["held-out.npz"], JUDGED)]
    for name, array, *_ in rows_of("`head.npz`"):
        if name != "`dense`":
            layouts.append((array, head_layout(name.strip("`"), 0)))
    for cell, layout in layouts:
        assert told_of(cell, layout) == {name: tuple(map(str, given)) for name, given in layout.items()}
        assert cell.count("`") == 2 * len(layout)


def test_it_tells_how_large_each_file_may_be() -> None:
    told = {name: cells[1] for cells in rows_of("How large") for name in re.findall(r"`([^`]+)`", cells[0])}
    units = {"MiB": 2**20, "GiB": 2**30}
    sizes = {name: re.match(r"(\d+) (.iB)", text) for name, text in told.items()}
    assert {name: int(size[1]) * units[size[2]] for name, size in sizes.items() if size} == MOST_BYTES
    assert f"{MOST_PARTS:,} brackets and quotes" in told["card.json"]
    assert f"({MOST_ARRAYS} arrays in {arrays._MOST_DIRECTORY_BYTES // 1024} KiB)" in DOCUMENT
    assert f"{MOST_PIXELS_A_SIDE} pixels a side" in DOCUMENT


def test_the_name_ends_in_the_cards_digest_and_the_files_are_the_four(
    card: Card, head: LinearHead, bundles: Path
) -> None:
    folder = write_bundle(bundles, card, head)
    assert {file.name for file in folder.iterdir()} == set(re.findall(r"/([\w-]+\.\w+) ", DOCUMENT.split("```")[1]))
    assert folder.name.endswith(hashlib.sha256((folder / "card.json").read_bytes()).hexdigest()[:12])
