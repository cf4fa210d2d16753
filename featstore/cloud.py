"""Places beyond the local disk, named by a URL (``s3://bucket/folder``): objects that are read, and written whole.

fsspec does the talking, and is loaded once such a place is named; what each kind of place takes beside it (s3fs,
gcsfs) is looked for then.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from featstore.errors import FeatstoreError, InputError, ReadOnlyError, StorageError
from featstore.objects import below, pages, stamp_of
from featstore.records import Stamp

_URL = re.compile(r"[a-z][a-z0-9+.-]+://")
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}

_RETRIES = {"mode": "standard", "total_max_attempts": 3}
_S3: Mapping[str, object] = {"config_kwargs": {"connect_timeout": 5, "read_timeout": 20, "retries": _RETRIES}}
_OPTIONS = {"s3": _S3, "s3a": _S3}
"""How long an answer is waited for (seconds), and how often it is asked for: three times where a connection cannot be
had or the storage is in trouble, by s3fs five times as often where one breaks. By itself it would wait half an hour.
"""

_PAUSES = (0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds between the tries to create an object that somebody else is creating at the same instant."""

_CONFLICT = 409
"""What S3 answers then; nobody below tries again."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def is_url(place: str) -> bool:
    """Whether ``place`` is named by a URL, and not by a path."""
    return _URL.match(place) is not None


def local_path(place: str) -> str:
    """The path that a ``file://`` URL stands for; anything else as it is."""
    if not place.startswith("file://"):
        return place
    return unquote(urlsplit(place).path)


def joined(place: str, path: str) -> str:
    """What lies at ``path`` below ``place``, a URL or a folder, for people."""
    return f"{place.rstrip('/')}/{path}" if is_url(place) else str(Path(place, path))


