from __future__ import annotations

import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import featstore
from featstore import Store, planning
from featstore.cloud import Bucket
from featstore.errors import InputError
from featstore.scale import Prices
from tests.buckets import connected
from tests.pictures import class_folders, png
from tests.stubs import Bases


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "photos")


def test_a_new_dataset_is_all_new_images_and_writes_nothing(photos: Path, bases: Bases, private_home: Path) -> None:
    [part] = featstore.plan(photos, image_size=64).specs
    assert (part.hits, part.rejected, part.computed) == (0, 0, 36)
    assert part.misses == {"new image": 36}
    assert part.bytes == 36 * (32 + 2 + 1 + 6 * 4)
    assert bases.computed == 0
    assert not Store.open(private_home / "store").exists


def test_after_a_run_everything_is_a_hit(photos: Path, bases: Bases) -> None:
    featstore.extract(photos)
    [part] = featstore.plan(photos).specs
    assert (part.hits, part.computed, part.misses) == (36, 0, {})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"image_size": 64}, "image_size: 224x224 in the store, 64x64 asked"),
        ({"layer": "block4_pool"}, "layer: block5_pool in the store, block4_pool asked"),
        ({"precision": "float32"}, "precision: bfloat16 in the store, float32 asked"),
        ({"resize": "nearest"}, "resize: bilinear in the store, nearest asked"),
        ({"preprocessing": "rescale"}, "preprocessing: keras in the store, rescale asked"),
        ({"pooling": "max"}, "pooling: avg in the store, max asked"),
    ],
)
def test_a_changed_spec_is_named_field_by_field(
    photos: Path, bases: Bases, change: dict[str, object], named: str
) -> None:
    featstore.extract(photos, precision="bfloat16")
    [part] = featstore.plan(photos, **{"precision": "bfloat16", **change}).specs
    assert part.misses == {named: 36}


def test_other_weights_are_named(photos: Path, bases: Bases) -> None:
    featstore.extract(photos, precision="bfloat16")
    [part] = featstore.plan(photos, weights="random:1", precision="bfloat16").specs
    [reason] = part.misses
    assert reason.startswith("weights: ")


def test_the_nearest_namespace_that_has_the_image_gives_the_reason(photos: Path, bases: Bases) -> None:
    featstore.extract(photos, precision="bfloat16", image_size=64, resize="nearest")
    featstore.extract(photos, precision="bfloat16", image_size=64)
    (photos / "train" / "cats" / "new.png").write_bytes(png(seed=77))
    [part] = featstore.plan(photos, precision="bfloat16", image_size=80).specs
    assert part.misses == {"image_size: 64x64 in the store, 80x80 asked": 36, "new image": 1}


def test_copies_of_a_new_image_are_computed_once_and_said_so(photos: Path, bases: Bases) -> None:
    shutil.copy(photos / "train" / "cats" / "0.png", photos / "train" / "dogs" / "copy.png")
    [part] = featstore.plan(photos).specs
    assert part.computed == 36
    assert part.misses == {"new image": 36, "copy of another new image": 1}


def test_known_rejects_are_counted_and_not_planned(photos: Path, bases: Bases) -> None:
    (photos / "train" / "cats" / "broken.png").write_bytes(png(seed=5)[:80])
    featstore.extract(photos)
    [part] = featstore.plan(photos).specs
    assert (part.hits, part.rejected, part.computed) == (36, 1, 0)


def test_the_estimate_is_a_guess_at_first_and_measured_later(tmp_path: Path, bases: Bases) -> None:
    photos = class_folders(tmp_path / "many", count=22)
    [first] = featstore.plan(photos).specs
    assert first.seconds is not None
    assert "guess" in first.estimate
    featstore.extract(photos)
    (photos / "train" / "cats" / "new.png").write_bytes(png(seed=7777))
    [later] = featstore.plan(photos).specs
    assert later.estimate == "measured in an earlier run"
    assert later.seconds is not None


def test_the_bytes_of_maps_are_unknown_until_one_is_stored(photos: Path, bases: Bases) -> None:
    [part] = featstore.plan(photos, pooling="map").specs
    assert part.bytes is None
    featstore.extract(photos, pooling="map")
    (photos / "train" / "cats" / "new.png").write_bytes(png(seed=77))
    [part] = featstore.plan(photos, pooling="map").specs
    assert part.bytes == 35 + 2 * 2 * 6 * 4


def test_what_many_would_need_goes_by_what_these_are(tmp_path: Path, bases: Bases) -> None:
    photos = class_folders(tmp_path / "many", count=22)
    found = featstore.plan(photos, pooling="map", scale=10**6).scale
    assert found is not None
    images = featstore.open_dataset(photos)
    files = [photos / path for path in images.paths]
    assert found.like.count == len(images)
    assert found.like.name_bytes * len(images) == pytest.approx(sum(map(len, images.paths)))
    assert found.like.file_bytes * len(images) == pytest.approx(sum(file.stat().st_size for file in files))
    assert found.like.list_seconds > 0
    assert found.like.read_seconds is not None, "all of them were read"
    [spec] = found.specs
    assert (spec.rows, spec.features.channels, spec.features.area, spec.asked) == (10**6, 6, None, None)
    assert spec.features.basis == "a rough guess before the first run"


