from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import featstore
from featstore import Store
from featstore import recompute as module
from featstore.recompute import verify_store
from tests.pictures import class_folders
from tests.stubs import Bases, StubRuntime, stub_base


@pytest.fixture
def photos(tmp_path: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images that have been extracted, untouched long enough for the scan cache to trust them."""
    monkeypatch.setattr(module, "cached_base", lambda name, digest: stub_base())
    monkeypatch.setattr("featstore.scan.RACY_NS", -(10**18))
    folder = class_folders(tmp_path / "photos")
    featstore.extract(folder)
    return folder


@pytest.fixture
def store(photos: Path, private_home: Path) -> Store:
    return Store.open(private_home / "store")


def test_without_recomputing_it_is_the_stores_own_check(store: Store) -> None:
    check = verify_store(store, read_data=True)
    assert check.sound
    assert check.drifts == ()
    assert check.report.rows == 36


def test_a_sample_of_rows_is_computed_again_and_agrees(store: Store, bases: Bases) -> None:
    before = bases.computed
    [drift] = verify_store(store, recompute=5).drifts
    assert (drift.rows, drift.problem, drift.relative) == (5, None, 0)
    assert drift.cosine == pytest.approx(1)
    assert bases.computed == before + 5


def test_augmented_views_are_computed_again_as_well(photos: Path, store: Store) -> None:
    featstore.extract(photos, views=3)
    drifts = verify_store(store, recompute=4).drifts
    assert [(drift.rows, drift.problem, drift.relative) for drift in drifts] == [(4, None, 0)] * 2


def test_nothing_in_the_store_changes(store: Store) -> None:
    before = sorted((p, p.stat().st_mtime_ns) for p in store.path.rglob("*"))
    verify_store(store, recompute=3, read_data=True)
    assert sorted((p, p.stat().st_mtime_ns) for p in store.path.rglob("*")) == before


def test_rows_that_are_other_features_now_are_a_problem(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = StubRuntime.__call__
    monkeypatch.setattr(StubRuntime, "__call__", lambda self, images: real(self, images)[:, ::-1].copy())
    check = verify_store(store, recompute=3)
    assert not check.sound
    assert check.drifts[0].problem is not None
    assert "not the same features" in str(check.drifts[0])


def test_images_that_moved_are_asked_for_and_found_in_data(store: Store, photos: Path) -> None:
    moved = photos.rename(photos.with_name("elsewhere"))
    [drift] = verify_store(store, recompute=3).drifts
    assert drift.rows == 0
    assert "--data" in drift.note
    [drift] = verify_store(store, recompute=3, data=moved).drifts
    assert drift.rows == 3


def test_images_that_changed_where_they_were_are_not_compared(store: Store, photos: Path) -> None:
    files = sorted(photos.rglob("*.png"))
    for path, other in zip(files, np.roll(files, 1), strict=True):
        shutil.copy(path, path.with_suffix(".old"))
        path.write_bytes(path.read_bytes() + bytes(str(other), "utf-8"))
    for old in photos.rglob("*.old"):
        old.unlink()
    [drift] = verify_store(store, recompute=3).drifts
    assert drift.rows == 0
    assert "changed" in drift.note


def test_weights_that_are_not_here_are_said_to_be(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cached_base", lambda name, digest: None)
    [drift] = verify_store(store, recompute=3).drifts
    assert "weights" in drift.note
    assert drift.problem is None


def test_json_holds_both_checks(store: Store) -> None:
    result = verify_store(store, recompute=2).to_json()
    assert result["sound"] is True
    assert result["recomputed"][0]["rows"] == 2
    assert result["rows"] == 36