@dataclass(frozen=True, slots=True)
class Bucket:
    """The objects below a URL, by their names relative to it: ``seg/0123.h5``. Safe in threads and across processes.

    What is written is there whole or not at all, and on more than one disk once it is acknowledged, as object storage
    has it. Every method raises ReadOnlyError (no permission) or StorageError (it cannot be reached, even after some
    tries), and those that need an object FileNotFoundError.
    """

    url: str

    @classmethod
    def at(cls, url: str) -> Bucket:
        """The objects below ``url``. Raises InputError if nothing here can talk to such a place."""
        bucket = cls(url.rstrip("/"))
        _connected(bucket.url)
        return bucket

    def folder(self, name: str = "") -> dict[str, Stamp | None]:
        """What lies right below the folder ``name``: objects with their stamps, folders with None; all by name.

        Objects whose names no path of a file system can be (``a//b``, ``a/``) are below a folder without a name.
        """
        system, root = _connected(self.url)
        place = f"{root}/{name}".rstrip("/")
        found: dict[str, Stamp | None] = {}
        with self._reached("list", name):
            try:
                for page in pages(system, place):
                    found.update(below(place, page))
            except FileNotFoundError:
                return {}
        return found

    def page_seconds(self, name: str = "") -> float:
        """How long one request of a listing takes, the first page of a folder's, on a connection that is there."""
        system, root = _connected(self.url)
        with self._reached("list", name):
            started = time.perf_counter()
            next(pages(system, f"{root}/{name}".rstrip("/")), ())
            return time.perf_counter() - started

    def files(self) -> Iterator[tuple[str, Stamp]]:
        """All objects, folder by folder, of which one at a time is held; without those that stand for folders.

        In the place of what a folder without a name holds comes that folder.
        """
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            for name, stamp in self.folder(folder).items():
                path = f"{folder}/{name}" if folder else name
                if stamp is not None:
                    yield path, stamp
                elif name:
                    waiting.append(path)
                else:
                    yield f"{path}/", Stamp(0, 0, 0, 0)

    def stamp(self, name: str) -> Stamp:
        """What is known of an object without reading it."""
        system, root = _connected(self.url)
        with self._reached("look at", name):
            about = system.info(f"{root}/{name}")
        if about["type"] != "file":
            raise FileNotFoundError(2, "this is a folder", name)
        return stamp_of(about)

    def read(self, name: str, count: int) -> bytes:
        """The first ``count`` bytes of an object, or all if it has fewer."""
        system, root = _connected(self.url)
        with self._reached("read", name):
            try:
                data: bytes = system.cat_file(f"{root}/{name}", start=0, end=count)
            except OSError as error:
                if error.errno == errno.EINVAL and not system.info(f"{root}/{name}")["size"]:
                    return b""  # of no bytes, S3 gives no range
                raise
            return data

    def download(self, name: str, to: Path) -> None:
        """Write an object's bytes into the file ``to``. Raises OSError of the disk as it is."""
        system, root = _connected(self.url)
        with self._reached("read", name, leave=_of_the_disk):
            system.get_file(f"{root}/{name}", str(to))

    def create(self, name: str, data: bytes) -> bool:
        """Write an object; False, and nothing is written, if there is one of this name. Raises InputError, too: there
        is no such bucket.

        Of two that write it at the same instant S3 may tell one to try again, which is done here.
        """
        system, root = _connected(self.url)
        with self._reached("write", name), self._in_a_bucket():
            for pause in (*_PAUSES, None):
                try:
                    system.pipe_file(f"{root}/{name}", data, mode="create")
                except FileExistsError:
                    return False
                except OSError as error:
                    if pause is None or not _is_conflict(error):
                        raise
                    time.sleep(pause)
                else:
                    return True
        return False

    def replace(self, name: str, data: bytes) -> None:
        """Write an object, in the place of one that is there; errors as in :meth:`create`."""
        system, root = _connected(self.url)
        with self._reached("write", name), self._in_a_bucket():
            system.pipe_file(f"{root}/{name}", data)

    def copy(self, name: str, to: str) -> None:
        """Have an object under another name, too."""
        system, root = _connected(self.url)
        with self._reached("copy", name):
            system.copy(f"{root}/{name}", f"{root}/{to}")

    def remove(self, name: str) -> None:
        """Remove an object; one that is not there is no error."""
        system, root = _connected(self.url)
        with self._reached("remove", name):
            try:
                system.rm_file(f"{root}/{name}")
            except FileNotFoundError:
                return

    @contextmanager
    def _in_a_bucket(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise InputError(
                f"there is no such bucket: {_line(error)}",
                where=self.url,
                todo="correct the address, or make the bucket",
            ) from error

    @contextmanager
    def _reached(self, doing: str, name: str, leave: Callable[[Exception], bool] = lambda _: False) -> Iterator[None]:
        """Turn what the libraries below raise into typed errors, but for FileNotFoundError and what is to be left."""
        where = joined(self.url, name) if name else self.url
        try:
            yield
        except (FeatstoreError, FileNotFoundError):
            raise
        except PermissionError as error:
            raise ReadOnlyError(
                f"cannot {doing} this: {_line(error)}",
                where=where,
                todo="check the credentials that this machine uses, and what they allow",
            ) from error
        except Exception as error:  # each of the libraries has errors of its own, and those of the ones below it
            if leave(error):
                raise
            raise StorageError(
                f"cannot {doing} this: {_line(error)}",
                where=where,
                todo="check the address, the network and the credentials, and run the same command again: everything "
                "committed so far is kept",
            ) from error


def _is_conflict(error: OSError) -> bool:
    """Whether S3 says that somebody else is at the same object now; s3fs passes on what boto has heard."""
    heard = getattr(error.__cause__, "response", {}).get("ResponseMetadata", {})
    return bool(heard.get("HTTPStatusCode") == _CONFLICT)


def _of_the_disk(error: Exception) -> bool:
    """The errors of the libraries may be OSErrors, too, but name no file, as one of the disk does; but for a full one,
    which a file that is open already meets.
    """
    return isinstance(error, OSError) and (error.filename is not None or error.errno in _FULL)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _connected(url: str) -> tuple[Any, str]:
    """The file system of ``url``, which remembers no listing, and what the place is called in it."""
    return _connected_in(os.getpid(), url)  # a connection does not outlive a fork


@lru_cache(maxsize=16)
def _connected_in(_: int, url: str) -> tuple[Any, str]:
    scheme = url.partition("://")[0]
    package = _PACKAGES.get(scheme)
    try:
        import fsspec
    except ImportError as error:
        raise _lacking(url, package or "fsspec") from error
    given = fsspec.config.conf.get(scheme, {})
    options = {name: value for name, value in _OPTIONS.get(scheme, {}).items() if name not in given}
    try:
        system, root = fsspec.url_to_fs(url, use_listings_cache=False, **options)
    except ImportError as error:
        raise _lacking(url, package or f"fsspec's package for {scheme}://") from error
    except ValueError as error:
        raise InputError(
            "nothing here can talk to such a place",
            where=url,
            expected="a folder, s3://… or gs://…",
            received=str(error),
        ) from error
    except Exception as error:  # of kinds of places that are called at once: see Bucket._reached
        raise StorageError(f"cannot reach this place: {_line(error)}", where=url, todo="check the address") from error
    return system, root.rstrip("/")


def _lacking(url: str, package: str) -> InputError:
    return InputError(
        f"this place needs {package}, which is not installed",
        where=url,
        todo=f'pip install {package} (the extra "cloud" has it)',
    )
