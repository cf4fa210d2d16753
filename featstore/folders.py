"""Where things live: the store and the caches of the person who runs featstore."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import platformdirs

from featstore.errors import InputError


def cache_folder() -> Path:
    """The user's cache folder for featstore (``$XDG_CACHE_HOME/featstore`` on Linux): weights and converted graphs.

    Raises InputError if this user has no home.
    """
    try:
        return Path(platformdirs.user_cache_dir("featstore", appauthor=False))
    except RuntimeError as error:
        raise InputError(
            "this user has no home folder, so that there is no place for the caches of weights and graphs",
            where="$HOME",
            expected="an absolute path; for the caches alone $XDG_CACHE_HOME will do",
            received=os.environ.get("HOME") or "nothing, and nothing is known of such a user",
            todo="set one of them to a folder that you may write to",
        ) from error


def expanded(path: str) -> Path:
    """``path`` with the home that ``~`` or ``~name`` stands for. Raises InputError if there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(
            "nobody knows this home folder",
            where=path,
            expected="~ or ~name of a user who has one",
            received=Path(path).parts[0],
            todo="write the whole path, or ./ before it if that is its name",
        ) from error


def default_store() -> str:
    """The store used when none is named: ``$FEATSTORE_HOME``, else ``store`` in the cache folder."""
    return os.environ.get("FEATSTORE_HOME") or str(cache_folder() / "store")


def mirror_folder(url: str) -> Path:
    """Where copies of what a store at ``url`` holds are kept, below ``$FEATSTORE_MIRRORS``, else in the cache folder;
    no row is lost if they go. Behind another ``$AWS_ENDPOINT_URL`` a URL is another place.
    """
    home = os.environ.get("FEATSTORE_MIRRORS")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    name = hashlib.sha256("\n".join(filter(None, (url, endpoint))).encode()).hexdigest()[:32]
    return (expanded(home) if home else cache_folder() / "mirrors") / name


def is_offline() -> bool:
    """True if ``$FEATSTORE_OFFLINE`` forbids downloads: any value but empty, 0, false, no and off."""
    return os.environ.get("FEATSTORE_OFFLINE", "").lower() not in ("", "0", "false", "no", "off")
