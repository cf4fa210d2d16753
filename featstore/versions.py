"""Which versions made a row: recorded in every segment, never part of its identity."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("featstore", "numpy", "pillow", "h5py", "keras", "tensorflow", "openvino")


@cache
def installed_versions() -> Mapping[str, str]:
    """Package name → version of everything installed here that takes part in a row; imports none of it."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
