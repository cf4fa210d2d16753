"""Fixtures for every test: fixed seeds, private folders, and the real photographs where they are there."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from featstore.folders import cache_folder
from featstore.weights import resolve

pytest_plugins = ["tests.stubs", "tests.buckets"]

ROOT = Path(__file__).parent.parent

settings.register_profile("the same every time", derandomize=True, deadline=None)
settings.load_profile("the same every time")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests first: side by side, none then waits at the end for what another has just begun."""
    long = {item.path for item in items if item.get_closest_marker("real") or "reliability" in item.path.parts}
    items.sort(key=lambda item: item.path not in long)


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


@pytest.fixture
def linked_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that has the user's ImageNet weights, and that goes with the test and the bases that it trains."""
    resolve("vgg16")
    weights = tmp_path / "cache" / "featstore" / "weights"
    weights.mkdir(parents=True)
    for file in (cache_folder() / "weights").iterdir():
        if not file.name.startswith(("own-", ".")):
            (weights / file.name).symlink_to(file)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


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


@pytest.fixture
def few_photographs(photographs: Path, tmp_path: Path) -> Path:
    """Of each class 16 to train on, and 8 to validate and 8 to test on."""
    for split, count in (("train", 16), ("validation", 8), ("test", 8)):
        for source in sorted((photographs / split).iterdir()):
            target = tmp_path / "few" / split / source.name
            target.mkdir(parents=True)
            for file in sorted(source.iterdir())[:count]:
                shutil.copyfile(file, target / file.name)
    return tmp_path / "few"


@pytest.fixture(scope="session")
def odd_images(real_data: Path) -> Path:
    """Broken, odd and hostile images of many formats."""
    return real_data / "odd-images"
