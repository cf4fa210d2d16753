"""A base that costs nothing, for tests of what happens around it. Real bases have tests of their own."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from featstore.catalog import find
from featstore.runtime import BATCH_SIZE, GraphSpec
from featstore.weights import Base, Layer

FEATURES = 6


def stub_base(name: str = "vgg16", origin: str = "imagenet") -> Base:
    """A base whose digest follows from its name and origin; it has no tensors."""
    digest = f"{abs(hash((find(name).name, origin))) % 16**8:08x}" * 8
    layers = (Layer("block4_pool", FEATURES), Layer(find(name).last_layer, FEATURES))
    return Base(find(name), origin, digest, layers, Path("nowhere"), "a test")


class StubRuntime:
    """Features that are a function of the pixels alone: mean and spread of each channel."""

    name = "openvino"
    device = "CPU"
    precision = "float32"

    def __init__(self, graph: GraphSpec, batch_size: int = BATCH_SIZE) -> None:
        self.graph = graph
        self.batch_size = batch_size
        self.batches: list[int] = []
        self.feature_shape = (2, 2, FEATURES) if graph.pooling == "map" else (FEATURES,)
        self.images = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """float32 (n, FEATURES), or (n, 2, 2, FEATURES) for maps."""
        if not 1 <= len(images) <= self.batch_size:
            raise AssertionError(f"a batch of {len(images)}")
        self.images += len(images)
        self.batches.append(len(images))
        pixels = images.astype(np.float32)
        means = np.concatenate([pixels.mean(axis=(1, 2)), pixels.std(axis=(1, 2))], axis=1)
        if self.graph.pooling != "map":
            return means
        return np.stack([means, means * 2, means * 3, means * 6], axis=1).reshape(-1, 2, 2, FEATURES)


class Bases:
    """What a test sees of the stubs: every runtime that was opened."""

    def __init__(self) -> None:
        self.opened: list[StubRuntime] = []

    @property
    def computed(self) -> int:
        """Images that went through a base so far."""
        return sum(runtime.images for runtime in self.opened)

    def open(
        self,
        graph: GraphSpec,
        runtime: str = "auto",
        device: str | None = None,
        batch_size: int = BATCH_SIZE,
        cores: int | None = None,
    ) -> StubRuntime:
        """In place of ``open_runtime``."""
        del runtime, device, cores
        self.opened.append(StubRuntime(graph, batch_size))
        return self.opened[-1]


def hold(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Stub bases begin to compute and do not go on until this is set."""
    free, real = threading.Event(), StubRuntime.__call__

    def wait(self: StubRuntime, images: np.ndarray) -> np.ndarray:
        assert free.wait(60)
        return real(self, images)

    monkeypatch.setattr(StubRuntime, "__call__", wait)
    return free


@pytest.fixture
def bases(monkeypatch: pytest.MonkeyPatch) -> Bases:
    """Stub bases in the place of real ones."""
    return put_in_place(monkeypatch)


def put_in_place(monkeypatch: pytest.MonkeyPatch) -> Bases:
    """Put stub bases in the place of real ones, until ``monkeypatch`` is undone."""
    from featstore import job, online
    from featstore.extraction import lane

    found = Bases()
    monkeypatch.setattr(lane, "open_runtime", found.open)
    monkeypatch.setattr(online, "open_runtime", found.open)
    monkeypatch.setattr(job, "resolve", lambda name, weights="imagenet", *, progress=None: stub_base(name, weights))
    return found
