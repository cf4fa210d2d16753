"""From what a person asks for to what is computed: a request, its weights, and so its exact spec."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from featstore import machine
from featstore.augmentation import DEFAULT_POLICY, MAX_VIEWS, parse_policy
from featstore.backbone import GraphSpec
from featstore.cached import CachedRows
from featstore.calibration import calibration_for
from featstore.catalog import check_image_size
from featstore.dataset import Dataset
from featstore.errors import InputError
from featstore.progress import Progress, silent
from featstore.records import SPLITS, Digests
from featstore.scan import digest_all
from featstore.spec import Fit, Pooling, Precision, Preprocessing, Resize, Spec, StoredDtype
from featstore.store import Store
from featstore.weights import Base, cached_base, resolve


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asks for; None and "auto" are settled by :func:`resolve_jobs`.

    ``image_size`` is pixels: one number for a square, or (height, width). ``views`` is how many views each training
    image gets, itself (view 0) among them; ``augment`` is the policy of the others, by name or as ``name=value,…``.
    """

    backbone: str
    weights: str = "imagenet"
    layer: str | None = None
    image_size: int | tuple[int, int] | None = None
    resize: Resize = "bilinear"
    fit: Fit = "stretch"
    preprocessing: Preprocessing = "keras"
    precision: Precision | Literal["auto"] = "auto"
    pooling: Pooling = "avg"
    dtype: StoredDtype = "float32"
    runtime: str = "auto"
    device: str | None = None
    views: int = 1
    augment: str = DEFAULT_POLICY

    def __post_init__(self) -> None:
        """Check the views; raises InputError."""
        if not 1 <= self.views <= MAX_VIEWS:
            raise InputError(
                "this many views of an image cannot be made",
                where="--views",
                expected=f"1 (the image alone) to {MAX_VIEWS}",
                received=self.views,
            )

    @property
    def augmentation(self) -> str | None:
        """The policy's canonical text; None if there is no view but the image itself. Raises InputError."""
        return parse_policy(self.augment).to_text() if self.views > 1 else None


def on_gpus(request: Request) -> Request:
    """The same asked of several GPUs, on which TensorFlow computes; raises InputError if it asks for anything else."""
    if request.device is not None or request.runtime == "openvino":
        asked = "--runtime openvino" if request.device is None else f"--device {request.device}"
        raise InputError(
            "these options do not go together",
            received=f"{asked}; --devices is of GPUs, which TensorFlow computes on",
            todo="leave one of them out",
        )
    return replace(request, runtime="tensorflow", device="gpu")


@dataclass(frozen=True, slots=True)
class Job:
    """A spec and what is needed to compute its rows. ``runtime`` is "openvino" or "tensorflow".

    Asked for are the ``views`` of the images of ``splits``: view 0 of all of them, or others of those to train on.
    """

    base: Base
    spec: Spec
    runtime: str
    device: str | None = None
    views: tuple[int, ...] = (0,)
    splits: tuple[str, ...] = SPLITS

    def asks(self, dataset: Dataset, digests: Digests) -> npt.NDArray[np.bool_]:
        """Which images it is about, bool (N,), given the digests of all, uint8 (N, 32)."""
        if self.splits == SPLITS:
            return np.ones(len(dataset), bool)
        return np.isin(dataset.split_of(digests), [SPLITS.index(split) for split in self.splits])


