"""A bundle: a trained head on disk, a folder that holds everything needed to use and to judge it.

``card.json`` says what the head is: the spec of the features it takes, its classes, scores, what was chosen on what,
versions, and the SHA-256 of every other file and of itself. ``head.npz`` holds the head's arrays, ``rows.npz`` the
images that it was fitted on, ``held-out.npz`` how it called those that were held out; nothing is pickled, and no
library's own model file is ever loaded. The checksums find damage. They prove nothing about who made the bundle:
loading one runs no code of its maker.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from featstore.errors import DamageError, InputError, from_os_error
from featstore.spec import Spec
from featstore.whole import open_regular
from heads.bundles.arrays import FITTED, JUDGED, ArrayFile, Layout, head_layout
from heads.bundles.card import RETRAIN, Card, FileEntry, HeadFile, card_from_bytes, card_to_bytes, check_parts
from heads.bundles.images import FittedImages, JudgedImages
from heads.kinds.dense import DenseHead
from heads.kinds.head import Arrays, Features, Head
from heads.kinds.kernel import KernelHead
from heads.kinds.linear import LinearHead
from heads.kinds.neighbours import NeighboursHead

CARD_FILE = "card.json"
HEAD_FILE = "head.npz"
ROWS_FILE = "rows.npz"
JUDGED_FILE = "held-out.npz"
FILES = (CARD_FILE, HEAD_FILE, ROWS_FILE, JUDGED_FILE)
"""All of them."""

MOST_BYTES = {CARD_FILE: 24 * 2**20, HEAD_FILE: 2 * 2**30, ROWS_FILE: 256 * 2**20, JUDGED_FILE: 256 * 2**20}
"""The most bytes of each file; docs/BUNDLES.md says what for."""

_ARCHIVE_BYTES = 2**16
"""What an archive of a few arrays has beside them."""

_HEADS: Mapping[str, type[Head]] = {kind.format: kind for kind in (LinearHead, KernelHead, NeighboursHead, DenseHead)}
"""Every kind of arrays that a bundle may hold, by the name that its card gives."""


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A head that was read from disk and checked. ``card.classes`` names the columns of its probabilities.

    fitted : the images that it was fitted on; judged : those that its ``held_out`` metrics are of.
    """

    path: Path
    card: Card
    head: Head
    fitted: FittedImages
    judged: JudgedImages

    def probabilities(self, X: Features) -> npt.NDArray[np.float64]:
        """float64 (N, K) for features (N, D); every row sums to 1. Raises InputError if D is not the head's."""
        return self.card.calibration.probabilities(self.head.logits(X))

    def check_specs(self, specs: tuple[Spec, ...]) -> None:
        """Raise InputError, naming the fields, unless features of ``specs`` are what the head was trained on."""
        mine = self.card.specs
        if mine == specs:
            return
        pairs = [pair for one, other in zip(mine, specs, strict=False) for pair in one.differences(other).items()]
        raise InputError(
            "these features are not of the kind that this head was trained on",
            where=self.path,
            expected=", ".join(f"{name} = {ours}" for name, (ours, _) in pairs) or f"{len(mine)} backbones",
            received=", ".join(f"{name} = {theirs}" for name, (_, theirs) in pairs) or f"{len(specs)} backbones",
            todo="extract the features with the bundle's own spec, or train a head on these",
        )


def write_bundle(folder: Path, card: Card, head: Head, fitted: FittedImages, judged: JudgedImages) -> Path:
    """Write a bundle into a new folder inside ``folder`` and return its path; all of it appears at once, or nothing.

    Its name ends in a digest of its content, so writing an equal bundle again returns the one that is there.
    Raises InputError for a head that is too large, ReadOnlyError, NoSpaceError or StorageError, and DamageError if the
    one that is there is damaged.
    """
    arrays, config = head.to_arrays()
    contents = {HEAD_FILE: arrays, ROWS_FILE: fitted.to_arrays(), JUDGED_FILE: judged.to_arrays()}
    for name, content in contents.items():
        _check_size(folder, name, sum(array.nbytes for array in content.values()) + _ARCHIVE_BYTES)
    files = {name: _npz(content) for name, content in contents.items()}
    card_bytes = card_to_bytes(
        card, HeadFile(head.format, config), {name: FileEntry.of(data) for name, data in files.items()}
    )
    _check_size(folder, CARD_FILE, len(card_bytes))
    check_parts(card_bytes, folder)
    backbones = "+".join(Path(origin.backbone).stem for origin in card.origins)
    words = (backbones, card.specs[0].pooling, card.kind, hashlib.sha256(card_bytes).hexdigest()[:12])
    target = folder / "-".join(re.sub(r"[^\w.+-]+", "_", word) for word in words)
    if not target.exists():
        _write_folder(target, {**files, CARD_FILE: card_bytes})
    return read_bundle(target).path


def _check_size(folder: Path, name: str, size: int) -> None:
    """Raise InputError for a file that nothing here would read again."""
    if size > MOST_BYTES[name]:
        raise InputError(
            "this head is too large for a bundle",
            where=folder,
            expected=f"{name} of at most {MOST_BYTES[name]} bytes",
            received=size,
            todo="train on fewer images or classes, or a head that does not keep the training images, such as logreg",
        )


