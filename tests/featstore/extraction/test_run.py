from __future__ import annotations

import csv
import errno
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

import featstore
from featstore import ExtractOptions, Request, Store, api, decode, open_dataset
from featstore.errors import DamageError, InputError, Interrupted, NoSpaceError, ReadOnlyError
from featstore.extraction import lane as lane_module
from featstore.folders import default_store
from featstore.records import Reason
from featstore.store import Place, verify
from tests.pictures import class_folders, png
from tests.stubs import Bases, StubRuntime

ROWS = 36


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "photos")


def counts(extraction: featstore.Extraction) -> tuple[int, int, int]:
    [spec] = extraction.report.specs
    return spec.hits, spec.computed, spec.rejected


def test_a_first_run_computes_every_image_and_a_second_none(photos: Path, bases: Bases) -> None:
    assert counts(featstore.extract(photos)) == (0, ROWS, 0)
    assert counts(featstore.extract(photos)) == (ROWS, 0, 0)
    assert len(bases.opened) == 1, "the second run opened a base"


def test_renaming_every_file_and_moving_the_folder_computes_nothing(photos: Path, bases: Bases) -> None:
    featstore.extract(photos)
    for i, path in enumerate(sorted(photos.rglob("*.png"))):
        path.rename(path.with_name(f"renamed-{i}.png"))
    moved = photos.rename(photos.with_name("elsewhere"))
    assert counts(featstore.extract(moved)) == (ROWS, 0, 0)


def test_one_byte_changed_computes_one_row(photos: Path, bases: Bases) -> None:
    featstore.extract(photos)
    path = photos / "train" / "cats" / "0.png"
    path.write_bytes(path.read_bytes() + b"\0")
    assert counts(featstore.extract(photos)) == (ROWS - 1, 1, 0)


def test_same_size_and_time_with_other_content_is_found_by_rehash(photos: Path, bases: Bases) -> None:
    path = photos / "train" / "cats" / "0.png"
    featstore.extract(photos)
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    hits, computed, rejected = counts(featstore.extract(photos, options=ExtractOptions(rehash=True)))
    assert (hits, computed + rejected) == (ROWS - 1, 1)


def test_one_image_added_computes_one_row(photos: Path, bases: Bases) -> None:
    featstore.extract(photos)
    (photos / "train" / "cats" / "new.png").write_bytes(png(seed=999))
    assert counts(featstore.extract(photos)) == (ROWS, 1, 0)


def test_copies_of_an_image_are_computed_once(photos: Path, bases: Bases) -> None:
    for i in range(3):
        shutil.copy(photos / "train" / "cats" / "0.png", photos / "train" / "dogs" / f"copy-{i}.png")
    assert counts(featstore.extract(photos)) == (3, ROWS, 0)
    assert bases.computed == ROWS


def test_several_backbones_share_one_pass_over_the_files(
    photos: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, decoded = [], []
    dataset = open_dataset(photos)
    source_type = type(dataset.source)
    real_read, real_decode = source_type.read, decode.decode
    monkeypatch.setattr(source_type, "read", lambda self, *given: read.append(given[0]) or real_read(self, *given))
    monkeypatch.setattr(decode, "decode", lambda d, s: decoded.append(s) or real_decode(d, s))
    done = featstore.extract(dataset, ["vgg16", Request("xception", image_size=80)])
    assert [spec.computed for spec in done.report.specs] == [ROWS, ROWS]
    assert len(read) == ROWS
    assert len(decoded) == ROWS


def test_a_second_backbone_costs_only_itself(photos: Path, bases: Bases) -> None:
    featstore.extract(photos, "vgg16")
    done = featstore.extract(photos, ["vgg16", "xception"])
    assert [(spec.hits, spec.computed) for spec in done.report.specs] == [(ROWS, 0), (0, ROWS)]


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 64},
        {"layer": "block4_pool"},
        {"precision": "float32"},
        {"weights": "random:1"},
        {"resize": "nearest"},
    ],
    ids=str,
)
def test_another_spec_computes_everything_again(photos: Path, bases: Bases, change: dict[str, object]) -> None:
    featstore.extract(photos, precision="bfloat16")
    assert counts(featstore.extract(photos, **{"precision": "bfloat16", **change})) == (0, ROWS, 0)