def test_a_listing_of_object_storage_is_told_by_its_requests_and_not_by_the_first_of_them(
    photos: Path, s3: str, tmp_path: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected(s3).put(str(photos), f"{s3}/photos", recursive=True)
    monkeypatch.setattr(Bucket, "page_seconds", lambda *_: 0.05)
    images = featstore.open_dataset(f"{s3}/photos")
    assert images.seconds > 0.05 * 36 / 1000
    plan = partial(featstore.plan, replace(images, seconds=9.0), store=tmp_path / "store", scale=10**6)
    few = plan().scale
    assert few is not None
    assert few.list_seconds == pytest.approx(1000 * 0.05), "a thousand full pages"
    monkeypatch.setattr(planning, "PAGE", 4)
    many = plan().scale
    assert many is not None
    assert many.list_seconds == pytest.approx(10**6 * 12 / 36 * 0.05), "six folders of two pages each"


def test_every_machine_has_copies_of_what_a_store_on_object_storage_holds(
    photos: Path, s3: str, tmp_path: Path, bases: Bases
) -> None:
    here, there = (featstore.plan(photos, store=place, scale=1000).scale for place in (tmp_path / "s", f"{s3}/store"))
    assert here is not None
    assert there is not None
    assert (here.copy_bytes, there.copy_bytes) == (None, 1000 * (35 + 6 * 4))
    unknown = featstore.plan(photos, pooling="map", store=f"{s3}/store", scale=1000).scale
    assert unknown is not None
    assert unknown.copy_bytes is None


def test_once_extracted_the_rate_is_measured_and_a_map_has_a_size(tmp_path: Path, bases: Bases) -> None:
    photos = class_folders(tmp_path / "many", count=22)
    run = featstore.extract(photos, pooling="map", precision="float32").report.specs[0]
    found = featstore.plan(photos, pooling="avg", dtype="float16", precision="float32", scale=1000).scale
    assert found is not None
    [spec] = found.specs
    assert spec.features.area == 4
    assert spec.features.images_per_second == pytest.approx(run.images_per_second)
    assert spec.features.basis == "measured in an earlier run"
    assert spec.asked is not None
    assert spec.asked.bytes == 1000 * (35 + 6 * 2)
    assert {form.row_bytes for form in spec.forms} == {35 + n * size for n in (6, 24) for size in (2, 4)}


def test_of_files_that_are_known_none_is_read_and_no_reading_is_measured(photos: Path, bases: Bases) -> None:
    time.sleep(2.1)
    featstore.extract(photos)
    known, read = (featstore.plan(photos, scale=100, rehash=rehash).scale for rehash in (False, True))
    assert known is not None
    assert read is not None
    assert known.read_seconds is None
    assert read.read_seconds is not None


def test_views_of_training_images_are_counted_among_the_rows(photos: Path, bases: Bases) -> None:
    found = featstore.plan(photos, views=3, scale=3000).scale
    assert found is not None
    assert [spec.rows for spec in found.specs] == [3000, 2000]  # a third of the images is to train on


def test_copies_share_a_row_among_very_many_images_too(photos: Path, bases: Bases) -> None:
    for file in sorted((photos / "train" / "cats").iterdir()):
        shutil.copyfile(file, file.with_name(f"again-{file.name}"))
    images = sum(1 for _ in photos.rglob("*.png"))
    copies = sum(1 for _ in photos.rglob("again-*"))
    for _ in range(2):  # new ones, and known ones
        found = featstore.plan(photos, scale=images * 1000).scale
        assert found is not None
        assert found.specs[0].rows == (images - copies) * 1000
        featstore.extract(photos)


def test_prices_without_a_number_of_images_are_refused(photos: Path) -> None:
    with pytest.raises(InputError, match="prices are of what very many images need"):
        featstore.plan(photos, prices=Prices(per_hour=1.0))


def test_the_plan_is_what_extract_then_does(photos: Path, bases: Bases) -> None:
    featstore.extract(photos)
    (photos / "train" / "cats" / "new.png").write_bytes(png(seed=77))
    (photos / "train" / "cats" / "broken.png").write_bytes(png(seed=5)[:80])
    [part] = featstore.plan(photos).specs
    [done] = featstore.extract(photos).report.specs
    assert part.computed == done.computed + done.rejected


def test_json_names_every_part(photos: Path, bases: Bases) -> None:
    result = featstore.plan(photos, ["vgg16", "xception"]).to_json()
    assert result["images"] == 36
    assert [part["backbone"] for part in result["specs"]] == ["vgg16", "xception"]
    assert set(result["specs"][0]) >= {"hits", "to_compute", "misses", "bytes", "seconds", "fingerprint"}


def test_a_rate_is_measured_from_a_batch_of_images_on(tmp_path: Path, bases: Bases) -> None:
    few, many = class_folders(tmp_path / "few", count=2), class_folders(tmp_path / "many", count=14)
    featstore.extract(few)
    assert "rough guess" in featstore.plan(many).specs[0].estimate
    featstore.extract(many)
    assert "measured" in featstore.plan(many).specs[0].estimate
