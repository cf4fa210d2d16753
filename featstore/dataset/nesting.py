"""Where a dataset begins when folders are wrapped around it, and what a person may have meant instead."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import islice, takewhile

from featstore.dataset.layouts import SPLIT_NAMES, TEST, TRAIN, split_folders
from featstore.dataset.listing import Listing
from featstore.formats import has_image_ending

_SNIFFED = 200  # files of unknown ending that are looked into


def innermost_folder(listing: Listing) -> str:
    """``"a/b/"`` if everything lies below that folder, ``""`` if it lies side by side at the top."""
    inhabited = _inhabited(listing.files)
    leaves = [*listing.files, *(f"{folder}/" for folder in listing.folders if folder not in inhabited)]
    if not leaves:
        return ""
    first, last = min(leaves).split("/")[:-1], max(leaves).split("/")[:-1]  # all others lie between these two
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return "".join(f"{name}/" for name, _ in shared)


def dataset_root(listing: Listing, is_picture: Callable[[str], bool], is_wrapped: bool = False) -> str:
    """The folder (``"a/b/"`` or ``""``) that holds the split folders, the class folders or the loose files.

    Single folders are looked through. A single one that holds images itself is a class, unless it is the outermost of
    something ``is_wrapped``: the program that made a zip put that one there.
    """
    innermost = innermost_folder(listing)
    root = ""
    for name in innermost.split("/")[:-1]:
        inside = f"{root}{name}/"
        is_wrapper = is_wrapped and not root
        if name.lower() in SPLIT_NAMES or (
            inside == innermost and not is_wrapper and _is_class(listing, inside, is_picture)
        ):
            break
        root = inside
    return root


def _is_class(listing: Listing, folder: str, is_picture: Callable[[str], bool]) -> bool:
    """True if the images lie in ``folder`` itself; all files lie below it."""
    if split_folders(listing, folder):
        return False
    loose = [path for path in listing.files if "/" not in path[len(folder) :]]
    has_images = any(map(has_image_ending, loose)) or any(map(is_picture, islice(loose, _SNIFFED)))
    return has_images or len(loose) == len(listing.files)


def deeper_splits(listing: Listing, root: str) -> tuple[str, list[str]]:
    """Folders below ``root`` that hold train and another split folder, and the names of these two: ("", []) if none.

    To be asked if ``root`` itself has no split folders.
    """
    found: dict[str, set[int]] = defaultdict(set)
    for folder in _inhabited(listing.files):
        above, _, name = folder.rpartition("/")
        if name.lower() in SPLIT_NAMES and folder.startswith(root):
            found[above].add(SPLIT_NAMES[name.lower()])
    places = sorted(above for above, splits in found.items() if TRAIN in splits and len(splits) > 1)
    has_test = any(TEST in found[above] for above in places)
    return ("train and test" if has_test else "train and validation") if places else "", places


def _inhabited(files: Iterable[str]) -> set[str]:
    """All folders with a file somewhere below."""
    inhabited: set[str] = set()
    for folder in {path.rpartition("/")[0] for path in files}:
        above = folder
        while above and above not in inhabited:
            inhabited.add(above)
            above = above.rpartition("/")[0]
    return inhabited
