"""The ledger: the rejected images of a dataset as a CSV file, for whoever mends or removes them."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from featstore.dataset import Dataset
from featstore.errors import FeatstoreError, InputError, from_os_error
from featstore.extraction.report import RejectedImage
from featstore.store import Store
from featstore.whole import open_regular, write_whole
from featstore.wording import printable

_HEADER = ["path", "digest", "reason"]
_FIRST_LINE = (",".join(_HEADER) + "\n").encode()


def check_ledger(path: Path) -> None:
    """Say before hours of computing what would be said after them: that no ledger can be written there, or that
    something else is there, which it would replace. Raises InputError, ReadOnlyError or StorageError.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        folder = next(above for above in path.absolute().parents if above.exists())
        if not os.access(folder, os.W_OK | os.X_OK):
            error = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            raise from_os_error(error, "write the ledger of rejected images", path) from error
        return
    except OSError as error:
        raise from_os_error(error, "write the ledger of rejected images", path) from error
    if not stat.S_ISREG(mode) or not _is_ledger(path):
        raise InputError(
            "there is something else where the ledger of rejected images is to be written",
            where=path,
            expected=f"nothing, or a ledger: a CSV file that begins with {','.join(_HEADER)}",
            received="a folder" if stat.S_ISDIR(mode) else "a file of another kind",
            todo=f"name a file in it: {path / 'rejected.csv'}" if stat.S_ISDIR(mode) else "name another file",
        )


def _is_ledger(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(len(_FIRST_LINE)) in (_FIRST_LINE, b"")
    except (OSError, ValueError):
        return False


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
