"""From a folder, a manifest, a zip or a list of files to an ordered list of images with ids, labels and splits."""

from featstore.dataset.dataset import Dataset, DatasetOptions
from featstore.dataset.manifest import MAX_LINES
from featstore.dataset.opening import open_dataset
from featstore.dataset.sources import Source
from featstore.dataset.trainable import missing_classes, require_decodable, require_trainable

__all__ = [
    "MAX_LINES",
    "Dataset",
    "DatasetOptions",
    "Source",
    "missing_classes",
    "open_dataset",
    "require_decodable",
    "require_trainable",
]
