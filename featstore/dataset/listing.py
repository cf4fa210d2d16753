"""The files below a folder, in a zip or on object storage, by name only: nothing is opened, nothing odd stops this."""

from __future__ import annotations

import os
import re
import stat
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from featstore.cloud import Bucket
from featstore.errors import FeatstoreError, InputError, from_os_error
from featstore.records import Stamp
from featstore.wording import counted
from featstore.zips import check_directory, refused_method

MAX_FOLDERS = 1_000_000
"""More folders than this are taken for links that lead in circles."""

MAX_ENTRIES = 2_500_000
MAX_DIRECTORY_BYTES = 2**29
"""More entries than this in a zip, or more bytes in the list of them, are refused: each takes a kilobyte of memory."""

_CLUTTER = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "icon\r"}
_DIGITS = re.compile(r"[0-9]+")

_Said = tuple[str, str]  # of one, of many
_UNREADABLE = ("folder that cannot be read", "folders that cannot be read")
_NOWHERE = ("link that leads nowhere", "links that lead nowhere")
_LOOP = ("link that leads in a loop", "links that lead in a loop")
_SPECIAL = ("special file (FIFO, socket or device)", "special files (FIFOs, sockets, devices)")
_UNSAFE = ("entry with an unsafe name (absolute or with ..)", "entries with unsafe names (absolute or with ..)")
_NO_PATH = (
    "place with an object whose name is no path (with //, . or ..)",
    "places with objects whose names are no paths (with //, . or ..)",
)
_NO_FILE = ("link or special file", "links and special files")
_TWICE = ("entry whose name comes again", "entries whose names come again")


@dataclass(frozen=True, slots=True)
class Listing:
    """Relative paths with ``/``: ``files`` in natural order, all ``folders`` (empty ones too), ``notes`` to show.

    unseen : links that lead nowhere and folders that cannot be read: images may be behind them.
    """

    files: Sequence[str]
    folders: Sequence[str]
    notes: tuple[str, ...] = ()
    unseen: int = 0


def natural_key(path: str) -> tuple[str, str]:
    """Sort key that puts cat.2 before cat.10; the path itself decides between equal numbers (1 and 01)."""
    return _DIGITS.sub(lambda digits: digits[0].zfill(20), path), path


def is_clutter(name: str) -> bool:
    """True for names that systems leave behind (hidden files, Thumbs.db, __MACOSX): never images of the dataset."""
    return name.startswith(".") or name.lower() in _CLUTTER


def list_folder(root: str) -> Listing:
    """Walk ``root``, following links but no loop. Raises the typed OSError if ``root`` itself cannot be listed."""
    walk = _Walk(root)
    walk.run()
    unseen = walk.passed_over[_NOWHERE] + walk.passed_over[_UNREADABLE]
    return Listing(sorted(walk.files, key=natural_key), walk.folders, _said(walk.passed_over), unseen)


def list_bucket(bucket: Bucket) -> tuple[Listing, dict[str, Stamp]]:
    """The objects below a URL, and what is known of each. Raises ReadOnlyError or StorageError."""
    stamps: dict[str, Stamp] = {}
    passed_over: Counter[_Said] = Counter()
    for path, stamp in bucket.files():
        parts = path.split("/")
        if "" in parts or "." in parts or ".." in parts:
            passed_over[_NO_PATH] += 1
        elif not any(map(is_clutter, parts)):
            stamps[path] = stamp
    folders = {folder for path in stamps for folder in _folders_above(path)}
    return Listing(sorted(stamps, key=natural_key), sorted(folders), _said(passed_over)), stamps


