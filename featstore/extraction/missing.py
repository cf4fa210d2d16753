"""What a store held for a job when a run began, and so what the run has to compute."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from featstore.augmentation import Policy
from featstore.cached import CachedRows
from featstore.dataset import Dataset
from featstore.extraction.reader import Picture
from featstore.job import Job
from featstore.records import SPLITS, Digests
from featstore.store import Store


class Missing:
    """The rows that ``job`` asks for and ``store`` lacks, as of now: what is written later changes nothing. Safe to use
    from several threads. With ``retry_rejected`` rejects count as lacking.
    """

    def __init__(self, job: Job, store: Store, *, retry_rejected: bool = False) -> None:
        self.job = job
        self.rows = CachedRows(store, job.spec, lookups_only=True)
        self.retry_rejected = retry_rejected
        self._policy = Policy.from_text(job.spec.augmentation) if job.spec.augmentation else None

    def status(self, digests: Digests) -> npt.NDArray[np.int16]:
        """For each view and digest, (V, N): -1 no row, 0 features, above 0 the number of the reject's Reason."""
        return np.stack([self.rows.lookup(digests, view) for view in self.job.views])

    def __call__(self, digests: Digests) -> npt.NDArray[np.bool_]:
        """For each view and digest, (V, N), whether the row is missing."""
        status = self.status(digests)
        return np.asarray(status != 0 if self.retry_rejected else status == -1)

    def pictures(self, digest: bytes) -> frozenset[Picture]:
        """The views whose rows are missing."""
        missing = self(np.frombuffer(digest, np.uint8).reshape(1, -1))[:, 0]
        views = np.array(self.job.views)[missing].tolist()
        return frozenset(Picture(self.job.spec.pixels, view, self._policy) for view in views)

    def asked(self, dataset: Dataset, index: int, digest: bytes) -> frozenset[Picture]:
        """The same for the image at ``index``: nothing if the job is not about the image's split."""
        is_asked = self.job.splits == SPLITS or dataset.split_at(index, digest) in self.job.splits
        return self.pictures(digest) if is_asked else frozenset()
