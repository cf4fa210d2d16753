"""A lane keeps its base busy: rows are written and pictures gathered while the next batch is computed."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

import featstore
from featstore.extraction import lane as module
from featstore.store.writer import Writer
from tests.pictures import class_folders
from tests.stubs import Bases, StubRuntime

SECONDS = 30.0


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """72 images: two full batches, and a third one."""
    return class_folders(tmp_path / "photos", count=12)


def test_rows_of_a_batch_are_kept_while_the_next_one_is_computed(
    photos: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    second_began, kept = threading.Event(), threading.Event()
    add, compute = Writer.add, StubRuntime.__call__

    def computing(runtime: StubRuntime, images: np.ndarray) -> np.ndarray:
        if runtime.images:
            second_began.set()
            assert kept.wait(SECONDS), "no row was kept while a batch was computed"
        return compute(runtime, images)

    def adding(writer: Writer, *row: object) -> None:
        assert second_began.wait(SECONDS), "the base waited for rows to be kept"
        add(writer, *row)  # type: ignore[arg-type]
        kept.set()

    monkeypatch.setattr(StubRuntime, "__call__", computing)
    monkeypatch.setattr(Writer, "add", adding)
    [spec] = featstore.extract(photos).report.specs
    assert (spec.computed, spec.rejected) == (72, 0)


def test_one_base_computes_at_a_time_however_many_lanes_there_are(
    photos: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, threads = threading.Lock(), set()
    compute = StubRuntime.__call__

    def alone(runtime: StubRuntime, images: np.ndarray) -> np.ndarray:
        assert busy.acquire(blocking=False), "two bases at once take each other's cores"
        threads.add(threading.current_thread())
        try:
            return compute(runtime, images)
        finally:
            busy.release()

    monkeypatch.setattr(StubRuntime, "__call__", alone)
    featstore.extract(photos, ["vgg16", "xception"])
    assert bases.computed == 144
    assert len(threads) == 1
    assert threading.main_thread() not in threads


def test_at_most_two_batches_of_a_lane_are_under_way(
    photos: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, send = 0, module.Lane._send

    def watched(lane: module.Lane) -> None:
        nonlocal most
        send(lane)
        most = max(most, len(lane._computing))

    monkeypatch.setattr(module.Lane, "_send", watched)
    featstore.extract(photos)
    assert most == 1, "one is computed when the other has been kept"
