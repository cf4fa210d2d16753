"""The way in: what was named becomes a dataset, or one message that says why not."""

from __future__ import annotations

import os
import posixpath
import stat
import time
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NoReturn

import numpy as np

from featstore.cloud import Bucket, is_url, local_path
from featstore.dataset.dataset import UNLABELLED, Dataset, DatasetOptions
from featstore.dataset.layouts import Arrangement, arrange
from featstore.dataset.listing import Listing, cannot_read, list_bucket, list_folder, list_zip, some
from featstore.dataset.manifest import (
    HEADER_BYTES,
    MAX_MANIFEST_BYTES,
    Fence,
    anywhere,
    goes_above,
    is_manifest,
    read_manifest,
)
from featstore.dataset.nesting import dataset_root, deeper_splits, innermost_folder
from featstore.dataset.sources import BucketSource, FolderSource, Source, ZipSource
from featstore.dataset.trainable import missing_classes
from featstore.errors import InputError, nearest
from featstore.formats import HEAD_BYTES, has_image_ending, picture_format
from featstore.records import Rejected
from featstore.wording import counted

_SNIFFED = 200  # files whose first bytes are looked at before a dataset is said to hold no image
_MANIFEST_ENDINGS = (".csv", ".tsv")
_DEFAULT = DatasetOptions()


def open_dataset(
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], options: DatasetOptions = _DEFAULT
) -> Dataset:
    """The dataset in ``data``: a folder, a CSV/TSV manifest, a zip of either, an image, or a list of image files.

    A folder or a manifest may lie on object storage, named by a URL (``s3://bucket/photos``). Only names are read, not
    images. Raises InputError if there is nothing that could be an image, and the typed errors of the disk; odd files
    are passed over, with a note where a person should know.
    """
    started = time.perf_counter()
    return replace(_opened(data, options), seconds=time.perf_counter() - started)


def _opened(data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], options: DatasetOptions) -> Dataset:
    if data == "":
        raise InputError(
            "no dataset was named",
            where="dataset",
            expected="a folder of images, a manifest (.csv, .tsv) or a zip",
            received="an empty name",
            todo="name one; the current folder is .",
        )
    if not isinstance(data, str | os.PathLike):
        return _from_files([os.fspath(file) for file in data], options)
    if is_url(place := local_path(os.fspath(data))):
        return _from_bucket(place, options)
    location = os.path.abspath(os.path.expanduser(place))
    try:
        mode = os.stat(location).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(location) from None
    except (OSError, ValueError) as error:
        raise cannot_read(OSError(*error.args), location) from error
    if stat.S_ISDIR(mode):
        return _from_folder(location, options)
    if stat.S_ISREG(mode) and location.lower().endswith(_MANIFEST_ENDINGS):
        return _from_manifest(location, options)
    if stat.S_ISREG(mode) and (location.lower().endswith(".zip") or zipfile.is_zipfile(location)):
        return _from_zip(location, options)
    if stat.S_ISREG(mode) and _looks_like_picture(FolderSource(""), location):
        return _from_files([location], options)
    raise InputError(
        "this is not a dataset",
        where=location,
        expected="a folder of images, a manifest (.csv, .tsv) or a zip",
        received="a file of another kind" if stat.S_ISREG(mode) else "neither a file nor a folder",
    )


def _from_folder(location: str, options: DatasetOptions) -> Dataset:
    source = FolderSource(location)
    listing = list_folder(location)
    root = dataset_root(listing, lambda path: _looks_like_picture(source, path))
    arrangement = _arranged(listing, source, options, root)
    return _dataset(Path(location).name, source, arrangement, options, listing)


def _from_bucket(url: str, options: DatasetOptions) -> Dataset:
    """Objects below ``url``, laid out as files in a folder; or those that a manifest there lists."""
    above, _, name = url.rstrip("/").rpartition("/")
    if name.lower().endswith(_MANIFEST_ENDINGS):
        bucket = Bucket.at(above)
        source = BucketSource(bucket, list_bucket(bucket)[1])
        arrangement = read_manifest(_read_text(source, name), url, goes_above)
        _check_listed(arrangement, source, options)
        return _dataset(_manifest_name(url), source, arrangement, options)
    if name.lower().endswith(".zip"):
        raise InputError(
            "a zip is read from a disk alone",
            where=url,
            expected="a folder of objects, or a manifest (.csv, .tsv)",
            todo="copy it here first, or unpack it there",
        )
    bucket = Bucket.at(url)
    listing, stamps = list_bucket(bucket)
    if not listing.files:
        raise InputError(
            "there are no objects at this place",
            where=url,
            expected="images in class folders (cats/, dogs/) or named like cat.1.jpg",
            todo="check the address: it is one of a folder, not of an image",
        )
    source = BucketSource(bucket, stamps)
    root = dataset_root(listing, lambda path: _looks_like_picture(source, path))
    return _dataset(name, source, _arranged(listing, source, options, root), options, listing)


