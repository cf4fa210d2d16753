"""Extraction: run frozen bases once over the images that the store does not know yet.

One stage a file: missing (what the store lacks) → reader (read, digest, decode) → lane (one a spec: batch, backbone,
rows) → sink → report. An engine joins reader and lanes, in this process or elsewhere; ``run`` plans, counts and
reports, and holds no knowledge of files, pixels, graphs or HDF5.
"""

from featstore.extraction.engines import engine_named
from featstore.extraction.lane import compute_rows
from featstore.extraction.ledger import check_ledger, write_ledger
from featstore.extraction.profile import Profile, profile
from featstore.extraction.report import ExtractReport, RejectedImage, SpecReport
from featstore.extraction.run import Extraction, ExtractOptions, extract
from featstore.extraction.sink import MemorySink

__all__ = [
    "ExtractOptions",
    "ExtractReport",
    "Extraction",
    "MemorySink",
    "Profile",
    "RejectedImage",
    "SpecReport",
    "check_ledger",
    "compute_rows",
    "engine_named",
    "extract",
    "profile",
    "write_ledger",
]
