"""A CSV or TSV manifest: a header with ``path`` and, if wanted, ``label`` and ``split``; one image a line."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from featstore.dataset.dataset import BY_DIGEST, UNLABELLED
from featstore.dataset.layouts import SPLIT_NAMES, Arrangement
from featstore.errors import InputError, nearest

MAX_MANIFEST_BYTES = 1 << 30
"""The largest manifest that is read: 1 GiB."""

_SPLITS = {**SPLIT_NAMES, "unlabelled": UNLABELLED, "unlabeled": UNLABELLED, "": BY_DIGEST}
_MOST_SAID = 10


def is_manifest(head: bytes) -> bool:
    """True if a file that starts with ``head`` has a header with a column ``path``."""
    lines = _text(head).splitlines()
    return bool(lines) and "path" in _columns(next(csv.reader(lines[:1], delimiter=_delimiter(lines[0]))))


def read_manifest(data: bytes, where: str) -> Arrangement:
    """The images of a manifest, in its order; raises InputError with all that is wrong, by line."""
    text = _text(data)
    header, _, _ = text.partition("\n")
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=_delimiter(header), restval="")
    arrangement = Arrangement("manifest")
    problems: list[str] = []
    first_seen: dict[str, int] = {}
    try:
        reader.fieldnames = _columns(reader.fieldnames or ())
        if "path" not in reader.fieldnames:
            raise _unreadable(where, f"the columns {', '.join(reader.fieldnames) or 'of an empty file'}")
        for row in reader:
            problem = _add(arrangement, row, first_seen, reader.line_num)
            if problem:
                problems.append(f"line {reader.line_num}: {problem}")
    except csv.Error as error:
        raise _unreadable(where, f"after line {reader.line_num}: {error}") from error
    if problems:
        more = [f"and {len(problems) - _MOST_SAID} more"] if len(problems) > _MOST_SAID else []
        raise _unreadable(where, "; ".join([*problems[:_MOST_SAID], *more]))
    return arrangement


def _add(arrangement: Arrangement, row: Mapping[str, str], first_seen: dict[str, int], line: int) -> str | None:
    """Append one line's image, or say what is wrong with the line."""
    path, label = row["path"], row.get("label", "").strip()
    split = row.get("split", "").strip().lower()
    if not path or "\0" in path:
        return "no path" if not path else "a path with a NUL"
    if path in first_seen:
        return f"{path!r} was listed in line {first_seen[path]} already"
    if split not in _SPLITS:
        close = nearest(split, filter(None, _SPLITS), count=1)
        return f"unknown split {split!r}" + (f", did you mean {close[0]}?" if close else "")
    first_seen[path] = line
    arrangement.add(path, label or None, _SPLITS[split])
    return None


def _columns(names: object) -> list[str]:
    return [str(name).strip().lower() for name in names] if isinstance(names, list | tuple) else []


def _text(data: bytes) -> str:
    """UTF-8, with or without a mark; other bytes stay as they are in file names."""
    return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="surrogateescape")


def _delimiter(header: str) -> str:
    """Tab, comma or semicolon: whichever the header has most of (comma if none)."""
    return max(",\t;", key=header.count)


def _unreadable(where: str, received: str) -> InputError:
    return InputError(
        "this manifest cannot be used",
        where=where,
        expected="a header with path, label, split (the last two may be missing), one image a line, no path twice; "
        "split is train, validation, test, unlabelled or empty",
        received=received,
        todo="correct the manifest; paths are relative to the folder it is in",
    )
