"""The store: rows of features on disk, addressed by the content of the image and the spec. See docs/FORMAT.md.

>>> store = Store.open("features")  # doctest: +SKIP
>>> with store.namespace(spec).writer({"featstore": "0.1.0"}) as writer:  # doctest: +SKIP
...     writer.add(digest, 0, features)
>>> snapshot = store.namespace(spec).snapshot()  # doctest: +SKIP
>>> snapshot.lookup(digests)  # doctest: +SKIP
array([ 0,  0, -1], dtype=int16)

Cheap to import: HDF5 is loaded once a segment is opened or written. Exporting is in :mod:`featstore.store.export`.
"""

from featstore.store.checked import MAX_CHECKED
from featstore.store.compact import CompactReport, compact, segments_after
from featstore.store.namespace import Namespace, Summary
from featstore.store.place import Place
from featstore.store.rows import (
    BYTES_PER_COMMIT,
    FORMAT_VERSION,
    KEY_BYTES,
    ROWS_PER_COMMIT,
    SECONDS_PER_COMMIT,
    Damage,
    Rows,
)
from featstore.store.snapshot import Snapshot
from featstore.store.store import Store
from featstore.store.verify import VerifyReport, verify
from featstore.store.writer import Writer

__all__ = [
    "BYTES_PER_COMMIT",
    "FORMAT_VERSION",
    "KEY_BYTES",
    "MAX_CHECKED",
    "ROWS_PER_COMMIT",
    "SECONDS_PER_COMMIT",
    "CompactReport",
    "Damage",
    "Namespace",
    "Place",
    "Rows",
    "Snapshot",
    "Store",
    "Summary",
    "VerifyReport",
    "Writer",
    "compact",
    "segments_after",
    "verify",
]
