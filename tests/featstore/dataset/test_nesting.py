from __future__ import annotations

import pytest

from featstore.dataset.listing import Listing
from featstore.dataset.nesting import dataset_root, deeper_splits, innermost_folder


def root_of(*files: str, folders: tuple[str, ...] = (), is_wrapped: bool = False) -> str:
    return dataset_root(Listing(files, folders), lambda path: "picture" in path, is_wrapped)


@pytest.mark.parametrize(
    ("files", "folders", "innermost"),
    [
        (["a/b/1.jpg", "a/2.jpg"], ["a", "a/b"], "a/"),
        (["a/b/1.jpg"], ["a", "a/b"], "a/b/"),
        (["a/1.jpg", "b/1.jpg"], [], ""),
        (["cat/1.jpg", "cats/1.jpg"], [], ""),
        (["a/1.jpg", "1.jpg"], [], ""),
        (["a/1.jpg"], ["a", "empty"], ""),
        ([], [], ""),
    ],
)
def test_the_innermost_folder_around_everything_is_found(files: list[str], folders: list[str], innermost: str) -> None:
    assert innermost_folder(Listing(files, folders)) == innermost


@pytest.mark.parametrize(
    ("files", "root"),
    [
        (("x/y/train/cats/1.jpg", "x/y/test/cats/1.jpg"), "x/y/"),
        (("x/train/cats/1.jpg",), "x/"),
        (("train/cats/1.jpg",), ""),
        (("x/y/cats/1.jpg", "x/y/dogs/1.jpg"), "x/y/"),
        (("x/y/cats/1.jpg", "x/y/dogs/1.jpg", "x/y/notes.txt"), "x/y/"),
        (("x/y/train/a/1.jpg", "x/y/val/a/1.jpg", "x/y/cover.jpg"), "x/y/"),
        (("cats/1.jpg", "cats/2.jpg"), ""),
        (("cats/1.jpg", "cats/more/2.jpg"), ""),
        (("cats/picture", "cats/more/picture"), ""),
        (("x/y/cats/1.jpg",), "x/y/"),
        (("1.jpg", "x/2.jpg"), ""),
    ],
)
def test_single_folders_are_looked_through_down_to_splits_classes_or_images(files: tuple[str, ...], root: str) -> None:
    assert root_of(*files) == root


def test_an_empty_folder_beside_it_ends_the_chain() -> None:
    assert root_of("x/a/1.jpg", "x/b/1.jpg", folders=("x", "x/a", "x/b", "empty")) == ""


def test_the_outermost_folder_of_an_archive_is_no_class_but_a_deeper_one_is() -> None:
    assert root_of("x/1.jpg", is_wrapped=True) == "x/"
    assert root_of("x/cats/1.jpg", is_wrapped=True) == "x/"


def test_deeper_splits_are_found_with_their_names() -> None:
    files = ["readme.jpg", "b/Train/x/1.jpg", "b/VAL/x/1.jpg", "c/train/1.jpg", "c/cats/1.jpg"]
    assert deeper_splits(Listing(files, []), "") == ("train and validation", ["b"])
    assert deeper_splits(Listing([*files, "b/test/1.jpg"], []), "") == ("train and test", ["b"])
    assert deeper_splits(Listing(["a/1.jpg", "b/1.jpg"], []), "") == ("", [])
