"""Where things live: the store and the caches of the person who runs featstore."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """The user's cache folder for featstore (``$XDG_CACHE_HOME/featstore`` on Linux): weights and converted graphs."""
    return Path(platformdirs.user_cache_dir("featstore", appauthor=False))


def default_store() -> Path:
    """The store used when none is named: ``$FEATSTORE_HOME``, else ``store`` in the cache folder."""
    home = os.environ.get("FEATSTORE_HOME")
    return Path(home).expanduser() if home else cache_folder() / "store"


def is_offline() -> bool:
    """True if ``$FEATSTORE_OFFLINE`` forbids downloads: any value but empty, 0, false, no and off."""
    return os.environ.get("FEATSTORE_OFFLINE", "").lower() not in ("", "0", "false", "no", "off")
