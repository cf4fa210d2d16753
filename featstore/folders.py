"""Where things live: the store and the caches of the person who runs featstore."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """The user's cache folder for featstore (``$XDG_CACHE_HOME/featstore`` on Linux): weights and converted graphs."""
    return Path(platformdirs.user_cache_dir("featstore", appauthor=False))


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
    return (Path(home).expanduser() if home else cache_folder() / "mirrors") / name


def is_offline() -> bool:
    """True if ``$FEATSTORE_OFFLINE`` forbids downloads: any value but empty, 0, false, no and off."""
    return os.environ.get("FEATSTORE_OFFLINE", "").lower() not in ("", "0", "false", "no", "off")
