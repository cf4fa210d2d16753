"""What folders and names say: from relative paths alone to labels and splits. Reads no file, knows no disk."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from featstore.dataset.dataset import BY_DIGEST, UNLABELLED
from featstore.dataset.listing import Listing, some
from featstore.formats import has_image_ending
from featstore.records import SPLITS
from featstore.wording import counted

LABEL_PATTERN = r"^(?P<label>n[0-9]{8}(?=_)|[^\W\d_](?:[^\W\d]|[ -])*?)[ ._-]*\(?[0-9]+\)?\.\w+$"
"""A word, then a number: ``cat.0.jpg``, ``cat12.png``, ``great_dane_3.jpg``, ``cat (2).jpg``, ``n01440764_26.JPEG``."""

TRAIN, VALIDATION, TEST = (SPLITS.index(name) for name in ("train", "validation", "test"))
SPLIT_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "validation": VALIDATION,
    "valid": VALIDATION,
    "val": VALIDATION,
    "test": TEST,
    "testing": TEST,
    "test1": TEST,  # Kaggle's Dogs vs. Cats
}
"""Names of split folders, in lower case; looked up whatever the case on disk."""


@dataclass(slots=True)
class Arrangement:
    """Files with what is known of each, in columns: label None if unlabelled, split as in Dataset."""

    layout: str
    paths: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    splits: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, path: str, label: str | None, split: int) -> None:
        """Append an image; without label it is in no split, and in the split "unlabelled" it has no label."""
        unlabelled = label is None or split == UNLABELLED
        self.paths.append(path)
        self.labels.append(None if unlabelled else label)
        self.splits.append(UNLABELLED if unlabelled else split)


def arrange(listing: Listing, pattern: str | None, is_picture: Callable[[str], bool], root: str = "") -> Arrangement:
    """Find the layout below ``root`` ("" or ``"name/"``) and read labels and splits from it.

    ``pattern`` finds the label in a file's name, and if given goes before class folders; None stands for class folders
    and, for loose files, :data:`LABEL_PATTERN`. ``is_picture`` looks into a loose file whose ending says nothing.
    """
    folders = split_folders(listing, root)
    if not folders:
        part = _Part(root, listing.files, pattern, is_picture)
        arrangement = Arrangement("class folders" if part.has_class_folders else "flat files", notes=part.notes())
        for path, label in part.labelled():
            arrangement.add(path, label, BY_DIGEST)
        _say_empty_folders(arrangement, listing, [root])
        return arrangement
    return _arrange_splits(listing, pattern, is_picture, root, folders)


def split_folders(listing: Listing, root: str) -> dict[str, int]:
    """The split folders directly below ``root``: prefix → split; empty if the folders there are something else.

    A dataset of vehicles may have a class called train: so with other folders beside it, ``train`` is a split only if
    another split is there as well or if it holds folders itself.
    """
    below = [path[len(root) :] for path in (*listing.files, *(f"{folder}/" for folder in listing.folders))]
    tops = {path.partition("/")[0] for path in below if "/" in path}
    named = {top: SPLIT_NAMES[top.lower()] for top in tops if top.lower() in SPLIT_NAMES}
    splits = set(named.values())
    holds_folders = any(
        "/" in folder[len(root) :] and named.get(folder[len(root) :].partition("/")[0]) == TRAIN
        for folder in {path.rpartition("/")[0] for path in listing.files}
    )
    if len(named) == len(tops) or (TRAIN in splits and (len(splits) > 1 or holds_folders)):
        return {f"{root}{top}/": split for top, split in sorted(named.items(), key=lambda item: (item[1], item[0]))}
    return {}


def _arrange_splits(
    listing: Listing, pattern: str | None, is_picture: Callable[[str], bool], root: str, folders: dict[str, int]
) -> Arrangement:
    arrangement = Arrangement("split folders")
    known: set[str | None] = set()  # the classes of train; it comes first
    tests: list[Counter[int]] = []
    for prefix, split in folders.items():
        part = _Part(prefix, listing.files, pattern, is_picture)
        arrangement.notes += part.notes()
        before = len(arrangement.splits)
        for path, label in part.labelled():
            # "IMG" in test/IMG_1.jpg is no class, "cat" in test/cat.1.jpg is one: train/ tells them apart.
            known_here = split == TRAIN or not known or part.has_class_folders or label in known
            arrangement.add(path, label if known_here else None, split)
        if split == TEST:
            tests.append(Counter(arrangement.splits[before:]))
        if split == TRAIN:
            known.update(arrangement.labels)
    others = {path[len(root) :].partition("/")[0] for path in listing.files if "/" in path[len(root) :]}
    others -= {prefix[len(root) : -1] for prefix in folders}
    if others:
        arrangement.notes.append(f"passed over the folders beside the splits: {some(sorted(others))}")
    _split_train_if_alone(arrangement, folders.values(), tests)
    _say_empty_folders(arrangement, listing, folders)
    return arrangement


def _split_train_if_alone(arrangement: Arrangement, folders: Iterable[int], tests: Iterable[Counter[int]]) -> None:
    """Kaggle's layout: test has no labels, so train must serve to validate and to test as well.

    What decides is which split folders there are, and of each test folder whether most of its images have no label: a
    few more of either kind move no image of train (docs/decisions/0003). ``tests`` counts the splits in each of these.
    """
    inhabited = [counts for counts in tests if counts]
    if not inhabited or any(counts[TEST] >= counts[UNLABELLED] for counts in inhabited):
        return
    together = sum(inhabited, Counter())
    labelled = f"labels for {together[TEST]} of {counted(together.total(), 'image')}"
    what = f"test has {labelled if together[TEST] else 'no labels'}"
    if VALIDATION in folders:
        arrangement.notes.append(f"{what}, and there is a validation folder: train is not split")
    elif TRAIN in folders:
        arrangement.splits = [BY_DIGEST if split == TRAIN else split for split in arrangement.splits]
        arrangement.notes.append(f"{what}: the images of train are split into train, validation and test")


class _Part:
    """The files of one split, or of a dataset without split folders."""

    def __init__(
        self, prefix: str, files: Sequence[str], pattern: str | None, is_picture: Callable[[str], bool]
    ) -> None:
        self._prefix = prefix
        self._files = [path for path in files if path.startswith(prefix)]
        self._loose = [path for path in self._files if "/" not in path[len(prefix) :]]
        self._pattern = re.compile(pattern or LABEL_PATTERN)
        self._is_picture = is_picture
        self.has_class_folders = pattern is None and len(self._loose) < len(self._files)

    def labelled(self) -> Iterable[tuple[str, str | None]]:
        """Path and label (None if there is none) of every image."""
        start = len(self._prefix)
        if self.has_class_folders:
            for path in self._files:
                label, slash, _ = path[start:].partition("/")
                if slash:
                    yield path, label
            return
        for path in self._files:
            if has_image_ending(path) or self._is_picture(path):
                yield path, self._label(path.rpartition("/")[2])

    def _label(self, name: str) -> str | None:
        found = self._pattern.search(name)
        if found is None:
            return None
        return (found["label"] if "label" in self._pattern.groupindex else found[1]) or None

    def notes(self) -> list[str]:
        """Images that lie beside the class folders."""
        stray = sum(map(has_image_ending, self._loose)) if self.has_class_folders else 0
        where = f" of {self._prefix.rstrip('/')}" if self._prefix else ""
        return [f"passed over {counted(stray, 'image')} beside the class folders{where}"] if stray else []


def _say_empty_folders(arrangement: Arrangement, listing: Listing, prefixes: Iterable[str]) -> None:
    """Note class folders that hold no image in any split: they are no class."""
    if arrangement.layout == "flat files":
        return
    used = set(arrangement.labels)
    starts = tuple(prefixes)
    names = {folder[len(start) :] for folder in listing.folders for start in starts if folder.startswith(start)}
    empty = sorted(name for name in names if name and "/" not in name and name not in used)
    if empty:
        arrangement.notes.append(f"class folders without any image, left out: {some(empty)}")