def parse_image_size(text: str | None) -> int | tuple[int, int] | None:
    """``150`` → 150, ``150x200`` → (150, 200) as (height, width); None stays None. Raises InputError."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise InputError(
            "this is no image size",
            where="--image-size",
            expected="pixels: 150, or 150x200 (height x width)",
            received=text,
        )
    numbers = [int(part) for part in parts]
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def resolve_jobs(
    requests: Iterable[Request],
    store: Store,
    dataset: Dataset,
    progress: Progress = silent,
    digests: Digests | None = None,
) -> tuple[Job, ...]:
    """Settle every request against the weights that are there, the rows that the store holds and the ``dataset``.

    A request for several views is two jobs: the images themselves, and the other views of those to train on.
    The dataset's ``digests`` (N, 32) are taken if need be: where a precision has to be chosen among several that the
    store already holds, or int8 to be calibrated. Raises InputError for anything unknown or impossible.
    """
    jobs = []
    images = _Images(dataset, store, digests)
    for request in requests:
        augmentation = request.augmentation
        job = _resolve(request, store, images, progress)
        jobs.append(job)
        if augmentation is not None:
            spec = job.spec.but(augmentation=augmentation)
            jobs.append(replace(job, spec=spec, views=tuple(range(1, request.views)), splits=("train",)))
    unique: dict[str, Job] = {}
    for job in jobs:
        known = unique.setdefault(job.spec.fingerprint, job)
        if len(job.views) > len(known.views):
            unique[job.spec.fingerprint] = job
    return tuple(unique.values())


def job_for(
    spec: Spec, backbone: str, weights: str = "imagenet", runtime: str = "auto", progress: Progress = silent
) -> Job:
    """The job that makes rows of exactly ``spec``, from the base asked for by ``backbone`` and ``weights``.

    Weights that are cached are found by their digest, whatever they were called. Raises InputError if those that are
    found are not the weights of the spec, as other weights would give other features, or if the spec's images are too
    small for the base: bundles may be anybody's, and pictures are decoded before the base is opened.
    """
    base = cached_base(spec.backbone, spec.weights) or resolve(backbone, weights, progress=progress)
    if (base.spec_name, base.digest) != (spec.backbone, spec.weights):
        raise InputError(
            "the weights are not the ones that these features were made with",
            where=f"--backbone {backbone} --weights {weights}",
            expected=f"{spec.backbone}, tensors {spec.weights[:16]}…",
            received=f"{base.spec_name}, tensors {base.digest[:16]}…",
            todo="give the weights that were used then",
        )
    check_image_size(base.backbone, spec.image_size)
    return Job(base, spec, machine.choose_runtime(runtime, spec.precision))


class _Images:
    """The images that are asked for, their digests taken once they are needed."""

    def __init__(self, dataset: Dataset, store: Store, digests: Digests | None) -> None:
        self.dataset, self._store, self._digests = dataset, store, digests

    @property
    def digests(self) -> Digests:
        """Uint8 (N, 32)."""
        if self._digests is None:
            self._digests = digest_all(self.dataset, self._store.scan_folder).values
        return self._digests


def _resolve(request: Request, store: Store, images: _Images, progress: Progress) -> Job:
    runtime = machine.choose_runtime(request.runtime, request.precision)
    if request.precision == "int8" and runtime != "openvino":  # before it is calibrated
        raise InputError("int8 is computed by OpenVINO", where="--runtime", expected="openvino", received=runtime)
    machine.check_device(request.device)
    if request.precision != "auto" and request.precision not in get_args(Precision):
        raise InputError(
            f"unknown precision {request.precision!r}",
            where="--precision",
            expected=f"auto, {', '.join(get_args(Precision))}",
        )
    base = resolve(request.backbone, request.weights, progress=progress)
    size = request.image_size or base.backbone.default_size
    image_size = (size, size) if isinstance(size, int) else size
    check_image_size(base.backbone, image_size)
    spec = Spec(
        backbone=base.spec_name,
        weights=base.digest,
        layer=base.layer(request.layer).name,
        image_size=image_size,
        resize=request.resize,
        fit=request.fit,
        preprocessing=request.preprocessing,
        pooling=request.pooling,
        dtype=request.dtype,
    )
    if request.precision == "auto":
        fastest = machine.fastest_safe_precision(runtime, request.device)
        spec = spec.but(precision=_choose_precision(spec, fastest, store, images))
    elif request.precision == "int8":
        graph = GraphSpec(base, spec.layer, image_size, spec.preprocessing, "map", "float32")
        found = calibration_for(graph, spec.pixels, images.dataset, images.digests, progress)
        spec = spec.but(precision="int8", calibration=found)
    else:
        spec = spec.but(precision=request.precision)
    return Job(base, spec, runtime, request.device)


def _choose_precision(spec: Spec, fastest: Precision, store: Store, images: _Images) -> Precision:
    """The precision that already holds most of the dataset, else the machine's ``fastest`` safe one.

    One that this machine cannot compute in (neither float32 nor ``fastest``) is chosen only if it holds everything.
    """
    held = [p for p in get_args(Precision) if p != "int8" and _rows(store, spec.but(precision=p))]
    if not held or held == [fastest]:
        return fastest
    known = images.digests
    counts = {p: int((CachedRows(store, spec.but(precision=p)).lookup(known) >= 0).sum()) for p in held}
    usable = [p for p in held if counts[p] and (p in ("float32", fastest) or counts[p] == len(known))]
    return max(usable, key=lambda p: (counts[p], p == fastest), default=fastest)


def _rows(store: Store, spec: Spec) -> bool:
    return any(store.namespace(s).exists for s in (spec, spec.but(pooling="map")))
