from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from featstore.augmentation import POLICIES, augment
from featstore.dataset import open_dataset
from featstore.decode import decode
from featstore.extraction.reader import Picture, in_order, prepare
from featstore.records import Reason
from featstore.spec import PixelSpec
from tests.pictures import png

SMALL, LARGE = Picture(PixelSpec((8, 8))), Picture(PixelSpec((16, 16), "nearest"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(png(seed=1, size=20))
    return path


def test_digest_and_pixels_come_from_the_same_bytes(picture: Path) -> None:
    image = prepare(open_dataset([picture]), 0, lambda *_: frozenset({SMALL, LARGE}))
    assert image.digest == hashlib.sha256(picture.read_bytes()).digest()
    assert image.stamp is not None
    assert image.stamp.size == picture.stat().st_size
    for one in (SMALL, LARGE):
        np.testing.assert_array_equal(image.pixels[one], decode(picture.read_bytes(), [one.pixels])[0])


def test_views_are_made_of_the_same_decoded_picture(picture: Path) -> None:
    views = [Picture(SMALL.pixels, view, POLICIES["tutorial"]) for view in (1, 2)]
    image = prepare(open_dataset([picture]), 0, lambda *_: frozenset([SMALL, *views]))
    assert image.digest is not None
    for one in views:
        expected = augment(image.pixels[SMALL], POLICIES["tutorial"], image.digest, one.view)
        np.testing.assert_array_equal(image.pixels[one], expected)


def test_what_nobody_wants_is_not_decoded(picture: Path) -> None:
    asked = []
    image = prepare(open_dataset([picture]), 0, lambda index, digest: asked.append((index, digest)) or frozenset())
    assert asked == [(0, image.digest)]
    assert image.pixels == {}
    assert image.rejected is None


def test_a_broken_image_keeps_its_digest_and_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(png(seed=1, size=20)[:60])
    image = prepare(open_dataset([path]), 0, lambda *_: frozenset({SMALL}))
    assert image.digest == hashlib.sha256(path.read_bytes()).digest()
    assert image.rejected is not None
    assert image.rejected.reason is Reason.TRUNCATED


def test_a_file_that_vanished_is_rejected_without_a_digest(picture: Path) -> None:
    dataset = open_dataset([picture])
    picture.unlink()
    image = prepare(dataset, 0, lambda *_: frozenset({SMALL}))
    assert image.digest is None
    assert image.rejected is not None
    assert image.rejected.reason is Reason.UNREADABLE


def test_results_keep_their_order_whatever_finishes_first() -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.02 if item == 0 else 0)
        return item * item

    assert list(in_order(slow_first, range(20), workers=4, ahead=6)) == [i * i for i in range(20)]


def test_no_more_than_the_allowed_number_waits() -> None:
    started = 0
    lock = threading.Lock()

    def count(item: int) -> int:
        nonlocal started
        with lock:
            started += 1
        return item

    results = in_order(count, range(100), workers=2, ahead=5)
    next(results)
    time.sleep(0.05)
    assert started <= 6
    results.close()


def test_an_error_in_a_thread_reaches_the_caller_and_the_threads_end() -> None:
    def fail(item: int) -> int:
        raise RuntimeError(f"item {item}")

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="item 0"):
        list(in_order(fail, range(3), workers=2, ahead=2))
    assert threading.active_count() == before
