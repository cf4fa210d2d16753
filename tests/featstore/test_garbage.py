"""Clearing away: what serves no row, rows that nobody wants any more, and nothing else."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore import open_dataset
from featstore.errors import InputError
from featstore.formats import MAX_FILE_BYTES
from featstore.garbage import collect
from featstore.scan import digest_all
from featstore.spec import Spec
from featstore.store import Store
from tests.pictures import class_folders

SPEC = Spec("vgg16", "ab" * 32, "block5_pool", (150, 150))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "photos")


@pytest.fixture
def store(tmp_path: Path, photos: Path) -> Store:
    """A row for each of the 36 photos, and for 10 images that are nowhere any more."""
    store = Store.open(tmp_path / "store", create=True)
    digests = digest_all(open_dataset(photos), store.scan_folder).values
    gone = [hashlib.sha256(bytes([number])).digest() for number in range(10)]
    with store.namespace(SPEC).writer({}) as writer:
        for number, digest in enumerate([*(digest.tobytes() for digest in digests), *gone]):
            writer.add(digest, 0, np.full(4, number, np.float32))
    return store


def files(store: Store) -> list[str]:
    return sorted(str(path.relative_to(store.path)) for path in store.path.rglob("*") if path.is_file())


def test_a_tidy_store_has_nothing_to_remove(store: Store) -> None:
    before = files(store)
    report = collect(store)
    assert (report.quarantined, report.leftovers, report.caches, report.rows, report.bytes) == (0, 0, 0, 0, 0)
    assert files(store) == before


def test_what_serves_no_row_goes_and_everything_else_stays(
    store: Store, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featstore.scan.RACY_NS", -(10**18))  # so that files made just now get into the caches
    digest_all(open_dataset(photos), store.scan_folder)
    before = files(store)
    quarantine = store.path / "ns" / SPEC.fingerprint / "quarantine"
    quarantine.mkdir()
    (quarantine / f"{'ab' * 32}.h5").write_bytes(b"x" * 1000)
    old, new = store.private_folder / "1-old", store.private_folder / "1-new"
    old.write_bytes(b"x" * 100)
    new.write_bytes(b"x")
    os.utime(old, (time.time() - 90_000,) * 2)
    shutil.copytree(photos, tmp_path / "others")
    digest_all(open_dataset(tmp_path / "others"), store.scan_folder)
    (store.scan_folder / f"{'0' * 64}.npz").write_bytes(b"no cache")
    for name in ("photos.npz", f".{'0' * 64}.npz.0123abcd"):  # somebody's; and what another process is writing just now
        (store.scan_folder / name).write_bytes(b"x")
        before.append(f"scan/{name}")
    shutil.rmtree(tmp_path / "others")

    counted = collect(store, dry_run=True)
    assert len(files(store)) > len(before)
    report = collect(store)
    assert (report.quarantined, report.leftovers, report.caches, report.rows) == (1, 1, 2, 0)
    assert report.bytes > 1100
    assert (counted.quarantined, counted.caches, counted.bytes) == (report.quarantined, report.caches, report.bytes)
    assert files(store) == sorted([*before, "tmp/1-new"])


def test_with_datasets_to_keep_only_their_rows_stay(store: Store, photos: Path) -> None:
    dataset = open_dataset(photos)
    digests = digest_all(dataset, store.scan_folder).values
    before = store.namespace(SPEC).snapshot().read(digests)
    assert collect(store, [dataset], dry_run=True).rows == 10
    assert store.namespace(SPEC).snapshot().rows == 46
    report = collect(store, [dataset])
    assert report.rows == 10
    after = Store.open(store.path).namespace(SPEC).snapshot()
    assert after.rows == 36
    np.testing.assert_array_equal(after.read(digests), before)
    assert collect(store, [dataset]).rows == 0


def test_several_datasets_are_kept_together(store: Store, photos: Path) -> None:
    parts = [open_dataset(photos / split) for split in ("train", "test")]
    assert collect(store, parts).rows == 46 - 24


def test_an_image_to_keep_that_cannot_be_read_stops_it_before_anything_goes(store: Store, photos: Path) -> None:
    before = files(store)
    dataset = open_dataset(photos)
    (photos / "train" / "cats" / "3.png").unlink()
    with pytest.raises(InputError, match="1 image to keep cannot be read"):
        collect(store, [dataset])
    assert files(store) == before


@pytest.mark.parametrize("is_folder", [True, False])
def test_links_to_images_to_keep_that_lead_nowhere_stop_it_before_anything_goes(
    store: Store, photos: Path, tmp_path: Path, is_folder: bool
) -> None:
    linked, away = photos / "train" / "cats", tmp_path / "not-mounted"
    if not is_folder:
        linked = linked / "3.png"
    linked.rename(away)
    linked.symlink_to(away)
    collect(store, [open_dataset(photos)], dry_run=True)
    before = files(store)
    away.rename(tmp_path / "elsewhere")
    for dry_run in (True, False):
        with pytest.raises(InputError, match="1 place of what to keep cannot be looked at"):
            collect(store, [open_dataset(photos)], dry_run=dry_run)
    assert files(store) == before


def test_a_picture_that_is_too_large_has_no_rows_that_could_be_dropped(store: Store, photos: Path) -> None:
    with (photos / "train" / "cats" / "huge.png").open("wb") as file:
        file.write((photos / "train" / "cats" / "3.png").read_bytes())
        file.truncate(MAX_FILE_BYTES + 1)
    assert collect(store, [open_dataset(photos)]).rows == 10


def test_a_damaged_segment_that_was_a_folder_goes_as_any_other(store: Store) -> None:
    namespace = store.namespace(SPEC)
    [segment] = namespace.segment_folder.iterdir()
    segment.unlink()
    (segment / "inner").mkdir(parents=True)
    (segment / "inner" / "file").write_bytes(b"x" * 1000)
    (segment / "link").symlink_to(store.private_folder)
    namespace.writer({})
    (store.private_folder / "mine").write_bytes(b"x")
    report = collect(store)
    assert report.quarantined == 1
    assert report.bytes >= 1000
    assert collect(store).quarantined == 0
    assert (store.private_folder / "mine").exists()


def test_what_another_process_removes_meanwhile_is_no_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    quarantine = store.path / "ns" / SPEC.fingerprint / "quarantine"
    quarantine.mkdir()
    for name in ("ab", "cd"):
        (quarantine / f"{name * 32}.h5").write_bytes(b"x" * 1000)

    def quicker(look: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def looked(path: object, **options: Any) -> os.stat_result:
            found = look(path, **options)
            if isinstance(path, Path) and path.name.startswith("ab"):
                path.unlink()
            return found

        return looked

    for call in ("stat", "lstat"):
        monkeypatch.setattr(os, call, quicker(getattr(os, call)))
    assert collect(store).bytes == 1000
    assert list(quarantine.iterdir()) == []


@pytest.mark.parametrize("name", ["tmp", "scan", f"ns/{SPEC.fingerprint}/quarantine"])
def test_a_folder_that_is_a_link_costs_nobody_a_file(store: Store, tmp_path: Path, name: str) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    for file in ("letter", "data.npz", f"{'0' * 64}.npz"):
        (documents / file).write_bytes(b"x")
        os.utime(documents / file, (time.time() - 90_000,) * 2)
    shutil.rmtree(store.path / name, ignore_errors=True)
    (store.path / name).symlink_to(documents)
    with pytest.raises(InputError, match="is a link"):
        collect(store)
    assert len(list(documents.iterdir())) == 3
