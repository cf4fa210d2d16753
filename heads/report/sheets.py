"""Files of results, most of them CSV: for spreadsheets, for scripts, for Kaggle. Written whole or not at all."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from featstore.errors import InputError
from featstore.whole import write_whole
from featstore.wording import printable
from heads.predict import Prediction

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that a spreadsheet takes for a formula (OWASP, CSV injection)."""


def predictions_csv(found: Sequence[Prediction], top: int = 3) -> str:
    r"""A line for each image: ``path``; ``label`` and ``probability`` of the likeliest class, ``label_2`` … for up to
    ``top`` of them; ``cached`` (true, false); ``rejected`` (the reason, or nothing).

    No cell is taken for a formula by a spreadsheet: a path that looks like one begins with ``./``, which names the same
    file, and a class's name with an apostrophe. Bytes that are not UTF-8 are written as ``\xNN``.
    """
    count = min(top, max((len(prediction.classes) for prediction in found), default=1))
    ranks = ["" if place == 1 else f"_{place}" for place in range(1, count + 1)]
    header = ["path", *(f"{name}{rank}" for rank in ranks for name in ("label", "probability")), "cached", "rejected"]
    lines = []
    for prediction in found:
        best = [cell for name, p in prediction.top(count) for cell in (_not_formula(printable(name), "'"), repr(p))]
        best += [""] * (2 * count - len(best))
        path = _not_formula(printable(prediction.path), "./")
        rejected = prediction.reason.code if prediction.label is None else ""
        lines.append([path, *best, str(prediction.from_cache).lower(), rejected])
    return to_csv([header, *lines])


def _not_formula(cell: str, before: str) -> str:
    return before + cell if cell.startswith(_FORMULA) else cell


def to_csv(rows: Iterable[Sequence[str]]) -> str:
    """Rows as CSV (RFC 4180, but with a plain newline at the end of a line): cells are quoted where they must be."""
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)  # the other does not quote a lone \r
    for row in rows:
        (quoted if any("\r" in cell for cell in row) else plain).writerow(row)
    return text.getvalue()


def check_target(path: Path, *, force: bool = False) -> None:
    """Raise InputError, before any work, if no file can be written to ``path``, or one is there and not ``force``."""
    if os.path.lexists(path) and not path.is_file():
        raise InputError("results cannot be written here", where=path, expected="a file", received="something else")
    if path.exists() and not force:
        raise InputError(
            "this file is there already", where=path, todo="give another name, or --force to write over it"
        )
    if not path.parent.is_dir():
        raise InputError("the folder of this file does not exist", where=path, todo="make it, or name another")


def write_sheet(text: str, path: Path, *, force: bool = False) -> None:
    """Write ``text`` to ``path`` as :func:`write_file` does."""
    write_file(text.encode(), path, force=force)


def write_file(data: bytes, path: Path, *, force: bool = False) -> None:
    """Write ``data`` to ``path``, durably: all of it appears at once, or nothing.

    Raises what :func:`check_target` raises, and ReadOnlyError, NoSpaceError or StorageError.
    """
    check_target(path, force=force)
    write_whole(path, "write this file", data)
