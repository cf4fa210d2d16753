"""Heads: cheap classifiers on cached features. The public door; importing it loads no heavy library."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Bundle": "bundle",
    "predict_files": "compose",
    "read_bundle": "bundle",
    "train_on": "compose",
}

__all__ = ["Bundle", "predict_files", "read_bundle", "train_on"]

if TYPE_CHECKING:
    from heads.bundle import Bundle, read_bundle
    from heads.compose import predict_files, train_on


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use (PEP 562), so that the door itself stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'heads' has no attribute {name!r}")
    return getattr(import_module(f"heads.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
