"""A CSV or TSV manifest: a header with ``path`` and, if wanted, ``label`` and ``split``; one image a line."""

from __future__ import annotations

import codecs
import csv
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath

from featstore.dataset.dataset import BY_DIGEST, UNLABELLED
from featstore.dataset.layouts import SPLIT_NAMES, Arrangement
from featstore.dataset.listing import some
from featstore.errors import InputError, nearest

MAX_MANIFEST_BYTES = 1 << 30
"""The largest manifest that is read: 1 GiB."""

MAX_LINES = 5_000_000
"""More lines than this in a manifest are refused."""

HEADER_BYTES = 64 * 2**10
"""How many first bytes :func:`is_manifest` needs: 64 KiB."""

MAX_ROW = 2**20
"""The most characters in a row, its line ends included."""

_SPLITS = {**SPLIT_NAMES, "unlabelled": UNLABELLED, "unlabeled": UNLABELLED, "": BY_DIGEST}
_MOST_SAID = 5
_TODO = "correct the manifest; paths are relative to the folder it is in"
_AS_UTF8 = "save it as UTF-8 (in a spreadsheet: CSV UTF-8)"


def is_manifest(head: bytes) -> bool:
    """True if a file that starts with ``head`` has a header with a column ``path``, in UTF-8 or UTF-16."""
    header = _header_line(io.TextIOWrapper(io.BytesIO(head), "utf-16", "replace") if _is_utf16(head) else _text(head))
    return "path" in _columns(next(csv.reader([header], delimiter=_delimiter(header)), []))


def goes_above(path: str) -> bool:
    """Whether a path is absolute, or goes above its folder on its way: as far as its words tell."""
    if os.path.isabs(path) or os.path.splitdrive(path)[0]:
        return True
    if ".." not in path:
        return False
    depth = 0
    for part in path.replace(os.sep, "/").split("/"):
        depth += 0 if part in ("", ".") else -1 if part == ".." else 1
        if depth < 0:
            return True
    return False


class Fence:
    """Tells the paths that lead out of a folder, by their words or over links. Each folder on the way is resolved once.

    A link that is laid later is not noticed.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._inside = os.path.join(os.path.realpath(folder), "")
        self._outside: dict[str, bool] = {}

    def is_left_by(self, path: str) -> bool:
        """Whether what a path names lies outside. Where there is nothing, its words tell."""
        if goes_above(path):
            return True
        whole = os.path.join(self._folder, path)
        try:
            is_link = stat.S_ISLNK(os.lstat(whole).st_mode)
        except (OSError, ValueError):
            return False
        if is_link:
            return self._is_outside(whole)
        above = os.path.dirname(whole)
        if above not in self._outside:
            self._outside[above] = self._is_outside(above)
        return self._outside[above]

    def _is_outside(self, whole: str) -> bool:
        return not os.path.join(os.path.realpath(whole), "").startswith(self._inside)


def anywhere(path: str) -> bool:
    """Of no path that it leaves: for a manifest that may name any."""
    del path
    return False


def read_manifest(data: bytes, where: str, leaves: Callable[[str], bool] = goes_above) -> Arrangement:
    """The images of a manifest, in its order; raises InputError with what is wrong, by line.

    ``./a.jpg`` is the same path as ``a.jpg``, and both become the latter. Cells beyond the header must be empty; a row
    may be short of cells, but not of its label. Paths of which ``leaves`` is true are refused.
    """
    if _is_utf16(data):
        raise _unreadable(where, "UTF-16 text", todo=_AS_UTF8)
    rows = _rows(data, where)
    columns = _columns(next(rows, (0, []))[1])
    if "path" not in columns:
        raise _unreadable(where, f"the columns {some(columns) or 'of an empty file'}")
    reading = _Reading(columns, leaves)
    problems: list[str] = []
    count = 0
    for read, (line, row) in enumerate(rows):
        if read == MAX_LINES:
            raise _unreadable(where, f"more than {MAX_LINES:,} lines", "split it into smaller ones")
        if problem := reading.add(row, line):
            count += 1
            problems += [f"line {line}: {problem}"][: _MOST_SAID - len(problems)]
    if problems:
        more = [f"and {count - _MOST_SAID} more"] if count > _MOST_SAID else []
        todo = f"{_AS_UTF8}, then {_TODO}" if reading.has_other_encoding else _TODO
        if reading.leaves:
            todo += "; if you trust whoever wrote it, pass --outside (DatasetOptions(outside=True))"
        raise _unreadable(where, "; ".join([*problems, *more]), todo)
    if not reading.arrangement.paths:
        raise _unreadable(where, "a header and no line below it", what="the manifest lists no image")
    return reading.arrangement


def _rows(data: bytes, where: str) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank with the line it starts in, the header first.

    Read strictly: a quote that is left open would swallow the lines below it.
    """
    lines = _Lines(data, where)
    header = _header_line(lines)
    lines.restart()
    reader = csv.reader(lines, delimiter=_delimiter(header), strict=True)
    is_header = True
    start = 1
    try:
        for row in reader:
            lines.in_row = 0
            # of a line of blanks below the header, the path is missing: only above it they say nothing
            if row and not (is_header and not any(cell.strip() for cell in row)):
                yield start, row
                is_header = False
            start = reader.line_num + 1
    except csv.Error as error:
        is_open = "unexpected end" in str(error)
        what = "a quote is opened here and never closed" if is_open else f"{error}: is a quote left open in this line?"
        raise _unreadable(where, f"line {start}: {what}") from error


