"""A bundle: a trained head on disk, a folder that holds everything needed to use and to judge it.

``card.json`` says what the head is: the spec of the features it takes, its classes, scores, what was chosen on what,
versions, and the SHA-256 of every other file and of itself. ``head.npz`` holds the head's arrays; nothing is pickled.
The checksums find damage. They prove nothing about who made the bundle: loading one runs no code of its maker.
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

from featstore.errors import DamageError, InputError, from_os_error
from featstore.spec import Spec
from heads.card import RETRAIN, Card, FileEntry, card_from_bytes, card_to_bytes
from heads.linear import LinearHead

CARD_FILE = "card.json"
HEAD_FILE = "head.npz"
_MAX_CARD_BYTES = 64 * 2**20
_MAX_HEAD_BYTES = 4 * 2**30


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A head that was read from disk and checked. ``card.classes`` names the columns of its probabilities."""

    path: Path
    card: Card
    head: LinearHead

    def check_spec(self, spec: Spec) -> None:
        """Raise InputError, naming the fields, unless features of ``spec`` are what the head was trained on."""
        if differences := self.card.spec.differences(spec):
            raise InputError(
                "these features are not of the kind that this head was trained on",
                where=self.path,
                expected=", ".join(f"{name} = {mine}" for name, (mine, _) in differences.items()),
                received=", ".join(f"{name} = {theirs}" for name, (_, theirs) in differences.items()),
                todo="extract the features with the bundle's own spec, or train a head on these",
            )


def write_bundle(folder: Path, card: Card, head: LinearHead) -> Path:
    """Write a bundle into a new folder inside ``folder`` and return its path; all of it appears at once, or nothing.

    Its name ends in a digest of its content, so writing an equal bundle again returns the one that is there.
    Raises ReadOnlyError, NoSpaceError or StorageError, and DamageError if the one that is there is damaged.
    """
    arrays = io.BytesIO()
    np.savez(arrays, weights=head.weights, bias=head.bias)
    card_bytes = card_to_bytes(card, {HEAD_FILE: FileEntry.of(arrays.getvalue())})
    words = (Path(card.origin.backbone).stem, card.spec.pooling, card.kind, hashlib.sha256(card_bytes).hexdigest()[:12])
    target = folder / "-".join(re.sub(r"[^\w.+-]+", "_", word) for word in words)
    if not target.exists():
        _write_folder(target, {HEAD_FILE: arrays.getvalue(), CARD_FILE: card_bytes})
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
    card, files = card_from_bytes(_read_file(card_file, _MAX_CARD_BYTES), card_file)
    if set(files) != {HEAD_FILE}:
        raise InputError("this bundle has files that are not known here", where=card_file, received=", ".join(files))
    head_file = path / HEAD_FILE
    data = _read_file(head_file, _MAX_HEAD_BYTES)
    if FileEntry.of(data) != files[HEAD_FILE]:
        raise DamageError(
            "a file of this bundle was changed after it was written",
            where=head_file,
            expected=f"{files[HEAD_FILE].size} bytes, SHA-256 {files[HEAD_FILE].sha256}",
            received=f"{len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}",
            todo=RETRAIN,
        )
    head = _read_head(data, head_file)
    if len(head.bias) != len(card.classes):
        raise InputError(
            "head and card disagree", where=path, expected=f"{len(card.classes)} classes", received=len(head.bias)
        )
    return Bundle(path, card, head)


def _read_head(data: bytes, where: Path) -> LinearHead:
    """The head in the bytes of an ``.npz``; raises InputError for anything but two plain arrays."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            # np.savez stores without compression; so nothing here can unpack to more than the file itself.
            if any(e.compress_type != zipfile.ZIP_STORED or e.file_size > len(data) for e in archive.infolist()):
                raise ValueError("a compressed entry")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            weights, bias = arrays["weights"], arrays["bias"]
        if weights.dtype != np.float64 or bias.dtype != np.float64:
            raise ValueError(f"arrays of {weights.dtype} and {bias.dtype}, not float64")
        return LinearHead(weights, bias)
    except (ValueError, KeyError, OSError, EOFError, MemoryError, NotImplementedError, zipfile.BadZipFile) as error:
        raise InputError("the head of this bundle cannot be read", where=where, received=error) from error


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


def _read_file(path: Path, limit: int) -> bytes:
    if not path.is_file():
        raise DamageError("a file of this bundle is missing", where=path, todo=RETRAIN)
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise from_os_error(error, "read a bundle", path) from error
    if len(data) > limit:
        raise InputError("a file of this bundle is too large", where=path, expected=f"at most {limit} bytes")
    return data