def _from_zip(location: str, options: DatasetOptions) -> Dataset:
    listing, archive, entries = list_zip(location)
    source = ZipSource(location, archive, entries)
    root = innermost_folder(listing)
    manifest = next((path for path in listing.files if _is_manifest_at(root, path, source)), None)
    if manifest is None:
        root = dataset_root(listing, lambda path: _looks_like_picture(source, path), is_wrapped=True)
        arrangement = _arranged(listing, source, options, root)
    else:
        arrangement = read_manifest(_read_text(source, manifest), f"{location}: {manifest}", anywhere)  # in the zip
        arrangement.paths = [posixpath.normpath(root + path) for path in arrangement.paths]
        _check_listed(arrangement, source, options)
    arrangement.layout = f"zip of {arrangement.layout}"
    return _dataset(Path(location).stem, source, arrangement, options, listing)


def _arranged(listing: Listing, source: Source, options: DatasetOptions, root: str) -> Arrangement:
    """The arrangement below ``root``; raises InputError if it has no image, or no label by a pattern of one's own."""
    arrangement = arrange(listing, options.label_pattern, lambda path: _looks_like_picture(source, path), root)
    _check_images(arrangement, listing, source)
    if options.label_pattern is not None and not any(arrangement.labels):
        raise InputError(
            "the label pattern finds no label in any file name",
            where=source.location,
            expected="a regular expression whose group is the label in each file's name, without its folders",
            received=f"{options.label_pattern!r} and names such as {some([posixpath.basename(arrangement.paths[0])])}",
            todo="correct the pattern, or leave it out to take labels from folders and names like cat.1.jpg",
        )
    if arrangement.layout != "split folders":
        what, places = deeper_splits(listing, root)
        if places and not isinstance(source, ZipSource):
            name = os.path.basename(source.location)
            meant = some((f"{name}/{place}" for place in places), 3)
            arrangement.notes.append(f"{what} folders lie deeper: did you mean {meant}?")
        elif places:
            arrangement.notes.append(
                f"{what} folders lie deeper, in {some(places, 3)}: did you mean a zip of that alone?"
            )
    return arrangement


def _is_manifest_at(root: str, path: str, source: Source) -> bool:
    """True for a manifest at the top of a zip; Kaggle's sample submissions have no column ``path``."""
    top = path.startswith(root) and "/" not in path[len(root) :]
    return top and path.lower().endswith(_MANIFEST_ENDINGS) and is_manifest(_read_text(source, path, HEADER_BYTES))


def _from_manifest(location: str, options: DatasetOptions) -> Dataset:
    source = FolderSource(os.path.dirname(location))
    leaves = anywhere if options.outside else Fence(source.location).is_left_by
    arrangement = read_manifest(_read_text(source, os.path.basename(location)), location, leaves)
    _check_listed(arrangement, source, options)
    return _dataset(_manifest_name(location), source, arrangement, options)


def _manifest_name(location: str) -> str:
    """The stem of ``list.csv``; the whole name where the folder or another manifest beside it could have that stem."""
    stem, ending = os.path.splitext(os.path.basename(location))
    folder = os.path.basename(os.path.dirname(location))
    is_plain = ending == ".csv" and stem != folder and not stem.lower().endswith(_MANIFEST_ENDINGS)
    return stem if is_plain else stem + ending


def _from_files(files: Sequence[str], options: DatasetOptions) -> Dataset:
    """Unlabelled images named one by one: relative ones below the current folder."""
    source = FolderSource(os.getcwd())
    wrong = [file for file in files if not os.path.isfile(file)]
    if wrong or not files:
        raise InputError(
            "these image files cannot be found" if wrong else "no image file was named",
            where=source.location,
            expected="paths of image files",
            received=some(wrong) if wrong else "an empty list",
        )
    arrangement = Arrangement("list of files")
    for file in files:
        arrangement.add(file, None, UNLABELLED)
    return _dataset(counted(len(files), "file"), source, arrangement, options)


