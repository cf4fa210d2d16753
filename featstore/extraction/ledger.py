"""The ledger: the rejected images of a dataset as a CSV file, for whoever mends or removes them."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from featstore.dataset import Dataset
from featstore.errors import FeatstoreError, InputError
from featstore.extraction.report import RejectedImage
from featstore.store import Store
from featstore.whole import open_regular, write_whole
from featstore.wording import printable

_HEADER = ["path", "digest", "reason"]
_FIRST_LINE = (",".join(_HEADER) + "\n").encode()


def check_ledger(path: Path) -> None:
    """Raise InputError if what is at ``path`` is anything but a ledger: it would be replaced."""
    if not os.path.lexists(path):
        return
    try:
        with open_regular(path) as file:
            is_ledger = not path.is_symlink() and file.read(len(_FIRST_LINE)) in (_FIRST_LINE, b"")
    except (OSError, ValueError):
        is_ledger = False
    if not is_ledger:
        raise InputError(
            "there is something else at the ledger's place",
            where=path,
            expected=f"nothing, or a ledger: a CSV file that begins with {','.join(_HEADER)}",
            todo="name another file; without --ledger it is kept in the store",
        )


def write_ledger(rejects: Sequence[RejectedImage], path: Path | None, store: Store, dataset: Dataset) -> Path | None:
    """Write the rejected images of ``dataset`` as CSV: path, digest, reason.

    Every run over one dataset writes the same file (``path``, else one in the store). With nothing rejected an old
    ledger in the store is removed. Returns where it is, or None if there is none or a read-only store cannot take it.
    Raises InputError if something else is at ``path``.
    """
    if path is not None:
        check_ledger(path)
    target = path or store.ledger_folder / _ledger_name(dataset)
    if not rejects and path is None:
        with suppress(OSError):
            target.unlink()
        return None
    try:
        write_whole(target, "write the ledger of rejected images", _ledger_text(rejects).encode())
    except FeatstoreError:
        if path is None:  # the ledger in the store is derived: the rows themselves say it all
            return None
        raise
    return target


def _ledger_name(dataset: Dataset) -> str:
    identity = f"{dataset.source.location}\0{dataset.name}"
    tail = hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()[:8]
    name = "".join(c if (c.isascii() and c.isalnum()) or c in "-_" else "-" for c in dataset.name)
    return f"{name[:64] or 'images'}-{tail}.csv"


def _ledger_text(rejects: Sequence[RejectedImage]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    writer.writerows([printable(r.path), r.digest, r.reason.code] for r in rejects)
    return text.getvalue()
