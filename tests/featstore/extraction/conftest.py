"""Pictures that the tests of the engines share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.pictures import class_folders, png


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """72 pictures, one of them twice and one of them broken."""
    folder = class_folders(tmp_path / "photos", count=12)
    first = next((folder / "train" / "cats").iterdir())
    shutil.copyfile(first, first.with_name("copy.png"))
    first.with_name("broken.png").write_bytes(png(1)[:70])
    return folder