def test_a_broken_image_is_a_reject_that_is_not_tried_again(photos: Path, bases: Bases) -> None:
    (photos / "train" / "cats" / "broken.png").write_bytes(png(seed=5)[:80])
    (photos / "train" / "cats" / "text.png").write_text("no picture")
    done = featstore.extract(photos)
    assert counts(done) == (0, ROWS, 2)
    assert done.report.reasons == {"truncated": 1, "not-an-image": 1}
    assert counts(featstore.extract(photos)) == (ROWS, 0, 2)


def test_the_ledger_lists_every_reject_with_path_digest_and_reason(photos: Path, bases: Bases) -> None:
    (photos / "train" / "cats" / "text,odd\nname.png").write_text("no picture")
    report = featstore.extract(photos).report
    assert report.ledger is not None
    with report.ledger.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "digest", "reason"]
    assert rows[1] == ["train/cats/text,odd\nname.png", report.rejects[0].digest, "not-an-image"]
    (photos / "train" / "cats" / "text,odd\nname.png").unlink()
    assert featstore.extract(photos).report.ledger is None
    assert not report.ledger.exists()


@pytest.mark.parametrize("place", ["folder", "file/ledger.csv", "pipe", "letters"])
def test_a_place_where_no_ledger_can_be_is_refused_before_anything_is_computed(
    photos: Path, bases: Bases, tmp_path: Path, place: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    ledger = tmp_path / ("x" * 300 if place == "letters" else place)
    with pytest.raises(InputError, match="ledger") as raised:
        featstore.extract(photos, ledger=ledger)
    assert raised.value.where == ledger
    assert bases.opened == []
    assert not Path(default_store()).exists()


def test_retry_rejected_tries_again_and_a_feature_row_outranks_the_reject(
    photos: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = lane_module.np.isfinite
    monkeypatch.setattr(lane_module.np, "isfinite", lambda x: np.zeros_like(x, dtype=bool))
    assert counts(featstore.extract(photos)) == (0, 0, ROWS)
    monkeypatch.setattr(lane_module.np, "isfinite", real)
    assert counts(featstore.extract(photos)) == (0, 0, ROWS)
    assert counts(featstore.extract(photos, options=ExtractOptions(retry_rejected=True))) == (0, ROWS, 0)
    assert counts(featstore.extract(photos)) == (ROWS, 0, 0)


def test_features_that_overflow_the_stored_type_are_rejects(
    photos: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = np.full((32, 6), 1e30, np.float32)
    monkeypatch.setattr("tests.stubs.StubRuntime.__call__", lambda self, images: huge[: len(images)])
    done = featstore.extract(photos, dtype="float16")
    assert done.report.reasons == {"not-finite": ROWS}


def test_a_file_that_cannot_be_read_is_reported_and_tried_again_next_time(photos: Path, bases: Bases) -> None:
    dataset = open_dataset(photos)
    gone = photos / "train" / "cats" / "0.png"
    content = gone.read_bytes()
    gone.unlink()
    done = featstore.extract(dataset)
    assert counts(done) == (0, ROWS - 1, 1)
    assert done.report.rejects[0].reason is Reason.UNREADABLE
    assert done.report.rejects[0].digest == ""
    gone.write_bytes(content)
    assert counts(featstore.extract(photos)) == (ROWS - 1, 1, 0)


def test_on_error_fail_stops_with_the_image_and_keeps_what_was_computed(photos: Path, bases: Bases) -> None:
    (photos / "train" / "dogs" / "zzz.png").write_text("no picture")
    with pytest.raises(DamageError, match=r"train/dogs/zzz\.png"):
        featstore.extract(photos, options=ExtractOptions(on_error="fail"))
    (photos / "train" / "dogs" / "zzz.png").unlink()
    hits, computed, _ = counts(featstore.extract(photos))
    assert hits > 0
    assert hits + computed == ROWS


def test_on_error_fail_also_stops_at_a_reject_that_is_already_known(photos: Path, bases: Bases) -> None:
    (photos / "train" / "dogs" / "zzz.png").write_text("no picture")
    featstore.extract(photos)
    with pytest.raises(DamageError, match="not-an-image"):
        featstore.extract(photos, options=ExtractOptions(on_error="fail"))


def test_ctrl_c_keeps_the_finished_batches_and_the_next_run_goes_on(
    tmp_path: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = class_folders(tmp_path / "many", count=14)  # 84 images: two full batches and a rest
    real = lane_module.Lane.push
    pushed = 0

    def push(self: lane_module.Lane, digest: bytes, view: int, pixels: np.ndarray) -> None:
        nonlocal pushed
        pushed += 1
        if pushed == 70:
            raise KeyboardInterrupt
        real(self, digest, view, pixels)

    monkeypatch.setattr(lane_module.Lane, "push", push)
    with pytest.raises(Interrupted, match="64 new rows are kept") as caught:
        featstore.extract(photos)
    assert caught.value.exit_code == 130
    assert counts(featstore.extract(photos)) == (64, 20, 0)


def test_any_other_error_keeps_the_finished_batches_too(
    tmp_path: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = class_folders(tmp_path / "many", count=14)
    real = StubRuntime.__call__

    def out_of_memory(self: StubRuntime, images: np.ndarray) -> np.ndarray:
        if self.images >= 64:
            raise RuntimeError("out of memory")
        return real(self, images)

    monkeypatch.setattr(StubRuntime, "__call__", out_of_memory)
    with pytest.raises(RuntimeError, match="out of memory"):
        featstore.extract(photos)
    monkeypatch.setattr(StubRuntime, "__call__", real)
    assert counts(featstore.extract(photos)) == (64, 20, 0)


def test_a_slow_base_commits_after_every_batch(tmp_path: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = class_folders(tmp_path / "many", count=14)
    monkeypatch.setattr(lane_module, "SECONDS_PER_COMMIT", 0)
    report = featstore.extract(photos).report
    assert len(list((Path(report.store) / "ns").rglob("*.h5"))) == 3


def test_a_base_that_cannot_be_opened_leaves_no_namespace_behind(
    photos: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch, private_home: Path
) -> None:
    def refuse(*given: object, **named: object) -> None:
        raise InputError("no such precision here")

    monkeypatch.setattr(lane_module, "open_runtime", refuse)
    with pytest.raises(InputError, match="no such precision"):
        featstore.extract(photos)
    assert Store.open(private_home / "store").namespaces() == ()


def test_no_backbone_at_all_is_an_input_error(photos: Path, bases: Bases) -> None:
    with pytest.raises(InputError, match="nothing to extract with"):
        featstore.extract(photos, [])


def test_a_full_disk_is_one_error_that_loses_nothing_and_the_next_run_goes_on(
    photos: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> str:
        raise NoSpaceError("cannot write a segment: no space")

    with monkeypatch.context() as patch:
        patch.setattr(Place, "commit", full)
        with pytest.raises(NoSpaceError):
            featstore.extract(photos)
    assert counts(featstore.extract(photos)) == (0, ROWS, 0)


def test_a_store_that_cannot_be_written_fails_before_anything_is_computed(
    photos: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Store) -> None:
        raise ReadOnlyError("read-only")

    monkeypatch.setattr(Store, "check_writable", refuse)
    with pytest.raises(ReadOnlyError):
        featstore.extract(photos)
    assert bases.computed == 0


def test_what_comes_before_the_run_is_a_stage_of_it(
    photos: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = api.resolve_jobs
    monkeypatch.setattr(api, "resolve_jobs", lambda *given, **named: (time.sleep(0.3), real(*given, **named))[1])
    report = featstore.extract(photos).report
    assert report.stages["prepare"] >= 0.3
    assert report.seconds > report.stages["prepare"] + report.stages["scan"]


def test_a_spec_that_is_lost_is_written_anew_by_a_run_that_computes_nothing(photos: Path, bases: Bases) -> None:
    first = featstore.extract(photos)
    [path] = Path(first.report.store).glob("ns/*/spec.json")
    before = path.read_bytes()
    path.unlink()
    again = featstore.extract(photos)
    assert (first.report.specs[0].computed > 0, again.report.specs[0].computed) == (True, 0)
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["pipe", "link", "image", "folder"])
def test_what_is_no_ledger_is_not_replaced_by_one(photos: Path, bases: Bases, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "ledger.csv"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "link":
        (tmp_path / "real.csv").touch()
        place.symlink_to("real.csv")
    elif kind == "image":
        place = next(photos.rglob("*.png"))
    else:
        place.mkdir()
    before = place.lstat()
    with pytest.raises(InputError, match="something else where the ledger"):
        featstore.extract(photos, ledger=place)
    assert place.lstat().st_mode == before.st_mode
    assert bases.computed == 0
    for _ in range(2):  # a ledger is
        featstore.extract(photos, ledger=tmp_path / "other.csv")


def test_damaged_segments_are_set_aside_by_a_run_that_computes_nothing(photos: Path, bases: Bases) -> None:
    done = featstore.extract(photos)
    folder = Path(done.report.store) / "ns" / done.report.specs[0].fingerprint / "seg"
    (folder / f"{'0' * 64}.h5").write_bytes(b"nothing that anybody needs")
    again = featstore.extract(photos)
    assert (again.report.specs[0].computed, again.report.quarantined) == (0, 1)
    assert verify(Store.open(done.report.store), read_data=True).sound


def test_damaged_segments_are_set_aside_and_only_their_rows_computed_again(photos: Path, bases: Bases) -> None:
    done = featstore.extract(photos)
    before = featstore.load_table(photos)
    [segment] = (Path(done.report.store) / "ns").rglob("*.h5")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 0xFF
    segment.write_bytes(data)
    (photos / "train" / "cats" / "new.png").write_bytes(png(seed=999))
    again = featstore.extract(photos)
    assert counts(again) == (0, ROWS + 1, 0)
    assert again.report.quarantined == 1
    assert len(list((Path(done.report.store) / "ns").rglob("quarantine/*.h5"))) == 1
    np.testing.assert_array_equal(featstore.load_table(photos).X[: len(before)].shape, before.X.shape)


def test_pooled_features_follow_from_a_stored_map_without_the_base(photos: Path, bases: Bases) -> None:
    featstore.extract(photos, pooling="map")
    for pooling in ("avg", "max", "flatten"):
        assert counts(featstore.extract(photos, pooling=pooling)) == (ROWS, 0, 0)
    assert len(bases.opened) == 1


def test_a_run_over_a_zip_hits_the_rows_of_the_same_images_in_a_folder(photos: Path, bases: Bases) -> None:
    featstore.extract(photos)
    archive = shutil.make_archive(str(photos), "zip", photos)
    assert counts(featstore.extract(archive)) == (ROWS, 0, 0)


def test_an_unknown_setting_is_named_with_the_nearest_one(photos: Path, bases: Bases) -> None:
    with pytest.raises(InputError, match="image_size"):
        featstore.extract(photos, imagesize=150)


def test_a_run_that_interrupts_inside_a_commit_still_reports_the_disk(
    photos: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(NoSpaceError):
        featstore.extract(photos)
