"""A bundle of every kind of head, on a base that is small enough to run in every test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore.backbone import build
from featstore.spec import Spec
from featstore.weights import Base, resolve
from heads.bundles.bundle import Bundle, read_bundle
from heads.bundles.card import Card, Origin
from heads.evaluation.calibration import Calibration
from heads.export.check import drawn_pictures
from heads.export.model import float32_graph, inputs_of
from heads.kinds.dense import DenseHead
from heads.kinds.head import Head
from heads.kinds.kernel import KernelHead
from heads.kinds.linear import LinearHead
from heads.kinds.neighbours import NeighboursHead
from tests.featstore.conftest import no_network, private_cache, tiny_file
from tests.heads.bundles.make import write_bundle

__all__ = ["no_network", "private_cache", "tiny_file"]

MakeBundle = Callable[..., Bundle]

CURVES = (
    ((0.1, 0.3, 0.3000001, 0.8), (0.05, 0.2, 0.5, 0.9)),
    ((0.5,), (0.4,)),
    ((0.0, 0.2, 1.0), (0.1, 0.1, 0.999999)),
)
ISOTONIC = Calibration("isotonic", curves=CURVES)


@pytest.fixture
def tiny(private_cache: Path, no_network: None, tiny_file: Path) -> Base:
    return resolve(str(tiny_file))


@pytest.fixture
def tiny_spec(tiny: Base) -> Spec:
    return Spec(tiny.spec_name, tiny.digest, "second", (24, 20))


@pytest.fixture
def features(tiny: Base, tiny_spec: Spec) -> np.ndarray:
    """float32 (8, 8): of the pictures that an export is checked on."""
    images = drawn_pictures(inputs_of([tiny_spec]))["images"]
    return np.asarray(build(float32_graph(tiny_spec, tiny), batch_size=None)(images))


@pytest.fixture
def make_bundle(tiny: Base, tiny_spec: Spec, card: Card, bundles: Path, features: np.ndarray) -> MakeBundle:
    def make(kind: str = "linear", calibration: Calibration | None = None, *specs: Spec) -> Bundle:
        specs = specs or (tiny_spec,)
        width = 8 * sum(5 * 4 if spec.pooling == "flatten" else 1 for spec in specs)
        mean = np.resize(features.mean(axis=0).astype(np.float64), width)
        deviation = np.resize(features.std(axis=0).astype(np.float64), width)
        scale = np.where(deviation > 0, deviation, 1.0)  # a channel that no picture excites
        found = replace(
            card,
            kind=kind,
            specs=specs,
            origins=tuple(Origin(tiny.origin) for _ in specs),
            widths=(width // len(specs),) * len(specs),
            calibration=calibration or Calibration(),
        )
        head = head_of(kind, mean, scale)
        return read_bundle(write_bundle(bundles, found, head))

    return make


def head_of(kind: str, mean: Any, scale: Any) -> Head:
    """Three classes told apart at random, on features of this mean and deviation."""
    random = np.random.default_rng(2)
    width = len(mean)
    rows = random.normal(size=(12, width)).astype(np.float32)
    weights = random.normal(size=(3, width)) / scale
    dense = (random.normal(size=(width, 16)).astype(np.float32) / 50, random.normal(size=(16, 3)).astype(np.float32))
    labels, counts = np.arange(12) % 3, 1.0 + np.arange(12)
    heads: dict[str, Head] = {
        "linear": LinearHead(weights / 3, -weights @ mean / 3),
        "two": LinearHead.from_decision(weights[:1], -weights[:1] @ mean),
        "dense": DenseHead(dense, (np.ones(16, np.float32), np.zeros(3, np.float32))),
        "single": DenseHead((dense[0][:, :3],), (np.ones(3, np.float32),)),
        "kernel": KernelHead(rows, mean, scale, random.normal(size=(3, 12)), random.normal(size=3), 0.5 / width),
        "neighbours": NeighboursHead(rows, labels, mean, scale, counts, k=5, by_distance=False),
        "nearer": NeighboursHead(rows, labels, mean, scale, counts, k=4, by_distance=True),
        "every row": NeighboursHead(rows, labels, mean, scale, counts, k=12, by_distance=True),
    }
    return heads[kind]
