"""Fixtures for every test: fixed seeds, private folders, and the real photographs where they are there."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

pytest_plugins = ["tests.stubs"]

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def private_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of its own for every test; the caches of weights and graphs stay the user's."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("FEATSTORE_HOME", str(home / "store"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("FEATSTORE_OFFLINE", raising=False)
    monkeypatch.delenv("FEATSTORE_DEBUG", raising=False)
    return home


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of weights and graphs for all tests that train bases: these go with it."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def own_cache(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That cache in place of the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared_cache))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photographs and broken images; tests that need it are skipped where it is missing."""
    folder = Path(os.environ.get("FEATSTORE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test photographs in {folder}: set $FEATSTORE_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def photographs(real_data: Path) -> Path:
    """1,399 photographs of cats and dogs in train/validation/test folders."""
    return real_data / "cats-and-dogs"


@pytest.fixture(scope="session")
def odd_images(real_data: Path) -> Path:
    """Broken, odd and hostile images of many formats."""
    return real_data / "odd-images"
