"""Ways in processes of their own, on a real base with random weights and small pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from featstore import DatasetOptions, Request, Store
from featstore.errors import InputError
from heads.contest import run as module
from heads.contest.plan import Contest, Way
from heads.contest.run import compare_ways
from heads.contest.standing import Standing
from heads.live.plan import LivePlan
from tests.pictures import class_folders

VGG = Request("vgg16", weights="random:0", image_size=32, precision="float32")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "photos")


@pytest.fixture
def few_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cached head, a network, and one that cannot be trained."""
    plain = LivePlan("scratch", VGG, epochs=2, hidden=(4,))
    nowhere = LivePlan("finetune", VGG, layer="block9")
    ways = (Way("cached", plain, "logreg"), Way("network", plain), Way("impossible", nowhere))
    monkeypatch.setattr(Contest, "ways", ways)


def compared(photos: Path, tmp_path: Path, **given: Any) -> Standing:
    contest = Contest(str(photos), DatasetOptions(), VGG, **given)
    return compare_ways(contest, store=Store.open(tmp_path / "store"), out=tmp_path / "out")


def test_every_way_is_judged_on_the_same_images_and_only_the_best_is_tested(
    photos: Path, tmp_path: Path, few_ways: None
) -> None:
    found = compared(photos, tmp_path)
    assert [line.way.name for line in found.lines] == ["cached", "network"]
    cached, network = (line.outcomes[0] for line in found.lines)
    assert cached.paths == network.paths
    assert [line.pair is None for line in found.lines] == [True, False]
    assert [line.test is not None for line in found.lines] == [line is found.best for line in found.lines]
    assert any("left out: impossible: unknown layer" in note for note in found.notes)
    assert (cached.epochs, network.epochs) == ((0, 0), (2, 2))
    assert cached.base_images == 36
    assert cached.peak_bytes > 10**8
    assert found.best.outcomes[0].bundle is not None


def test_a_budget_that_is_used_up_leaves_networks_out(photos: Path, tmp_path: Path, few_ways: None) -> None:
    found = compared(photos, tmp_path, minutes=0.01)
    assert [line.way.name for line in found.lines] == ["cached"]
    assert "left out for want of time: network" in found.notes


def test_a_limit_takes_a_part_of_the_training_images_and_half_as_many_to_judge(photos: Path) -> None:
    contest = Contest(str(photos), DatasetOptions(), VGG, limit=6)
    dataset = module._open(contest)
    counts = [int((dataset.splits == code).sum()) for code in range(3)]
    assert counts == [6, 3, 3]
    assert module._open(contest).paths == dataset.paths
    assert module._open(replace(contest, limit=1000)).paths == module._open(replace(contest, limit=None)).paths


def test_the_budget_is_shared_by_weight_among_what_is_left() -> None:
    contest = Contest("photos", DatasetOptions(), VGG, minutes=10, views=1)
    ways = contest.ways
    assert module._slice(contest, ways, 0) is None  # a cached head takes what it takes
    networks = ways[2:]
    shares = [module._slice(contest, networks[i:], 0) for i in range(len(networks))]
    assert shares[0] == pytest.approx(600 * 2 / 8.5 * 0.9)
    assert shares[-1] == pytest.approx(540)
    assert module._slice(contest, networks, 700) == 0
    assert module._slice(replace(contest, minutes=None), networks, 0) is None


def test_nothing_to_compare_is_said(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Contest, "ways", ())
    with pytest.raises(InputError, match="nothing could be compared"):
        compared(photos, tmp_path)
