"""What the benchmarks of extraction share: a base at a size, open before any clock starts; the same images for all
sides; and whether two sides computed the same.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import featstore
from featstore.backbone import GraphSpec
from featstore.errors import InputError
from featstore.extraction import lane
from featstore.job import Job, resolve_jobs
from featstore.runtime import Runtime
from featstore.weights import Base, resolve

_NEARER = 0.01

CASES = ("vgg16:150", "xception:150", "resnet50:224")


def base_of(backbone: str) -> tuple[Base, str]:
    """With ImageNet weights, or random ones if these cannot be had."""
    try:
        return resolve(backbone), "imagenet"
    except InputError:
        return resolve(backbone, "random:0"), "random:0"


@dataclass(frozen=True)
class Case:
    """A base at a size, with ImageNet weights or, if these cannot be had, with random ones."""

    base: Base
    weights: str
    size: int

    @classmethod
    def of(cls, words: str) -> Case:
        """Of ``vgg16:150``."""
        backbone, _, size = words.partition(":")
        base, weights = base_of(backbone)
        return cls(base, weights, int(size) if size else base.backbone.default_size)

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.base.backbone.name} ({self.weights}), {self.size} px"

    def request(self, precision: str = "auto") -> featstore.Request:
        """What is asked of featstore."""
        name = self.base.backbone.name
        return featstore.Request(name, weights=self.weights, image_size=self.size, precision=precision)

    def job(self, images: featstore.Dataset, precision: str = "auto") -> Job:
        """The same, settled; int8 is calibrated on images to train on, if it has not been."""
        with tempfile.TemporaryDirectory() as empty:
            [job] = resolve_jobs([self.request(precision)], featstore.Store.open(empty), images)
        return job

    def runtime(self, images: featstore.Dataset, precision: str = "auto") -> Runtime:
        """What an extraction computes with, and after `open_once` finds open."""
        job = self.job(images, precision)
        return lane.open_runtime(GraphSpec.of(job.base, job.spec), job.runtime, job.device)


def copied(found: featstore.Dataset, count: int, to: Path) -> Path:
    """``count`` images of all kinds as one class folder, named so that all sides read them in one order."""
    (to / "all").mkdir()
    chosen = np.linspace(0, len(found) - 1, min(count, len(found))).astype(int)
    for number, i in enumerate(chosen.tolist()):
        source = Path(found.source.location, found.paths[i])
        shutil.copyfile(source, to / "all" / f"{number:06d}{source.suffix}")
    return to


def as_long(mine: np.ndarray, theirs: np.ndarray, apart: float = 0.05) -> bool:
    """Whether the rows are as long as the other side's but for a share of it: cosines do not see a factor."""
    return bool(np.allclose(np.linalg.norm(mine, axis=1), np.linalg.norm(theirs, axis=1), rtol=apart))


def told_apart(mine: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether every row is nearest to its own image's on the other side; near copies of an image may be as near."""
    centred = (rows - theirs.mean(axis=0) for rows in (mine, theirs))
    left, right = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in centred)
    cosines = left @ right.T
    return bool((np.diag(cosines) >= cosines.max(axis=1) - _NEARER).all())


def open_once() -> None:
    """From now on an extraction finds open what has been opened before. It opens a base while pictures are decoded:
    to take that time off would take off their decoding, too.
    """
    real: Callable[..., Runtime] = lane.open_runtime
    opened: dict[tuple[object, ...], Runtime] = {}

    def open_one(graph: GraphSpec, *how: Any, cores: int | None = None) -> Runtime:
        key = graph.key(), graph.precision, *how, cores
        if key not in opened:
            opened[key] = real(graph, *how, cores=cores)
        return opened[key]

    lane.open_runtime = open_one