def _dataset(
    name: str, source: Source, arrangement: Arrangement, options: DatasetOptions, listing: Listing | None = None
) -> Dataset:
    classes = tuple(sorted({label for label in arrangement.labels if label is not None}))
    index: dict[str | None, int] = {None: -1, **{name: i for i, name in enumerate(classes)}}
    labels = np.array([index[label] for label in arrangement.labels], dtype=np.int64)
    splits = np.array(arrangement.splits, dtype=np.int8)
    return Dataset(
        name=name,
        source=source,
        paths=tuple(arrangement.paths),
        ids=_ids(arrangement),
        labels=labels,
        classes=classes,
        splits=splits,
        layout=arrangement.layout,
        seed=options.seed,
        fractions=options.fractions,
        notes=(*(listing.notes if listing else ()), *arrangement.notes, *missing_classes(classes, labels, splits)),
        unseen=listing.unseen if listing else 0,
    )


def _ids(arrangement: Arrangement) -> tuple[str, ...]:
    """The paths, or for numbered files without label the number ("test/17.jpg" → "17"), if no id is there twice."""
    ids = list(arrangement.paths)
    for i, (path, label) in enumerate(zip(arrangement.paths, arrangement.labels, strict=True)):
        stem = path.rpartition("/")[2].partition(".")[0]
        if label is None and stem.isdecimal():
            ids[i] = stem
    return tuple(ids) if len(set(ids)) == len(ids) else tuple(arrangement.paths)


def _looks_like_picture(source: Source, path: str) -> bool:
    try:
        return picture_format(source.first(path, HEAD_BYTES)) is not None
    except Rejected:
        return False


def _check_images(arrangement: Arrangement, listing: Listing, source: Source) -> None:
    """Raise InputError if no file can be an image: by ending, else by the first bytes of the first files."""
    if not listing.files:
        _refuse_empty(source.location, listing.notes)
    if any(map(has_image_ending, arrangement.paths)):
        return
    if any(_looks_like_picture(source, path) for path in islice(arrangement.paths, _SNIFFED)):
        return
    raise InputError(
        f"no images in {source.location}",
        where=source.location,
        expected="images (JPEG, PNG, WebP, BMP, GIF), in class folders or named like cat.1.jpg",
        received=f"{counted(len(listing.files), 'file')} such as {some(listing.files, 3)}",
    )


def _check_listed(arrangement: Arrangement, source: Source, options: DatasetOptions) -> None:
    """Note a manifest's files that are not there; raise InputError if none is: the paths are meant from elsewhere.

    A few missing ones do not stop a run: each is reported when it is read. Each file is asked for once.
    """
    missing = [path for path in arrangement.paths if not _is_there(source, path)]
    if len(missing) == len(arrangement.paths):
        raise InputError(
            "the manifest lists files that are not there",
            where=source.location,
            expected="paths relative to the folder of the manifest",
            received=some(missing, 3),
            todo="correct the paths, or move the manifest to the folder they start from",
        )
    if missing:
        listed = counted(len(missing), "listed file is missing", "listed files are missing")
        arrangement.notes.append(f"{listed}, such as {some(missing[:1])}")
    if options.label_pattern is not None:
        arrangement.notes.append("the label pattern is not used: the manifest says the labels")


def _is_there(source: Source, path: str) -> bool:
    try:
        source.stamp(path)
    except Rejected:
        return False
    return True


def _read_text(source: Source, path: str, first: int | None = None) -> bytes:
    """All of a manifest, or its ``first`` bytes; raises InputError."""
    try:
        return source.read(path, MAX_MANIFEST_BYTES) if first is None else source.first(path, first)
    except Rejected as error:
        raise InputError("this manifest cannot be read", where=path, received=error.detail) from error


def _refuse_empty(location: str, notes: Sequence[str]) -> NoReturn:
    raise InputError(
        "there are no files in this dataset" + (" that can be read" if notes else ""),
        where=location,
        expected="images in class folders (cats/, dogs/) or named like cat.1.jpg",
        received="; ".join(notes) or "nothing but hidden files and empty folders",
    )


def _missing(location: str) -> InputError:
    parent, name = os.path.split(location)
    try:
        close = nearest(name, os.listdir(parent))
    except OSError:
        close = []
    return InputError(
        "this dataset does not exist",
        where=location,
        expected="a folder of images, a manifest (.csv, .tsv) or a zip",
        received="nothing there",
        todo=f"did you mean {some(close)}?" if close else "check the path",
    )
