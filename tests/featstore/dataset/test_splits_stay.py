"""Adding images moves none: in every layout, as people open it."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featstore.dataset import open_dataset
from featstore.formats import MAX_FILE_BYTES
from tests.featstore.dataset.samples import PICTURE
from tests.reliability.campaign import amount

FIRST = 5
"""How many images of each kind there are before any is added."""


@dataclass(frozen=True)
class Layout:
    """Kinds of images by their names; of ``strays`` there is none at first, and fewer than :data:`FIRST` are added."""

    kinds: tuple[str, ...]
    strays: tuple[str, ...] = ()
    is_listed: bool = False


LAYOUTS = {
    "class folders": Layout(("cats/{}.jpg", "dogs/{}.png", "dogs/deep/{}.jpg"), ("{}.jpg", "cats/{}.txt")),
    "split folders": Layout(
        ("train/cats/{}.jpg", "train/dogs/{}.jpg", "val/cats/{}.jpg", "test/dogs/{}.jpg"), ("test/{}.jpg",)
    ),
    "split folders alone": Layout(("train/cats/{}.jpg", "train/dogs/{}.jpg"), ("train/{}.jpg", "{}.jpg")),
    "flat names": Layout(("cat.{}.jpg", "dog-{}.png", "{}.jpg"), ("fish ({}).jpg",)),
    "flat names in split folders": Layout(
        ("train/cat.{}.jpg", "train/dog.{}.jpg", "validation/cat.{}.jpg", "test/dog.{}.jpg"), ("test/{}.jpg",)
    ),
    "a test folder of names": Layout(("train/cat.{}.jpg", "train/dog.{}.jpg", "test/dog.{}.jpg"), ("test/{}.jpg",)),
    "Kaggle's": Layout(("train/cat.{}.jpg", "train/dog.{}.jpg", "test/{}.jpg"), ("test/cat.{}.jpg", "test/dog.{}.jpg")),
    "Kaggle's with validation": Layout(
        ("train/cat.{}.jpg", "train/dog.{}.jpg", "val/{}.jpg", "test1/{}.jpg"), ("val/cat.{}.jpg", "test1/cat.{}.jpg")
    ),
    "a manifest": Layout(("cat.{}.jpg", "photos/dog.{}.jpg"), ("{}.jpg",), is_listed=True),
}


def splits_of(folder: Path, layout: Layout) -> dict[str, str]:
    """The split of every image, by its path."""
    data = open_dataset(folder / "list.csv" if layout.is_listed else folder)
    digests = [hashlib.sha256(data.source.read(path, MAX_FILE_BYTES)).digest() for path in data.paths]
    return {
        path: data.split_at(index, digest) for index, (path, digest) in enumerate(zip(data.paths, digests, strict=True))
    }


def add(folder: Path, layout: Layout, kind: str, number: int) -> None:
    path = folder / kind.format(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PICTURE + f"{kind} {number}".encode())
    if layout.is_listed:
        label = "" if kind in layout.strays else path.name[:3]
        with (folder / "list.csv").open("a") as file:
            file.write(f"{kind.format(number)},{label}\n")


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@given(data=st.data())
@settings(max_examples=amount(15, 300), deadline=None, derandomize=True)
def test_more_images_move_none(layout: Layout, data: st.DataObject) -> None:
    added = data.draw(st.lists(st.sampled_from(layout.kinds), max_size=8), label="added")
    strays = data.draw(st.lists(st.sampled_from(layout.strays), max_size=FIRST - 1), label="strays")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if layout.is_listed:
            (folder / "list.csv").write_text("path,label\n")
        for number in range(FIRST):
            for kind in layout.kinds:
                add(folder, layout, kind, number)
        before = splits_of(folder, layout)
        assert len(before) == FIRST * len(layout.kinds)
        for number, kind in enumerate([*strays, *added], FIRST):
            add(folder, layout, kind, number)
        after = splits_of(folder, layout)
    assert {path: after[path] for path in before} == before


def test_the_layouts_have_all_splits() -> None:
    """Else nothing could move."""
    with tempfile.TemporaryDirectory() as name:
        for number in range(40):
            for kind in LAYOUTS["Kaggle's"].kinds:
                add(Path(name), LAYOUTS["Kaggle's"], kind, number)
        assert len(set(splits_of(Path(name), LAYOUTS["Kaggle's"]).values())) == 4
