"""Fetch a published dataset: resumed where it broke off, checked before it is unpacked, unpacked whole or not at all.

Nobody publishes the archive's hash. So its size and the numbers of its images are checked, its SHA-256 is written down
when it is fetched for the first time, and compared from then on.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import secrets
import shutil
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from featstore.errors import DamageError, InputError, from_os_error, unknown_name
from featstore.folders import cache_folder, is_offline
from featstore.progress import Progress, silent
from featstore.weights.published import MEGABYTE, in_megabytes
from featstore.zips import refused_method

TIMEOUT_SECONDS = 20.0
"""How long a connection may stay silent."""

TRIES = 3
"""Connections that may break off before it is given up; the bytes that came are kept for the next call."""

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Published:
    """A dataset that somebody publishes as a zip file.

    size : of the archive in bytes. root : its folder that holds the dataset. counts : how many JPEG files each folder
    under ``root`` must have.
    """

    url: str
    size: int
    root: str
    counts: Mapping[str, int]
    about: str


DATASETS: Mapping[str, Published] = {
    "cats-vs-dogs": Published(
        "https://storage.googleapis.com/mledu-datasets/cats_and_dogs_filtered.zip",
        68_606_236,
        "cats_and_dogs_filtered",
        {"train/cats": 1000, "train/dogs": 1000, "validation/cats": 500, "validation/dogs": 500},
        "the 3,000 photographs of the well-known tutorials",
    )
}


@dataclass(frozen=True, slots=True)
class Fetched:
    """A dataset in its folder. ``known`` : whether its archive's SHA-256 (hex) was known and is the same again."""

    folder: Path
    images: int
    sha256: str
    known: bool


def fetch(name: str, folder: Path | None = None, *, progress: Progress = silent) -> Fetched:
    """Fetch the dataset called ``name`` into ``folder`` (default: ``name`` here), which must not be there yet.

    Raises InputError for an unknown name, a folder that is there, or where the network is closed or breaks off;
    DamageError for a file that is not the published one; NoSpaceError and its kin.
    """
    if name not in DATASETS:
        raise unknown_name("dataset", name, DATASETS, "fetch")
    wanted, target = DATASETS[name], folder or Path(name)
    if target.exists():
        raise InputError("this folder is there already", where=target, todo="use it, or name another place with --to")
    kept = cache_folder() / "datasets"
    archive = kept / f"{name}.zip"
    try:
        kept.mkdir(parents=True, exist_ok=True)
        if not (archive.exists() and archive.stat().st_size == wanted.size):
            _download(wanted, archive, progress)
        found, known = _check_hash(archive, name)
        _unpack(archive, wanted, target)
        if not known:
            _hash_file(archive).write_text(found)
    except OSError as error:
        raise from_os_error(error, "fetch a dataset", target) from error
    return Fetched(target, sum(wanted.counts.values()), found, known)


def _download(wanted: Published, archive: Path, progress: Progress) -> None:
    """Get the archive, going on from what an earlier call has left of it; it gets its name when it has its size."""
    part = archive.with_suffix(".part")
    if is_offline():
        raise InputError(
            "this dataset has not been fetched before, and FEATSTORE_OFFLINE forbids it",
            where=wanted.url,
            todo="unset FEATSTORE_OFFLINE once",
        )
    problem: object = None
    label = f"fetch {archive.stem} ({round(wanted.size / MEGABYTE)} MB)"
    with progress(label, round(wanted.size / MEGABYTE), "MB") as advance:
        show = in_megabytes(advance)
        for _ in range(TRIES):
            have = part.stat().st_size if part.exists() else 0
            if have >= wanted.size:
                break
            try:
                _receive(wanted, part, have, show)
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                problem = getattr(error, "reason", None) or error
    have = part.stat().st_size if part.exists() else 0
    if have < wanted.size:
        raise InputError(
            "this dataset cannot be fetched",
            where=wanted.url,
            expected=f"{wanted.size} bytes",
            received=f"{have} bytes; {problem or 'the connection ended early'}",
            todo="try again where the internet is open: what came so far is kept",
        )
    if have > wanted.size:
        part.unlink()
        raise _another_file(wanted, f"more than {wanted.size} bytes")
    os.replace(part, archive)


def _receive(wanted: Published, part: Path, have: int, show: Callable[[int], None]) -> None:
    """Append what the server sends to ``part``, up to one byte too many; begin anew where it cannot go on."""
    request = urllib.request.Request(wanted.url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - fixed https URLs
        goes_on = response.status == 206 and str(response.headers.get("Content-Range", "")).startswith(f"bytes {have}-")
        with part.open("ab" if goes_on else "wb") as file:
            left = wanted.size + 1 - (have if goes_on else 0)
            while left > 0 and (chunk := response.read(min(_CHUNK, left))):
                file.write(chunk)
                left -= len(chunk)
                show(file.tell())


def _check_hash(archive: Path, name: str) -> tuple[str, bool]:
    """The archive's SHA-256, and whether it was known; raises DamageError if it is another one than it was."""
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    with suppress(FileNotFoundError):
        before = _hash_file(archive).read_text().strip()
        if before != found:
            archive.unlink()
            raise DamageError(
                "this is another archive than the one that was fetched before",
                where=name,
                expected=f"SHA-256 {before}",
                received=f"SHA-256 {found}",
                todo=f"fetch it again; if it was published anew, delete {_hash_file(archive)}",
            )
        return found, True
    return found, False


def _hash_file(archive: Path) -> Path:
    return archive.with_suffix(".sha256")


def _unpack(archive: Path, wanted: Published, target: Path) -> None:
    """Unpack the images alone, under plain names, into a private folder, which gets its name when all are there."""
    private = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with zipfile.ZipFile(archive) as file:
            for entry in _entries(file, wanted):
                place = private / Path(entry.filename).relative_to(wanted.root)
                place.parent.mkdir(parents=True, exist_ok=True)
                with file.open(entry) as source, place.open("xb") as out:
                    shutil.copyfileobj(source, out, _CHUNK)
        os.rename(private, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        archive.unlink(missing_ok=True)
        raise _another_file(wanted, error) from error
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _entries(file: zipfile.ZipFile, wanted: Published) -> list[zipfile.ZipInfo]:
    """The images that there have to be, each once, none larger than all of them together may be."""
    found: dict[str, list[zipfile.ZipInfo]] = {folder: [] for folder in wanted.counts}
    for entry in file.infolist():
        folder, _, name = entry.filename.removeprefix(f"{wanted.root}/").rpartition("/")
        is_image = name.lower().endswith((".jpg", ".jpeg")) and not name.startswith(".")
        if entry.filename.startswith(f"{wanted.root}/") and folder in found and is_image:
            found[folder].append(entry)
    counts = {folder: len({entry.filename for entry in entries}) for folder, entries in found.items()}
    entries = [entry for several in found.values() for entry in several]
    if counts != dict(wanted.counts) or len(entries) != sum(wanted.counts.values()):
        raise zipfile.BadZipFile(f"images by folder: {counts}")
    if (size := sum(entry.file_size for entry in entries)) > 4 * wanted.size:
        raise zipfile.BadZipFile(f"it unpacks to {size} bytes")
    if refused := next(filter(None, map(refused_method, entries)), None):
        raise zipfile.BadZipFile(f"it has an entry {refused}")
    return entries


def _another_file(wanted: Published, received: object) -> DamageError:
    return DamageError(
        "what came is not the published dataset",
        where=wanted.url,
        expected=f"a zip of {wanted.size} bytes with {dict(wanted.counts)}",
        received=received,
        todo="try again; if it stays so, the dataset was changed where it is published",
    )
