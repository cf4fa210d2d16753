from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from featstore.spec import PixelSpec
from heads.bundles.bundle import HEAD_FILE, read_bundle
from heads.bundles.card import Card, Origin
from heads.bundles.inventory import find_bundles
from heads.export.files import Exported
from heads.export.model import ImageInput
from heads.kinds.linear import LinearHead
from heads.report.heads import card as card_of
from heads.report.heads import exported, inventory
from tests.heads.bundles.make import write_bundle


def shown(parts: Iterable[Any]) -> str:
    out = io.StringIO()
    console = Console(file=out, width=200, highlight=False)
    for part in parts:
        console.print(part)
    return out.getvalue()


@pytest.fixture
def path(bundles: Path, card: Card, head: LinearHead) -> Path:
    return write_bundle(bundles, replace(card, test=card.held_out), head)


def test_a_list_has_a_line_a_bundle_and_says_what_is_wrong(
    path: Path, card: Card, head: LinearHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent.parent)
    other = write_bundle(path.parent, card, head)
    (other / HEAD_FILE).write_bytes(b"")
    text = shown([inventory(find_bundles())])
    [line] = [line for line in text.splitlines() if path.name in line]
    assert "vgg16 avg" in line
    assert "logreg C=0.1" in line
    assert line.count("1.000 [") == 2
    [line] = [line for line in text.splitlines() if other.name in line]
    assert "cannot be used: a file of this bundle was changed" in line


def test_a_base_of_ones_own_is_named_by_its_file_and_has_no_other_weights(
    path: Path, bundles: Path, card: Card, head: LinearHead
) -> None:
    origin = Origin("/far/away/live/bases/vgg16-finetune-0123456789ab.keras")
    own = write_bundle(bundles, replace(card, origins=(origin,), augmentation="flip", views=0), head)
    text = shown([inventory(find_bundles([own]))])
    assert "vgg16-finetune-0123456789ab avg" in text
    assert "far" not in text.splitlines()[-2].replace(str(own), "")
    text = shown(card_of(read_bundle(own)))
    assert "(imagenet)" not in text
    assert origin.backbone in text
    assert "a new one of each image every epoch: flip" in text


def test_in_80_columns_a_bundle_keeps_its_name_and_its_score(
    path: Path, card: Card, head: LinearHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent.parent)
    other = write_bundle(path.parent, card, head)
    (other / HEAD_FILE).write_bytes(b"")
    out = io.StringIO()
    Console(file=out, width=80, highlight=False).print(inventory(find_bundles(), 80))
    lines = out.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert any(path.name in line and "1.000 [" in line for line in lines)
    assert "a file of this bundle was changed" in " ".join(out.getvalue().split())


def test_an_empty_list_says_how_to_make_the_first() -> None:
    assert "featstore train" in shown([inventory([])])


def test_a_card_shows_what_a_person_must_know(path: Path) -> None:
    (path / "a\x1b[31m.txt").touch()
    text = shown(card_of(read_bundle(path)))
    for words in ("logreg C=0.1", "among 2 settings on validation", "60 images of train", "validation, 30 images"):
        assert words in text
    assert "naïve <b>" in text
    assert "\\xff" in text
    assert "a\\x1b[31m.txt: not a part of the bundle, and never opened" in text
    assert "\x1b" not in text


def test_many_classes_are_counted_rather_than_listed(path: Path) -> None:
    bundle = read_bundle(path)
    many = tuple(f"class {i}" for i in range(100))
    text = shown(card_of(replace(bundle, card=replace(bundle.card, classes=many))))
    assert "class 11 and 88 more" in text


def done(**changes: Any) -> Exported:
    inputs = (ImageInput("images", PixelSpec((24, 20)), (0,)),)
    plain = Exported(
        Path("m.onnx"), "ONNX", "onnxruntime", 2048, ("[a]", "b"), inputs, 8, True, 1e-6, 1e-3, "float32", None
    )
    return replace(plain, **changes)


def test_an_export_says_how_well_it_agrees() -> None:
    text = shown(exported(done()))
    assert "m.onnx (ONNX, 2.0 KiB)" in text
    assert "images uint8 (N, 24, 20, 3) RGB" in text
    assert "8 drawn pictures, probabilities within 1.0e-06" in text
    assert "[a], b" in text
    assert "stored in" not in text


def test_an_export_says_what_another_precision_changes() -> None:
    assert "differ by up to 2.0e-03" in shown(exported(done(precision="bfloat16", difference_there=0.002)))
    assert "not compared" in shown(exported(done(precision="float16", drawn=False)))
