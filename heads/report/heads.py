"""What is said of trained heads on a terminal: a list, a card, an export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table

from featstore.catalog import is_own_model
from featstore.show import grid, size
from featstore.wording import counted, visible
from heads.bundles.bundle import Bundle
from heads.bundles.card import Card, Origin
from heads.bundles.inventory import Found, strange_files
from heads.report.terminal import MEASURES, plain, setting, with_interval

if TYPE_CHECKING:
    from heads.export.files import Exported

_WIDE = 120
"""Columns of a terminal from which a list shows everything."""

_MOST_CLASSES = 12
"""Class names that a card shows."""


def inventory(found: Sequence[Found], width: int = _WIDE) -> RenderableType:
    """A line a bundle: what it is and how good, or what is wrong with it.

    Less than 120 columns of ``width`` leave to its name what it is.
    """
    if not found:
        return plain("no heads here yet: featstore train DATA --backbone vgg16")
    words, numbers = (["features", "head"], ["classes", "held out", "test", "bytes"])
    is_narrow = width < _WIDE
    if is_narrow:
        words, numbers = [], ["held out", "bytes"]
    table = grid("bundle", *words, *numbers, right=numbers)
    for one in found:
        cells = _cells(one)
        if is_narrow and one.problem:
            cells["bundle"] += f": {cells['head']}"
        table.add_row(*(plain(cells[name]) for name in ("bundle", *words, *numbers)))
    table.caption = "accuracy [95 % interval]; every byte of every bundle was checked"
    table.caption_justify = "left"
    return table


def _cells(one: Found) -> dict[str, str]:
    """By column."""
    path = str(one.path)
    if one.card is None:
        problem = f"cannot be used: {one.problem}"
        cells = dict.fromkeys(("features", "classes", "held out", "test"), "")
        return {**cells, "bundle": path, "head": problem, "bytes": size(one.bytes)}
    card = one.card
    return {
        "bundle": path,
        "features": f"{_short_names(card)} {card.specs[0].pooling}",
        "head": f"{card.kind} {setting(card.params)}",
        "classes": str(len(card.classes)),
        "held out": with_interval(card.held_out.accuracy),
        "test": with_interval(card.test.accuracy if card.test else None),
        "bytes": size(one.bytes),
    }


def card(bundle: Bundle) -> Iterator[RenderableType]:
    """All that a person should know of a head before using it."""
    known = bundle.card
    yield _facts({"bundle": str(bundle.path), **_about_head(known), **_about_training(bundle)})
    yield ""
    yield _scores(known)


def exported(done: Exported) -> Iterator[RenderableType]:
    """What was written, and how well it agrees."""
    pictures = counted(done.images, "drawn picture" if done.drawn else "image")
    yield _facts(
        {
            "file": f"{done.path} ({done.format}, {size(done.bytes)})",
            "input": "; ".join(
                f"{i.name} uint8 (N, {', '.join(map(str, i.pixels.image_size))}, 3) RGB" for i in done.inputs
            ),
            "output": f"probabilities float32 (N, {len(done.classes)}): {_some(done.classes)}",
            "checked": f"opened again by {done.library}: {pictures}, probabilities within {done.difference:.1e} of the "
            f"bundle's in float32 (at most {done.tolerance:g} is allowed)",
        }
    )
    if done.difference_there is not None:
        yield plain(
            f"its features are stored in {done.precision}: the bundle's own numbers differ by up to "
            f"{done.difference_there:.1e} on these"
        )
    elif done.precision != "float32":
        yield plain(f"its features are stored in {done.precision}, which this machine cannot compute: not compared")


def _about_head(known: Card) -> dict[str, str]:
    features = [
        f"{_asked_for(origin)} {spec.layer} {'x'.join(map(str, spec.image_size))} {spec.pooling} "
        f"{spec.precision}, {spec.resize} {spec.fit}, preprocessing {spec.preprocessing}, weights {spec.weights[:16]}: "
        f"{counted(width, 'feature')}"
        for spec, origin, width in zip(known.specs, known.origins, known.widths, strict=True)
    ]
    return {
        "head": f"{known.kind} {setting(known.params)}" + (", class weights balanced" if known.balanced else ""),
        "features": "\n".join(map(visible, features)),
        "classes": f"{len(known.classes)}: {_some(known.classes)}",
        "calibration": known.calibration.method,
    }


def _short_names(card: Card) -> str:
    """Of a base of one's own only the file's name: its folder is in the bundle's card."""
    names = (origin.backbone for origin in card.origins)
    return "+".join(Path(name).stem if is_own_model(name) else name for name in names)


def _asked_for(origin: Origin) -> str:
    """A model of one's own brings its weights along."""
    return origin.backbone if is_own_model(origin.backbone) else f"{origin.backbone} ({origin.weights})"


def _about_training(bundle: Bundle) -> dict[str, str]:
    known = bundle.card
    seen = f"{known.views} of each image, itself among them" if known.views else "a new one of each image every epoch"
    views = {"views": f"{seen}: {known.augmentation}"} if known.augmentation else {}
    facts = {
        "chosen": f"among {counted(len(known.trials), 'setting')} on {known.chosen_on}",
        "trained on": f"{counted(known.rows, 'image')} of {' and '.join(known.fitted_on)} (seed {known.seed}), "
        f"SHA-256 {known.rows_digest[:16]}",
        **views,
        "written by": ", ".join(f"{name} {version}" for name, version in known.versions.items()),
    }
    if strange := strange_files(bundle.path):
        facts["beside it"] = f"{_some(strange)}: not a part of the bundle, and never opened"
    return facts


def _scores(known: Card) -> Table:
    columns = [(known.chosen_on, known.held_out), *([("test", known.test)] if known.test else [])]
    heads = [f"{name}, {counted(metrics.n, 'image')}" for name, metrics in columns]
    table = grid("", *heads, right=heads)
    for words, name in MEASURES:
        table.add_row(words, *(with_interval(getattr(metrics, name)) for _, metrics in columns))
    return table


def _facts(facts: dict[str, str]) -> Table:
    table = grid("", "")
    table.show_header = False
    for name, words in facts.items():
        for number, line in enumerate(words.split("\n")):
            table.add_row(f"[bold]{'' if number else name}[/bold]", plain(line))
    return table


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _MOST_CLASSES
    return ", ".join(map(visible, names[:_MOST_CLASSES])) + (f" and {rest} more" if rest > 0 else "")