def read_bundle(path: Path) -> Bundle:
    """The bundle in the folder ``path``, every byte of it checked.

    No array is read before it is known to be one that the card tells of. Raises InputError if it is no bundle or one
    of a later featstore, DamageError if a file is missing or changed.
    """
    card_file = path / CARD_FILE
    if not card_file.is_file():
        raise InputError(
            "this is not a bundle",
            where=path,
            expected=f"a folder with {CARD_FILE} and {HEAD_FILE}",
            received="a folder without them" if path.is_dir() else "a file" if path.exists() else "nothing there",
            todo="make one with: featstore train DATA --backbone NAME",
        )
    with _opened(card_file) as file:
        content = file.read(MOST_BYTES[CARD_FILE])
    card, head_file, files = card_from_bytes(content, card_file)
    if set(files) != {HEAD_FILE, ROWS_FILE, JUDGED_FILE}:
        raise InputError("this bundle has files that are not known here", where=card_file, received=", ".join(files))
    return Bundle(path, card, _head(path / HEAD_FILE, card, head_file, files), *_images(path, card, files))


def _images(path: Path, card: Card, files: Mapping[str, FileEntry]) -> tuple[FittedImages, JudgedImages]:
    fitted = _read_arrays(path / ROWS_FILE, files[ROWS_FILE], lambda _: FITTED)
    judged = _read_arrays(path / JUDGED_FILE, files[JUDGED_FILE], lambda _: JUDGED, M=card.held_out.n)
    where = path / ROWS_FILE
    try:
        images = FittedImages.from_arrays(fitted, len(card.classes))
        where = path / JUDGED_FILE
        return images, JudgedImages.from_arrays(judged, card.held_out.n, len(card.held_out.per_class))
    except (ValueError, TypeError) as error:
        raise InputError("the images of this bundle cannot be read", where=where, received=error) from error


def _head(where: Path, card: Card, head_file: HeadFile, files: Mapping[str, FileEntry]) -> Head:
    kind = _HEADS.get(head_file.format)
    if kind is None:
        raise InputError("this kind of head is not known here", where=where, received=head_file.format)
    classes, width = len(card.classes), sum(card.widths)
    arrays = _read_arrays(where, files[HEAD_FILE], partial(head_layout, kind.format), K=classes, D=width)
    try:
        head = kind.from_arrays(arrays, head_file.config)
        if (head.outputs, head.width) != (classes, width):
            raise ValueError(f"{head.width} features, {head.outputs} classes; the card has {width}, {classes}")
        return head
    except (ValueError, TypeError, KeyError) as error:
        raise InputError("the head of this bundle cannot be read", where=where, received=error) from error


def _npz(arrays: Arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type] # its stub takes a name for its own option
    return file.getvalue()


def _read_arrays(path: Path, entry: FileEntry, layout: Callable[[int], Layout], **sides: int) -> Arrays:
    """The arrays in an ``.npz`` that must be the one of ``entry`` and have the ``layout`` for its number of arrays.

    sides : those of the arrays that are known. Raises DamageError, InputError for others, with little memory.
    """
    with _opened(path, entry) as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
        if digest.hexdigest() != entry.sha256:
            raise _changed(path, entry, f"SHA-256 {digest.hexdigest()}")
        try:
            archive = ArrayFile(file)
            return archive.read(layout(len(archive)), sides)
        except Exception as error:  # zipfile and NumPy's reader of headers raise nearly anything on nonsense
            if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a place before the file's first byte
                raise
            what = "head" if path.name == HEAD_FILE else "images"
            raise InputError(f"the {what} of this bundle cannot be read", where=path, received=error) from error


def _write_folder(target: Path, files: Mapping[str, bytes]) -> None:
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
        for name, data in files.items():
            with (temporary / name).open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        temporary.rename(target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if not target.exists():  # else another process wrote the same bundle meanwhile
            raise from_os_error(error, "write a bundle", target) from error


@contextmanager
def _opened(path: Path, entry: FileEntry | None = None) -> Iterator[BinaryIO]:
    """A file of a bundle, which must have the size in ``entry``, and none that is too large."""
    if not path.is_file():
        raise DamageError("a file of this bundle is missing", where=path, todo=RETRAIN)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if entry is not None and size != entry.size:
                raise _changed(path, entry, f"{size} bytes")
            if size > MOST_BYTES[path.name]:
                raise InputError(
                    "a file of this bundle is too large",
                    where=path,
                    expected=f"at most {MOST_BYTES[path.name]} bytes",
                    received=size,
                )
            yield file
    except OSError as error:
        raise from_os_error(error, "read a bundle", path) from error


def _changed(path: Path, entry: FileEntry, received: str) -> DamageError:
    return DamageError(
        "a file of this bundle was changed after it was written",
        where=path,
        expected=f"{entry.size} bytes, SHA-256 {entry.sha256}",
        received=received,
        todo=RETRAIN,
    )
