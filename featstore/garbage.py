"""What a store could do without: damaged segments set aside, leftovers, and rows of images that nobody has any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.dataset import Dataset
from featstore.errors import InputError
from featstore.progress import Progress, silent
from featstore.records import Digests, Reason, as_text
from featstore.scan import digest_all, lost_caches
from featstore.store import Store, compact
from featstore.wording import counted


@dataclass(frozen=True, slots=True)
class GarbageReport:
    """What was removed, or would be: segments in quarantine, private leftovers of killed processes, stat caches of
    places that are gone, rows of other images than those to keep; and the bytes that all this took.
    """

    quarantined: int
    leftovers: int
    caches: int
    rows: int
    bytes: int
    dry_run: bool

    def to_json(self) -> dict[str, Any]:
        """The object that ``featstore store gc --json`` prints."""
        return asdict(self)


def collect(
    store: Store, keep: Sequence[Dataset] = (), *, dry_run: bool = False, progress: Progress = silent
) -> GarbageReport:
    """Remove what serves no row and, with ``keep``, the rows of all images that are in none of these datasets.

    It may run beside anything else. ``dry_run`` only counts; of rows, the bytes of their features.

    Raises
    ------
    InputError : an image to keep cannot be read, or a place cannot be looked at where some may be, so that their rows
        would go with the others; or the store leads elsewhere.
    ReadOnlyError, NoSpaceError, StorageError : the store cannot be changed.
    """
    store.check_folders()
    wanted = _Kept(store, keep, progress) if keep else None
    quarantined, unfinished, caches = store.quarantined(), store.leftovers(), lost_caches(store.scan_folder)
    files = [*quarantined, *unfinished, *caches]
    freed = sum(map(store.place.bytes_of, files))
    rows = 0
    if not dry_run:
        for file in files:  # first: on a full disk it makes room for what follows
            store.place.remove([file], file.parent)
    if wanted is not None and dry_run:
        rows, size = _not_wanted(store, wanted)
        freed += size
    elif wanted is not None:
        done = compact(store, wanted=wanted, progress=progress)
        rows, freed = done.dropped, freed + done.bytes_before - done.bytes_after
    return GarbageReport(len(quarantined), len(unfinished), len(caches), rows, freed, dry_run)


class _Kept:
    """Which digests are of images to keep."""

    def __init__(self, store: Store, keep: Sequence[Dataset], progress: Progress) -> None:
        each = []
        for dataset in keep:
            if dataset.unseen:
                raise InputError(
                    f"{counted(dataset.unseen, 'place')} of what to keep cannot be looked at",
                    where=dataset.source.location,
                    received="; ".join(dataset.notes),
                    todo="mount what they lead to, or remove them: rows of images behind them would be dropped",
                )
            found = digest_all(dataset, store.scan_folder, progress=progress)
            lost = [i for i, reject in found.rejects.items() if reject.reason is not Reason.FILE_TOO_LARGE]
            if lost:
                raise InputError(
                    f"{counted(len(lost), 'image')} to keep cannot be read",
                    where=dataset.source.location,
                    received=f"the first is {dataset.paths[min(lost)]}",
                    todo="make it readable or move it away: its rows would be dropped",
                )
            each.append(found.values[found.known])
        self._sorted = np.unique(as_text(np.concatenate(each)))

    def __call__(self, digests: Digests) -> npt.NDArray[np.bool_]:
        return np.isin(as_text(digests), self._sorted)


def _not_wanted(store: Store, wanted: _Kept) -> tuple[int, int]:
    """How many rows would be dropped, and the bytes of their features."""
    rows = size = 0
    for namespace in store.namespaces():
        for segment, served in namespace.snapshot(read_data=False).parts():
            going = int(np.count_nonzero(~(served & wanted(segment.digests))))
            rows += going
            width = int(np.prod(segment.feature_shape or (0,)))
            size += going * width * np.dtype(namespace.spec.dtype).itemsize
    return rows, size
