"""Heads: cheap classifiers on cached features. The public door; importing it loads no heavy library."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Bundle": "bundles.bundle",
    "Client": "service.client",
    "Comparison": "training.results",
    "TrainOptions": "training.train",
    "evaluate_on": "evaluate",
    "predict_files": "apply",
    "read_bundle": "bundles.bundle",
    "submit_files": "submit",
    "sweep_on": "compose",
    "train_on": "compose",
}

__all__ = [
    "Bundle",
    "Client",
    "Comparison",
    "TrainOptions",
    "evaluate_on",
    "predict_files",
    "read_bundle",
    "submit_files",
    "sweep_on",
    "train_on",
]

if TYPE_CHECKING:
    from heads.apply import predict_files
    from heads.bundles.bundle import Bundle, read_bundle
    from heads.compose import sweep_on, train_on
    from heads.evaluate import evaluate_on
    from heads.service.client import Client
    from heads.submit import submit_files
    from heads.training.results import Comparison
    from heads.training.train import TrainOptions


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use (PEP 562), so that the door itself stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'heads' has no attribute {name!r}")
    return getattr(import_module(f"heads.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
