"""How fast this machine has been: the measured rates that a plan's estimate of time rests on."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass

from featstore import machine
from featstore.errors import FeatstoreError
from featstore.job import Job
from featstore.store import Store
from featstore.whole import read_small, write_whole

_FILE = "rates.json"
_MAX_BYTES = 2**20
_BELIEVED = (1e-6, 1e9)
"""Images a second between which a rate is believed: an image in twelve days, and more than any machine can read."""
_NOMINAL_GFLOPS = {"float32": 60.0, "bfloat16": 130.0, "float16": 130.0, "int8": 250.0}
"""GFLOP/s of one server core: a guess for the first run only, said to be one."""

_GFLOP = {
    "vgg16": 30.7,
    "vgg19": 39.0,
    "xception": 16.8,
    "resnet50": 7.7,
    "resnet50v2": 7.0,
    "inceptionv3": 11.4,
    "mobilenetv2": 0.6,
    "densenet121": 5.7,
    "efficientnetb0": 0.8,
    "efficientnetv2b0": 1.4,
    "convnexttiny": 8.9,
}
"""Operations of one image at the base's own size, twice the multiply-adds that its paper gives, in units of 10⁹."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Images a second, and what the figure rests on."""

    images_per_second: float
    basis: str


def _key(job: Job) -> str:
    spec = job.spec
    size = "x".join(map(str, spec.image_size))
    return f"{spec.backbone} {spec.layer} {size} {spec.precision} {job.runtime}"


def estimate(job: Job, store: Store) -> Rate | None:
    """The rate of the last run here, else a rough one from the base's operations; None if neither is known."""
    measured = _read(store).get(_key(job))
    if measured:
        return Rate(measured, "measured in an earlier run")
    gflop = _GFLOP.get(job.spec.backbone)
    if gflop is None:
        return None
    area = job.spec.image_size[0] * job.spec.image_size[1] / job.base.backbone.default_size**2
    speed = _NOMINAL_GFLOPS[job.spec.precision] * machine.describe().cores
    return Rate(speed / (gflop * area), "a rough guess before the first run")


def is_measured(job: Job, store: Store) -> bool:
    """Whether :func:`estimate` rests on a run here."""
    return _key(job) in _read(store)


def record(job: Job, store: Store, images_per_second: float) -> None:
    """Remember a measured rate. Derived data: a store that cannot be written goes without."""
    if not store.exists or images_per_second <= 0:
        return
    known = {**_read(store), _key(job): images_per_second}
    with suppress(FeatstoreError):
        write_whole(store.scan_folder / _FILE, "keep a rate", json.dumps(known, indent=1, sort_keys=True).encode())


def _read(store: Store) -> dict[str, float]:
    try:
        slowest, fastest = _BELIEVED
        data = json.loads(read_small(store.scan_folder / _FILE, _MAX_BYTES))
        return {str(k): float(v) for k, v in data.items() if isinstance(v, int | float) and slowest <= v <= fastest}
    except (OSError, ValueError, AttributeError, OverflowError, RecursionError):  # lost or damaged: nothing is known
        return {}
