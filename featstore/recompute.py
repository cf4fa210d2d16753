"""Checking a store: what is on disk, and for a sample of rows whether this machine still computes them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featstore.dataset import Dataset, open_dataset
from featstore.errors import InputError
from featstore.extraction import MemorySink, extract
from featstore.job import Job
from featstore.machine import choose_runtime
from featstore.progress import Progress, silent
from featstore.records import DIGEST_BYTES, Digests
from featstore.scan import digest_all, known_files
from featstore.spec import Spec
from featstore.store import Namespace, Store, VerifyReport, verify
from featstore.weights import cached_base

_Located = tuple[Digests, Callable[[npt.NDArray[np.intp]], Dataset]]
"""Digests (M, 32) of images, and what makes a dataset of those at some indices."""

_LEAST_COSINE = {"float32": 0.99999, "bfloat16": 0.995, "float16": 0.995, "int8": 0.9}
"""Below this two rows are not the same features any more; library and CPU updates stay far above."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How far rows computed now are from those stored in one namespace.

    ``rows`` were compared; ``cosine`` is the least between a stored row and its new one, ``relative`` the largest
    difference of two numbers by the row's largest. ``problem`` is None if all is well, or if nothing was compared (then
    ``note`` says why).
    """

    fingerprint: str
    backbone: str
    rows: int
    cosine: float | None
    relative: float | None
    problem: str | None
    note: str

    def __str__(self) -> str:
        """One line for people."""
        name = f"{self.backbone} {self.fingerprint[:12]}"
        if self.cosine is None or self.relative is None:
            return f"{name}: {self.problem or f'not recomputed: {self.note}'}"
        verdict = self.problem or "the same features"
        drift = f"cosine ≥ {self.cosine:.6f}, relative ≤ {self.relative:.1e}"
        return f"{name}: {self.rows} rows recomputed, {drift}: {verdict}"


@dataclass(frozen=True, slots=True)
class StoreCheck:
    """What :func:`verify_store` found."""

    report: VerifyReport
    drifts: tuple[Drift, ...]

    @property
    def sound(self) -> bool:
        """True if nothing is damaged and every recomputed row agrees."""
        return self.report.sound and all(drift.problem is None for drift in self.drifts)

    def to_json(self) -> dict[str, Any]:
        """The object that ``featstore store verify --json`` prints."""
        return {**self.report.to_json(), "sound": self.sound, "recomputed": [asdict(drift) for drift in self.drifts]}


def verify_store(
    store: Store,
    *,
    read_data: bool = False,
    recompute: int = 0,
    data: str | Path | None = None,
    progress: Progress = silent,
) -> StoreCheck:
    """Check a store (see :func:`featstore.store.verify`) and compute ``recompute`` rows of every namespace again.

    The images are found where they were last seen, or in ``data``. Nothing in the store changes.
    """
    if not store.exists:
        raise InputError("there is no store here", where=store.location, todo="name its folder with --store")
    report = verify(store, read_data=read_data, progress=progress)
    if not recompute:
        return StoreCheck(report, ())
    located = _locate(store, data)
    drifts = [_drift(namespace, recompute, located, progress) for namespace in store.namespaces() if namespace.exists]
    return StoreCheck(report, tuple(drifts))


def _drift(namespace: Namespace, count: int, located: _Located, progress: Progress) -> Drift:
    spec = namespace.spec
    base = cached_base(spec.backbone, spec.weights)
    if base is None:
        return _nothing(spec, "its weights are not in the cache: featstore weights pull")
    view = 1 if spec.augmentation else 0
    sample = _sample(namespace, count, located, view)
    if sample is None:
        return _nothing(spec, "none of its images is where it was last seen: pass --data DATA")
    dataset, digests = sample
    job, memory = Job(base, spec, choose_runtime(), views=(view,)), MemorySink()
    try:
        with tempfile.TemporaryDirectory() as nowhere:
            done = extract(dataset, [job], Store.open(nowhere), progress=progress, memory=memory)
    except InputError as error:  # a precision of another machine, say: the other namespaces still count
        return _nothing(spec, error.what)
    same = (done.digests == digests).all(axis=1)
    if (rejected := same & (done.reasons[0] != 0)).any():
        return replace(_nothing(spec, ""), problem=f"{rejected.sum()} images with features are rejected now")
    kept = np.array([(digest.tobytes(), view) in memory.rows for digest in digests], dtype=bool)
    if not kept.any():
        return _nothing(spec, "its images have changed since: pass --data DATA")
    new = np.stack([memory.rows[digest.tobytes(), view] for digest in digests[kept]])
    return _compare(spec, namespace.snapshot().read(digests[kept], view), new)


def _sample(namespace: Namespace, count: int, located: _Located, view: int) -> tuple[Dataset, Digests] | None:
    """Up to ``count`` images that have features here, those with the smallest digests, and their digests."""
    digests, select = located
    if not len(digests):
        return None
    _, first = np.unique(digests, axis=0, return_index=True)  # in ascending order of the digest
    chosen = first[namespace.snapshot().lookup(digests[first], view) == 0][:count]
    return (select(chosen), digests[chosen]) if len(chosen) else None


def _locate(store: Store, data: str | Path | None) -> _Located:
    """Digests (M, 32) of images whose place is known, and what makes a dataset of some of them."""
    if data is not None:
        dataset = open_dataset(data)
        return digest_all(dataset, None).values, dataset.select
    files = known_files(store.scan_folder)
    paths = list(files.values())
    digests = np.frombuffer(b"".join(files), np.uint8).reshape(-1, DIGEST_BYTES)
    return digests, lambda chosen: open_dataset([paths[i] for i in chosen])


def _compare(spec: Spec, stored: npt.NDArray[np.floating], new: npt.NDArray[np.floating]) -> Drift:
    a = stored.reshape(len(stored), -1).astype(np.float64)
    b = new.reshape(len(new), -1).astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = float(np.where(norms > 0, (a * b).sum(axis=1) / np.where(norms > 0, norms, 1), (a == b).all(axis=1)).min())
    scale = np.maximum(np.abs(a).max(axis=1), np.finfo(np.float32).tiny)
    relative = float((np.abs(a - b).max(axis=1) / scale).max())
    least = _LEAST_COSINE[spec.precision]
    problem = None if cosine >= least else f"not the same features (least cosine allowed {least})"
    return Drift(spec.fingerprint, spec.backbone, len(a), cosine, relative, problem, "")


def _nothing(spec: Spec, why: str) -> Drift:
    return Drift(spec.fingerprint, spec.backbone, 0, None, None, None, why)
