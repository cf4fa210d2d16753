"""What very many images would need, as people read it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from featstore import show, show_scale
from featstore.scale import Features, Images, Prices, needs

LIKE = Images(1399, 20.0, 25_000.0, 2e-5, 1e-5, 4e-4)
VGG16 = Features("vgg16", "avg", "float32", 1.0, 512, 16, 40.0, "measured in an earlier run")


def lines(
    capsys: pytest.CaptureFixture[str], features: Features = VGG16, like: Images = LIKE, prices: Prices | None = None
) -> list[str]:
    show_scale.needs(needs(14_400_000, like, (features,), 24 * 2**30, prices or Prices()), show.console())
    return [" ".join(line.split()) for line in capsys.readouterr().err.splitlines()]


def test_time_bytes_and_memory_are_told_with_what_they_rest_on(capsys: pytest.CaptureFixture[str]) -> None:
    found = lines(capsys)
    assert "14,400,000 images like these 1399 images" in found
    assert "vgg16: 14,400,000 rows at 40.0 images/s (measured in an earlier run)" in found
    assert "hours by the number of machines like this one: 100.0 on 1, 10.0 on 10, 1.0 on 100, 0.1 on 1,000" in found
    assert "avg, max float32 * 2,083 B 27.9 GiB 75,000 1,786" in found
    assert "map, flatten float16 16,419 B 220.2 GiB 75,000 15,000" in found
    assert "listing them 4 min 48 s" in found
    assert "reading each once, for its digest 1 h 36 min 335.3 GiB" in found
    assert "opening the store, compacted; looking rows up 7.1 s 1.9 GiB" in found
    assert any(line.startswith("limit what is known of files") for line in found)


def test_copies_on_each_machine_are_told_of_a_store_on_object_storage_alone(capsys: pytest.CaptureFixture[str]) -> None:
    found = needs(14_400_000, LIKE, (VGG16,), 24 * 2**30)
    for copies, told in ((None, False), (30_000_000_000, True)):
        show_scale.needs(replace(found, copy_bytes=copies), show.console())
        lines = [" ".join(line.split()) for line in capsys.readouterr().err.splitlines()]
        assert ("copies of the store, on each machine 27.9 GiB" in lines) == told


def test_costs_are_shown_at_the_prices_that_were_told(capsys: pytest.CaptureFixture[str]) -> None:
    found = lines(capsys, prices=Prices(1.006, 0.023))
    assert any(line.endswith("0.1 on 1,000; cost 100.60") for line in found)
    assert "* as asked for; a month of keeping them costs 0.64" in found
    assert not any("cost" in line for line in lines(capsys))


def test_what_is_not_known_is_said_with_what_would_tell_it(capsys: pytest.CaptureFixture[str]) -> None:
    strange = replace(VGG16, area=None, images_per_second=None, basis="not known before the first run")
    found = lines(capsys, strange, replace(LIKE, read_seconds=None))
    assert "map, flatten ? ?" in found
    assert any("extract a few images with --pooling map" in line for line in found)
    assert any("`featstore extract` of some hundred images measures it" in line for line in found)
    assert any("--rehash reads them" in line for line in found)
    assert not any(line.startswith("hours") for line in found)


def test_it_fits_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    widest = replace(VGG16, backbone="inceptionresnetv2", channels=4032)
    show_scale.needs(needs(10**12, LIKE, (widest,), 0, Prices(1.0, 1.0)), show.console())
    told = capsys.readouterr().err.splitlines()
    tables = [line for line in told if "TiB" in line and not line.startswith("limit")]  # sentences wrap in a terminal
    assert len(tables) == 11
    assert max(len(line.rstrip()) for line in tables) <= 80
    assert not any("…" in line for line in told)
