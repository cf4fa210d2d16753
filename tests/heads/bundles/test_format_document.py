"""docs/BUNDLES.md, held to what the code does."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from heads.bundles.bundle import _HEADS
from heads.bundles.card import BUNDLE_FORMAT, BUNDLE_VERSION, Card
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


def test_the_name_ends_in_the_cards_digest_and_the_files_are_the_four(
    card: Card, head: LinearHead, bundles: Path
) -> None:
    folder = write_bundle(bundles, card, head)
    assert {file.name for file in folder.iterdir()} == set(re.findall(r"/([\w-]+\.\w+) ", DOCUMENT.split("```")[1]))
    assert folder.name.endswith(hashlib.sha256((folder / "card.json").read_bytes()).hexdigest()[:12])