class _Lines:
    """The lines of a manifest, one after the other; raises InputError when a row becomes too long to be meant."""

    def __init__(self, data: bytes, where: str) -> None:
        self.in_row = 0  # characters, to be set to 0 where a row ends
        self._text = _text(data)
        self._where = where

    def restart(self) -> None:
        """Begin again at the first line."""
        self.in_row = 0
        self._text.seek(0)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_ROW + 1)
        if not line:
            raise StopIteration
        self.in_row += len(line)
        if self.in_row > MAX_ROW:
            raise _unreadable(self._where, f"a row of more than {MAX_ROW:,} characters")
        return line


class _Reading:
    """The arrangement while it grows, row by row."""

    def __init__(self, columns: list[str], leaves: Callable[[str], bool]) -> None:
        self.arrangement = Arrangement("manifest")
        self.has_other_encoding = False
        self.leaves = False
        self._leaves = leaves
        self._columns = columns
        self._first_seen: dict[str, int] = {}

    def add(self, row: list[str], line: int) -> str | None:
        """Append one row's image, or say what is wrong with the row."""
        count = len(self._columns)
        if any(cell.strip() for cell in row[count:]):
            return f"{len(row)} columns where the header has {count}"
        path, label, split = self._cell(row, "path"), self._cell(row, "label"), self._cell(row, "split")
        if not path or "\0" in path:
            return "no path" if not path else "a path with a NUL"
        normal = _normal(path)
        if self._leaves(normal):
            self.leaves = True
            return f"{path!r} is outside of the manifest's folder"
        if label is None:
            return f"{len(row)} of {count} columns: none for the label"
        if not _is_utf8(label):
            self.has_other_encoding = True
            return f"the label {label!r} is not UTF-8"
        return self._append(normal, label.strip(), (split or "").strip().lower(), line)

    def _append(self, path: str, label: str, split: str, line: int) -> str | None:
        if path in self._first_seen:
            return f"{path!r} was listed in line {self._first_seen[path]} already"
        if split not in _SPLITS:
            close = nearest(split, filter(None, _SPLITS), count=1)
            return f"unknown split {split!r}" + (f", did you mean {close[0]}?" if close else "")
        self._first_seen[path] = line
        self.arrangement.add(path, label or None, _SPLITS[split])
        return None

    def _cell(self, row: list[str], name: str) -> str | None:
        """The cell of a column, empty if the manifest has no such column, None if the row is too short."""
        if name not in self._columns:
            return ""
        index = self._columns.index(name)
        return row[index] if index < len(row) else None


def _normal(path: str) -> str:
    """Without ``.`` and doubled slashes; ``..`` stays, for a link may lie before it."""
    if "./" in path or "//" in path or path.endswith(("/", "/.")):
        return str(PurePosixPath(path))
    return path


def _header_line(lines: Iterable[str]) -> str:
    """The first line that is not blank; ``lines`` is read up to there."""
    return next((line for line in lines if line.strip()), "")


def _columns(names: list[str]) -> list[str]:
    return [name.strip().lower() for name in names]


def _is_utf16(data: bytes) -> bool:
    """By its mark, or by the zero byte of its first letter."""
    return data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data[:2]


def _is_utf8(text: str) -> bool:
    return text.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in text)


def _text(data: bytes) -> io.TextIOWrapper:
    """UTF-8, with or without a mark, decoded as it is read; other bytes stay as they are in file names."""
    return io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", "surrogateescape", newline="")


def _delimiter(header: str) -> str:
    """Tab, comma or semicolon: whichever the header has most of (comma if none)."""
    return max(",\t;", key=header.count)


def _unreadable(where: str, received: str, todo: str = _TODO, what: str = "this manifest cannot be used") -> InputError:
    return InputError(
        what,
        where=where,
        expected="a header with path, label, split (the last two may be missing), one image a line, no path twice; "
        "split is train, validation, test, unlabelled or empty",
        received=received,
        todo=todo,
    )
