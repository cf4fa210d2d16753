"""featstore: run a frozen convolutional base over your images once, keep the features, train heads in seconds.

The public door. Importing it loads none of the heavy libraries.

>>> import featstore
>>> table = featstore.load_table("photos/", backbone="vgg16", split="train")  # doctest: +SKIP
>>> table.X.shape, table.y.shape, table.classes  # doctest: +SKIP
((1000, 512), (1000,), ('cats', 'dogs'))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Batches": "shuffling",
    "Dataset": "dataset",
    "DatasetOptions": "dataset",
    "ExtractOptions": "extraction",
    "Extraction": "extraction",
    "FeatstoreError": "errors",
    "FeatureExtractor": "transformer",
    "Request": "job",
    "Spec": "spec",
    "Store": "store",
    "Table": "table",
    "batches": "api",
    "extract": "api",
    "load_table": "api",
    "load_tables": "api",
    "open_dataset": "dataset",
    "plan": "api",
}

__all__ = [
    "Batches",
    "Dataset",
    "DatasetOptions",
    "ExtractOptions",
    "Extraction",
    "FeatstoreError",
    "FeatureExtractor",
    "Request",
    "Spec",
    "Store",
    "Table",
    "__version__",
    "batches",
    "extract",
    "load_table",
    "load_tables",
    "open_dataset",
    "plan",
]

if TYPE_CHECKING:
    from featstore.api import batches, extract, load_table, load_tables, plan
    from featstore.dataset import Dataset, DatasetOptions, open_dataset
    from featstore.errors import FeatstoreError
    from featstore.extraction import Extraction, ExtractOptions
    from featstore.job import Request
    from featstore.shuffling import Batches
    from featstore.spec import Spec
    from featstore.store import Store
    from featstore.table import Table
    from featstore.transformer import FeatureExtractor


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use (PEP 562), so that the door itself stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'featstore' has no attribute {name!r}")
    return getattr(import_module(f"featstore.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
