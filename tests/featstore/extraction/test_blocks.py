from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from featstore.extraction.blocks import bytes_of_image, parts_of
from tests.featstore.extraction.works import work_on
from tests.stubs import Bases


@pytest.mark.parametrize(
    ("images", "shares", "settings", "size"),
    [
        (74, 1, {}, 32),
        (74, 2, {}, 32),
        (1000, 2, {}, 32),
        (2000, 2, {}, 96),
        (100_000, 2, {"image_size": 224}, 416),
        (100_000, 2, {"image_size": 224, "views": 8}, 32),
        (100_000, 2, {"image_size": 1000}, 22),
        (100, 2, {"image_size": 2048, "views": 8}, 1),
    ],
)
def test_blocks_hold_every_image_once_in_order_and_as_many_as_is_fair_and_allowed(
    photos: Path, tmp_path: Path, bases: Bases, images: int, shares: int, settings: dict[str, Any], size: int
) -> None:
    work = replace(work_on(photos, tmp_path / "store", **settings), todo=range(images))
    parts = parts_of(work, shares)
    assert [index for part in parts for index in part] == [*range(images)]
    assert {len(part) for part in parts[:-1]} == {size}


def test_jobs_of_the_same_pixels_share_them(photos: Path, tmp_path: Path, bases: Bases) -> None:
    work = work_on(photos, tmp_path / "store")
    [job] = [one.job for one in work.missing]
    assert bytes_of_image([job, replace(job, spec=job.spec.but(pooling="map"))]) == 32 * 32 * 3