def _folders_above(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


class _Walk:
    """One pass over a tree; a file costs its directory entry and, if it is not a link, no call to the system."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.files: list[str] = []
        self.folders: list[str] = []
        self.passed_over: Counter[_Said] = Counter()

    def run(self) -> None:
        try:
            waiting: list[_Waiting] = [("", (_identity(self.root),))]
            self._scan(*waiting.pop(), waiting)
        except OSError as error:
            raise cannot_read(error, self.root) from error
        while waiting:
            try:
                self._scan(*waiting.pop(), waiting)
            except OSError:
                self.passed_over[_UNREADABLE] += 1

    def _scan(self, relative: str, ancestors: tuple[tuple[int, int], ...], waiting: list[_Waiting]) -> None:
        """List one folder; push its subfolders, each with the identities of all folders above it."""
        with os.scandir(os.path.join(self.root, relative)) as entries:
            for entry in entries:
                if is_clutter(entry.name):
                    continue
                path = f"{relative}/{entry.name}" if relative else entry.name
                try:
                    self._sort_in(entry, path, ancestors, waiting)
                except OSError:
                    self.passed_over[_NOWHERE] += 1

    def _sort_in(
        self, entry: os.DirEntry[str], path: str, ancestors: tuple[tuple[int, int], ...], waiting: list[_Waiting]
    ) -> None:
        if entry.is_file():
            self.files.append(path)
        elif entry.is_dir():
            identity = _identity(entry.path)
            if identity in ancestors:
                self.passed_over[_LOOP] += 1
                return
            self.folders.append(path)
            if len(self.folders) > MAX_FOLDERS:
                raise _too_many(self.root)
            waiting.append((path, (*ancestors, identity)))
        elif entry.is_symlink():
            self.passed_over[_NOWHERE] += 1
        else:
            self.passed_over[_SPECIAL] += 1


_Waiting = tuple[str, tuple[tuple[int, int], ...]]


def _identity(folder: str) -> tuple[int, int]:
    found = os.stat(folder)
    return found.st_dev, found.st_ino


def list_zip(location: str) -> tuple[Listing, zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    """The files of a zip, the open archive, and each file's entry. Raises InputError if the zip cannot be read."""
    archive = _open_zip(location)
    entries: dict[str, zipfile.ZipInfo] = {}
    folders: list[str] = []
    passed_over: Counter[_Said] = Counter()
    for entry in archive.filelist:
        path = entry.filename.replace("\\", "/")  # written so by some programs on Windows
        parts = PurePosixPath(path).parts
        if path.startswith("/") or ".." in parts or ":" in path[:2]:
            passed_over[_UNSAFE] += 1
        elif not parts or any(map(is_clutter, parts)):
            continue
        elif entry.is_dir() or path.endswith("/"):
            folders.append("/".join(parts))
        elif stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            passed_over[_NO_FILE] += 1
        else:
            name = "/".join(parts)
            passed_over[_TWICE] += name in entries  # the last counts, as for programs that unpack
            entries[name] = entry
    refused = Counter(why for entry in entries.values() if (why := refused_method(entry)))
    notes = [
        f"{counted(count, 'entry', 'entries')} {why}: pack the zip again" for why, count in sorted(refused.items())
    ]
    return Listing(sorted(entries, key=natural_key), folders, (*_said(passed_over), *notes)), archive, entries


def _open_zip(location: str) -> zipfile.ZipFile:
    try:
        with open(location, "rb") as file:
            check_directory(file, MAX_ENTRIES, MAX_DIRECTORY_BYTES)
        return zipfile.ZipFile(location)
    except OSError as error:
        raise cannot_read(error, location) from error
    except Exception as error:  # BadZipFile, UnicodeDecodeError, struct.error … from a damaged directory
        raise InputError(
            "this zip cannot be read",
            where=location,
            received=str(error),
            todo="make or download the archive again; one of very many files must be unpacked, or packed in parts",
        ) from error


def _said(passed_over: Counter[_Said]) -> tuple[str, ...]:
    return tuple(f"passed over {counted(count, *what)}" for what, count in sorted(passed_over.items()) if count)


def _too_many(where: str) -> InputError:
    return InputError(
        f"more than {MAX_FOLDERS:,} folders",
        where=where,
        expected=f"at most {MAX_FOLDERS:,}",
        todo="name a smaller part of it",
    )


def cannot_read(error: OSError, where: str) -> FeatstoreError:
    """The typed error for a dataset that the system does not let us read."""
    typed = from_os_error(error, "read this dataset", where)
    typed.todo = "check the path, and that you may read it"
    return typed


def some(names: Iterable[str], limit: int = 5) -> str:
    """The first few names for a message: ``cats, dogs and 3 more``."""
    listed = [name.encode(errors="surrogateescape").decode(errors="replace") for name in names]
    shown = ", ".join(listed[:limit])
    return shown if len(listed) <= limit else f"{shown} and {len(listed) - limit} more"
