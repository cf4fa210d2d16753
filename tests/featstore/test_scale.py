"""What very many images would need: exact numbers, for nothing in it is measured here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from featstore.errors import InputError
from featstore.scale import (
    COMPACT_BYTES_A_ROW,
    DRIVER_BYTES,
    DRIVER_BYTES_A_FILE,
    DRIVER_BYTES_A_LETTER,
    INDEX_BYTES_A_ROW,
    OPEN_SECONDS,
    Features,
    Images,
    Needs,
    Prices,
    Stored,
    needs,
    parse_count,
)

LIKE = Images(count=1000, name_bytes=31.0, file_bytes=25_000.0, list_seconds=2e-5, look_seconds=1e-5, read_seconds=4e-4)
VGG16 = Features(
    backbone="vgg16",
    pooling="avg",
    dtype="float32",
    rows_an_image=1.0,
    channels=512,
    area=16,
    images_per_second=40.0,
    basis="measured in an earlier run",
)


FREE = Prices()


def of(count: int, features: Features = VGG16, memory: int = 2**60, prices: Prices = FREE) -> Needs:
    return needs(count, LIKE, (features,), memory, prices)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        *(("1000000", 10**6), ("1_000_000", 10**6), ("1,000,000", 10**6), ("1M", 10**6), ("100m", 10**8)),
        *(("1B", 10**9), ("2G", 2 * 10**9), ("250k", 250_000), ("2.5M", 2_500_000), ("1", 1), ("1000B", 10**12)),
        *(("8.2M", 8_200_000), ("1.005M", 1_005_000), ("64.1K", 64_100), ("12,345.5k", 12_345_500)),
    ],
)
def test_a_number_of_images_is_written_as_people_do(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "M", "1T", "1.5", "0.1k2", "1e6", "1001B", "many", "١M", "1,5M", "10,00", ",100"]
)
def test_what_is_no_number_of_images_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no number of images") as caught:
        parse_count(text)
    assert caught.value.received == text


def test_time_goes_with_the_rows_and_is_shared_out_among_machines() -> None:
    [spec] = of(14_400_000).specs
    assert spec.rows == 14_400_000
    assert spec.seconds == 360_000
    assert spec.hours == {1: 100.0, 10: 10.0, 100: 1.0, 1000: 0.1}


def test_views_are_rows_of_their_own() -> None:
    [spec] = of(1000, replace(VGG16, rows_an_image=2.1)).specs
    assert spec.rows == 2100


def test_bytes_of_every_form_are_those_of_its_numbers_and_of_its_key() -> None:
    [spec] = of(1_000_000).specs
    sizes = {(form.pooling, form.dtype): (form.row_bytes, form.bytes) for form in spec.forms}
    assert sizes == {
        ("avg", "float16"): (1_059, 1_059_000_000),
        ("avg", "float32"): (2_083, 2_083_000_000),
        ("map", "float16"): (16_419, 16_419_000_000),
        ("map", "float32"): (32_803, 32_803_000_000),
    }
    assert spec.key_bytes == 35_000_000
    assert spec.table_bytes == 2_048_000_000


@pytest.mark.parametrize(
    ("pooling", "dtype", "form"), [("max", "float16", ("avg", "float16")), ("flatten", "float32", ("map", "float32"))]
)
def test_the_form_that_was_asked_for_is_marked_whatever_its_name(pooling: str, dtype: str, form: object) -> None:
    [spec] = of(100, replace(VGG16, pooling=pooling, dtype=dtype)).specs
    assert spec.asked is not None
    assert (spec.asked.pooling, spec.asked.dtype) == form


def test_segments_are_those_of_writers_and_of_a_compaction() -> None:
    [spec] = of(1_000_000).specs
    assert spec.asked == Stored("avg", "float32", 2_083, 2_083_000_000, committed=5_209, compacted=125)
    assert spec.open_seconds == 125 * OPEN_SECONDS
    slow, fast, unknown = (
        of(1_000_000, replace(VGG16, images_per_second=rate)).specs[0].asked for rate in (5.0, 1000.0, None)
    )
    assert slow is not None
    assert slow.committed == 31_250  # a batch of 32 takes longer than 5 seconds
    assert fast == unknown == spec.asked  # 192 rows, however many come in 5 seconds


def test_a_large_map_fills_a_segment_alone() -> None:
    [spec] = of(1000, replace(VGG16, pooling="map", channels=64, area=224 * 224)).specs
    assert spec.asked is not None
    assert (spec.asked.committed, spec.asked.compacted) == (200, 200)  # 12 MiB a row: five in 64 MiB, as large as is


def test_the_size_of_a_map_that_nobody_has_seen_is_not_known() -> None:
    [spec] = of(1000, replace(VGG16, pooling="map", area=None)).specs
    assert [form.pooling for form in spec.forms] == ["avg", "avg"]
    assert (spec.asked, spec.open_seconds, spec.table_bytes, spec.cost_a_month) == (None, None, None, None)


def test_without_a_rate_there_is_no_time() -> None:
    [spec] = of(1000, replace(VGG16, images_per_second=None), prices=Prices(per_hour=1.0)).specs
    assert (spec.seconds, spec.hours, spec.cost) == (None, {}, None)


def test_files_are_listed_looked_at_and_read() -> None:
    found = of(1_000_000)
    assert (found.list_seconds, found.look_seconds, found.read_seconds) == pytest.approx((20.0, 10.0, 400.0))
    assert found.file_bytes == 25_000_000_000
    assert found.cache_bytes == 1_000_000 * (64 + 1 + 31)
    assert found.driver_bytes == DRIVER_BYTES + 1_000_000 * (DRIVER_BYTES_A_FILE + 31 * DRIVER_BYTES_A_LETTER)
    assert needs(10, replace(LIKE, read_seconds=None), (), 0).read_seconds is None


def test_costs_are_those_of_the_hours_and_of_the_bytes_asked_for() -> None:
    [spec] = of(14_400_000, prices=Prices(per_hour=1.5, per_gib_month=0.5)).specs
    assert spec.cost == 150.0
    assert spec.cost_a_month == pytest.approx(14_400_000 * 2083 / 2**30 / 2)
    assert (of(10).specs[0].cost, of(10).specs[0].cost_a_month) == (None, None)


def test_a_million_images_meet_no_limit_of_a_usual_machine() -> None:
    found = of(1_000_000, memory=24 * 2**30)
    assert (found.limits, found.datasets, found.stores) == ((), 1, 1)


def test_what_is_known_of_files_is_kept_up_to_its_limit() -> None:
    most = 2**29 // 96
    assert of(most - 1).datasets == of(most - 1, memory=0).datasets == 2  # a manifest lists five million
    found = of(2 * most)
    assert "what is known of files" in found.limits[0]
    assert found.datasets == 3


def test_memory_of_the_driver_is_half_of_the_machines_at_most() -> None:
    a_file = DRIVER_BYTES_A_FILE + 31 * DRIVER_BYTES_A_LETTER
    memory = 2 * (DRIVER_BYTES + 1_000_000 * a_file)
    assert of(1_000_000, memory=memory).datasets == 1
    assert of(1_000_001, memory=memory).datasets == 2
    found = of(4_000_000, memory=memory)
    assert found.datasets == 4
    assert "more than half of this machine's memory" in found.limits[0]


def test_rows_are_dealt_out_to_stores_by_the_memory_of_a_compaction() -> None:
    memory = 2 * 1_000_000 * COMPACT_BYTES_A_ROW
    few = replace(VGG16, channels=8)  # a table of them is small
    assert INDEX_BYTES_A_ROW < COMPACT_BYTES_A_ROW
    assert of(1_000_000, few, memory).stores == 1
    assert of(1_000_001, few, memory).stores == 2
    assert "looks rows up" in of(1_000_001, few, memory).limits[-1]


def test_more_segments_than_are_remembered_are_dealt_out_to_stores() -> None:
    maps = replace(VGG16, pooling="map")  # two segments of 192 are joined
    assert of(100_000 * 384, maps).stores == 1
    found = of(100_000 * 384 + 1, maps)
    assert found.stores == 2
    assert any("compacted they are 100,001" in line for line in found.limits)


def test_many_segments_as_they_are_committed_are_told() -> None:
    assert not any("compact the store" in line for line in of(100_000 * 192).limits)
    assert any("compact the store" in line for line in of(100_000 * 192 + 1).limits)
    large = replace(VGG16, pooling="map", area=25)  # of 9 MiB
    assert not any("compact the store" in line for line in of(100_000 * 192 + 1, large).limits)


def test_a_table_larger_than_memory_is_told() -> None:
    memory = 8 * 4 * 512 * 1_000_000
    assert not any("table" in line for line in of(1_000_000, memory=memory).limits)
    assert any("logreg, linear-svm and dense heads" in line for line in of(1_000_001, memory=memory).limits)


def test_json_has_every_part() -> None:
    found = of(1000, prices=Prices(1.0, 1.0)).to_json()
    assert found["like"]["count"] == 1000
    assert found["specs"][0]["features"]["basis"] == "measured in an earlier run"
    assert found["specs"][0]["asked"]["row_bytes"] == 2083
