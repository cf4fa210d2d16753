from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore.errors import InputError
from featstore.store.rows import Damage, Rows, stamp_of


def test_rows_know_how_many_they_are(make_rows: Any) -> None:
    assert len(make_rows(5)) == 5


def test_rejects_alone_need_no_features(make_rows: Any) -> None:
    assert make_rows(2, rejects=[0, 1]).features is None


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"digests": np.zeros((3, 31), np.uint8)}, "digests"),
        ({"digests": np.zeros((3, 32), np.int8)}, "digests"),
        ({"views": np.zeros(3, np.int64)}, "views"),
        ({"status": np.zeros(2, np.uint8)}, "status"),
        ({"features": np.zeros((2, 4), np.float32)}, "features"),
        ({"features": np.zeros((3, 0), np.float32)}, "features"),
        ({"features": np.zeros((3, 2, 2), np.float32)}, "features"),
        ({"features": None}, "no features"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(make_rows: Any, wrong: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        replace(make_rows(3), **wrong)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        Rows(np.zeros((0, 3), np.uint8), np.zeros(1, np.uint16), np.zeros(0, np.int8), None)
    assert all(word in str(caught.value) for word in ("digests", "views", "status", "no row"))


def test_damage_is_named_after_its_segment() -> None:
    assert Damage(Path("/store/seg/abc.h5"), "broken").name == "abc"


def test_the_stamp_of_a_file_is_its_size_its_times_and_its_inode(tmp_path: Path) -> None:
    about = os.stat(tmp_path)
    assert stamp_of(about) == (about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino)
