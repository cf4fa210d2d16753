"""Extraction: run frozen bases once over the images that the store does not know yet.

One stage a file: reader (threads: read, digest, decode) → lane (one a spec: batch, backbone, rows) → report.
``run`` joins them and holds no knowledge of files, pixels, graphs or HDF5.
"""

from featstore.extraction.lane import MemorySink, compute_rows
from featstore.extraction.ledger import write_ledger
from featstore.extraction.profile import Profile, profile
from featstore.extraction.report import ExtractReport, RejectedImage, SpecReport
from featstore.extraction.run import Extraction, ExtractOptions, extract

__all__ = [
    "ExtractOptions",
    "ExtractReport",
    "Extraction",
    "MemorySink",
    "Profile",
    "RejectedImage",
    "SpecReport",
    "compute_rows",
    "extract",
    "profile",
    "write_ledger",
]
