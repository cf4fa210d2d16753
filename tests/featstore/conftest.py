"""Fixtures for bases: private caches, and a model small enough to run in every test."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore.weights.keras_io import import_keras


@pytest.fixture
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of featstore (the returned folder) and of Keras."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "cache" / "featstore"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way to the network fails the test."""

    def forbidden(*args: Any, **options: Any) -> None:
        pytest.fail(f"something tried to reach the network: {args}")

    monkeypatch.setattr("urllib.request.urlopen", forbidden)
    monkeypatch.setattr("featstore.weights.package_index.download", forbidden)


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``.keras`` model of two convolutions, for any image size: layers first (4 channels) and second (8)."""
    keras = import_keras()
    rng = np.random.default_rng(0)
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu", name="first")(image)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="second")(x)
    model = keras.Model(image, x, name="tiny")
    model.set_weights([rng.normal(0, 0.2, w.shape).astype(np.float32) for w in model.get_weights()])
    path = tmp_path_factory.mktemp("models") / "tiny.keras"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras is not up to date with NumPy when it saves
        model.save(path)
    return path


@pytest.fixture
def images() -> np.ndarray:
    """Five noisy images, uint8 (5, 40, 48, 3)."""
    return np.random.default_rng(1).integers(0, 256, (5, 40, 48, 3), dtype=np.uint8)
