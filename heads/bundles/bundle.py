"""A bundle: a trained head on disk, a folder that holds everything needed to use and to judge it.

``card.json`` says what the head is: the spec of the features it takes, its classes, scores, what was chosen on what,
versions, and the SHA-256 of every other file and of itself. ``head.npz`` holds the head's arrays, ``rows.npz`` the
images that it was fitted on, ``held-out.npz`` how it called those that were held out; nothing is pickled, and no
library's own model file is ever loaded. The checksums find damage. They prove nothing about who made the bundle:
loading one runs no code of its maker.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import secrets
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featstore.errors import DamageError, InputError, from_os_error
from featstore.spec import Spec
from heads.bundles.card import RETRAIN, Card, FileEntry, HeadFile, card_from_bytes, card_to_bytes
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

_MAX_CARD_BYTES = 64 * 2**20
_MAX_ARRAYS_BYTES = 4 * 2**30

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
    size = sum(array.nbytes for array in arrays.values())
    if size > _MAX_ARRAYS_BYTES - 2**20:  # the rest of the file
        raise InputError(
            "this head is too large for a bundle",
            where=folder,
            expected=f"at most {_MAX_ARRAYS_BYTES} bytes",
            received=size,
            todo="train a head that does not keep the training images, such as logreg, or on fewer of them",
        )
    contents = {HEAD_FILE: arrays, ROWS_FILE: fitted.to_arrays(), JUDGED_FILE: judged.to_arrays()}
    files = {name: _npz(content) for name, content in contents.items()}
    card_bytes = card_to_bytes(
        card, HeadFile(head.format, config), {name: FileEntry.of(data) for name, data in files.items()}
    )
    backbones = "+".join(Path(origin.backbone).stem for origin in card.origins)
    words = (backbones, card.specs[0].pooling, card.kind, hashlib.sha256(card_bytes).hexdigest()[:12])
    target = folder / "-".join(re.sub(r"[^\w.+-]+", "_", word) for word in words)
    if not target.exists():
        _write_folder(target, {**files, CARD_FILE: card_bytes})
    return read_bundle(target).path


def read_bundle(path: Path) -> Bundle:
    """The bundle in the folder ``path``, every byte of it checked.

    Raises InputError if it is no bundle or one of a later featstore, DamageError if a file is missing or changed.
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
    card, head_file, files = card_from_bytes(_read_file(card_file, _MAX_CARD_BYTES), card_file)
    if set(files) != {HEAD_FILE, ROWS_FILE, JUDGED_FILE}:
        raise InputError("this bundle has files that are not known here", where=card_file, received=", ".join(files))
    arrays = {name: _read_arrays(path / name, entry) for name, entry in files.items()}
    head = _head(head_file, arrays[HEAD_FILE], path / HEAD_FILE)
    fitted, judged = _images(path, card, arrays)
    if (head.outputs, head.width) != (len(card.classes), sum(card.widths)):
        raise InputError(
            "head and card disagree",
            where=path,
            expected=f"{sum(card.widths)} features, {len(card.classes)} classes",
            received=f"{head.width} features, {head.outputs} classes",
        )
    return Bundle(path, card, head, fitted, judged)


def _images(path: Path, card: Card, arrays: Mapping[str, Arrays]) -> tuple[FittedImages, JudgedImages]:
    where = path / ROWS_FILE
    try:
        fitted = FittedImages.from_arrays(arrays[ROWS_FILE], len(card.classes))
        where = path / JUDGED_FILE
        return fitted, JudgedImages.from_arrays(arrays[JUDGED_FILE], card.held_out.n, len(card.held_out.per_class))
    except (ValueError, TypeError) as error:
        raise InputError("the images of this bundle cannot be read", where=where, received=error) from error


def _head(head_file: HeadFile, arrays: Arrays, where: Path) -> Head:
    kind = _HEADS.get(head_file.format)
    if kind is None:
        raise InputError("this kind of head is not known here", where=where, received=head_file.format)
    try:
        return kind.from_arrays(arrays, head_file.config)
    except (InputError, ValueError, TypeError, KeyError) as error:
        raise InputError("the head of this bundle cannot be read", where=where, received=error) from error


def _npz(arrays: Arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type] # its stub takes a name for its own option
    return file.getvalue()


def _read_arrays(path: Path, entry: FileEntry) -> Arrays:
    """The plain arrays in an ``.npz`` that must be the one of ``entry``; raises DamageError, InputError for others."""
    data = _read_file(path, _MAX_ARRAYS_BYTES, entry)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            # np.savez stores without compression; so nothing here can unpack to more than the file itself.
            if any(e.compress_type != zipfile.ZIP_STORED or e.file_size > len(data) for e in archive.infolist()):
                raise ValueError("a compressed entry")
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):  # other members come as plain bytes
            raise ValueError("a member that is no array")
        return arrays
    except Exception as error:  # zipfile and NumPy's reader of headers raise nearly anything on nonsense
        raise InputError("the head of this bundle cannot be read", where=path, received=error) from error


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


def _read_file(path: Path, limit: int, entry: FileEntry | None = None) -> bytes:
    """All bytes of a file, which must be those of ``entry``; it is not read if its size says that they are not."""
    if not path.is_file():
        raise DamageError("a file of this bundle is missing", where=path, todo=RETRAIN)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if entry is not None and size != entry.size:
                raise _changed(path, entry, f"{size} bytes")
            if size > limit:
                raise InputError(
                    "a file of this bundle is too large", where=path, expected=f"at most {limit} bytes", received=size
                )
            data = file.read(size)
    except OSError as error:
        raise from_os_error(error, "read a bundle", path) from error
    if entry is not None and FileEntry.of(data) != entry:
        raise _changed(path, entry, f"{len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")
    return data


def _changed(path: Path, entry: FileEntry, received: str) -> DamageError:
    return DamageError(
        "a file of this bundle was changed after it was written",
        where=path,
        expected=f"{entry.size} bytes, SHA-256 {entry.sha256}",
        received=received,
        todo=RETRAIN,
    )
