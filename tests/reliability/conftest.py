"""Fixtures of the campaigns: figures, and many small pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pictures import png
from tests.reliability.campaign import Figures


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    return Figures(request.node.nodeid.split("[")[0])


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """``pictures(count)``: a folder of so many different pictures in two classes. Made once for each count."""
    made: dict[int, Path] = {}

    def make(count: int) -> Path:
        if count not in made:
            made[count] = tmp_path_factory.mktemp("pictures") / str(count)
            for name in ("cats", "dogs"):
                (made[count] / name).mkdir(parents=True)
            for seed in range(count):
                (made[count] / ("cats", "dogs")[seed % 2] / f"{seed}.png").write_bytes(png(seed, size=24))
        return made[count]

    return make
