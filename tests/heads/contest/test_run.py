"""Ways in processes of their own, on a real base with random weights and small pictures."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import featstore
from featstore import DatasetOptions, Request, Store, open_dataset
from featstore.errors import InputError
from heads.contest import run as module
from heads.contest.plan import Contest, Way
from heads.contest.run import compare_ways
from heads.contest.standing import Standing
from heads.live.plan import LivePlan
from tests.pictures import class_folders, png
from tests.reliability.campaign import takes_long
from tests.stubs import Bases

pytestmark = pytest.mark.usefixtures("own_cache")

VGG = Request("vgg16", weights="random:0", image_size=32, precision="float32")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "photos")


CACHED = Way("cached", LivePlan("frozen", VGG), "logreg")
NETWORK = Way("network", LivePlan("scratch", VGG, epochs=2, hidden=(4,)))
IMPOSSIBLE = Way("impossible", LivePlan("finetune", VGG, layer="block9"))


@pytest.fixture
def few_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cached head, a network, and one that cannot be trained."""
    monkeypatch.setattr(Contest, "ways", (CACHED, NETWORK, IMPOSSIBLE))


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
    assert cached.base_images == 24, "training and validation images, as for the networks"
    assert network.base_images == 0
    assert any("scored once" in note for note in found.notes)
    assert not any("cut short" in note for note in found.notes)
    assert cached.peak_bytes > 10**8
    assert found.best.outcomes[0].bundle is not None


def test_a_budget_that_is_used_up_leaves_networks_out(photos: Path, tmp_path: Path, few_ways: None) -> None:
    found = compared(photos, tmp_path, minutes=0.01)
    assert [line.way.name for line in found.lines] == ["cached"]
    assert any(note.startswith("left out for want of time: network (it would get") for note in found.notes)


@takes_long
def test_a_class_that_only_validation_has_does_not_mix_up_the_images(
    photos: Path, tmp_path: Path, few_ways: None
) -> None:
    (photos / "validation" / "birds").mkdir()
    for i in range(3):
        (photos / "validation" / "birds" / f"{i}.png").write_bytes(png(900 + i))
    found = compared(photos, tmp_path)
    cached, network = (line.outcomes[0] for line in found.lines)
    assert cached.paths == network.paths
    assert len(cached.paths) == found.lines[0].held_out.n == 12
    assert any("3 validation images that not every way can judge" in note for note in found.notes)


def test_a_way_whose_process_is_killed_is_left_out_and_the_others_go_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel does when memory runs out."""
    plain = module.in_a_process

    def killed(work: Any, contest: Contest, way: Way, *rest: Any) -> Any:
        return plain(os._exit, 9) if way.head is None else plain(work, contest, way, *rest)

    monkeypatch.setattr(Contest, "ways", (CACHED, NETWORK))
    monkeypatch.setattr(module, "in_a_process", killed)
    found = compared(photos, tmp_path)
    assert [line.way.name for line in found.lines] == ["cached"]
    assert any("network: its process was ended from outside" in note for note in found.notes)


@takes_long
def test_a_dataset_without_test_images_has_no_test_score_and_no_note_of_one(tmp_path: Path, few_ways: None) -> None:
    found = compared(class_folders(tmp_path / "p", splits=("train", "validation")), tmp_path)
    assert [line.test for line in found.lines] == [None, None]
    assert not any("scored once" in note for note in found.notes)


def test_a_limit_takes_a_part_of_the_training_images_and_half_as_many_to_judge(photos: Path, tmp_path: Path) -> None:
    contest, store = Contest(str(photos), DatasetOptions(), VGG, limit=6), Store.open(tmp_path / "store")
    dataset = module._open(contest, store)
    counts = [int((dataset.splits == code).sum()) for code in range(3)]
    assert counts == [6, 3, 3]
    assert module._open(contest, store).paths == dataset.paths
    many, every = (module._open(replace(contest, limit=limit), store) for limit in (1000, None))
    assert many.paths == every.paths


def test_what_found_no_room_is_run_at_the_end_if_time_is_left_over(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    another = Way("another", NETWORK.plan, weight=20.0)
    monkeypatch.setattr(Contest, "ways", (CACHED, NETWORK, another))
    contest, plain = Contest(str(photos), DatasetOptions(), VGG), module.in_a_process
    outcome = plain(module._run, contest, CACHED, 0, tmp_path / "store", tmp_path / "out", None, False)
    order: list[str] = []

    def at_once(work: Any, contest: Contest, way: Way, *rest: Any) -> Any:
        order.append(way.name)
        return outcome

    monkeypatch.setattr(module, "in_a_process", at_once)
    found = compared(photos, tmp_path, minutes=5)
    assert order == ["cached", "another", "network"], "it would have got 13 s at first"
    assert [line.way.name for line in found.lines] == ["cached", "network", "another"]
    assert not any("want of time" in note for note in found.notes)


def test_without_validation_images_nothing_is_run(tmp_path: Path, few_ways: None) -> None:
    with pytest.raises(InputError, match="needs validation images"):
        compared(class_folders(tmp_path / "p", splits=("train", "test")), tmp_path)


def test_what_cannot_be_trained_is_said_once_and_with_advice(tmp_path: Path, few_ways: None) -> None:
    photos = class_folders(tmp_path / "p")
    for split in photos.iterdir():
        shutil.rmtree(split / "dogs")
    with pytest.raises(InputError, match="nothing can be trained") as caught:
        compared(photos, tmp_path)
    assert caught.value.todo


class TestTheBudget:
    ways = Contest("photos", DatasetOptions(), VGG, views=1).ways
    networks = ways[2:]

    def fits(self, left: Sequence[Way], remaining: float | None, extraction: float = 0.0) -> tuple[float | None, str]:
        return module._fits(left, remaining, extraction, is_first=False)

    def test_is_shared_by_weight_among_the_networks_that_are_left(self) -> None:
        assert self.fits(self.networks, 600)[0] == pytest.approx(600 * 2 / 8.5 * 0.9)
        assert self.fits(self.networks[-1:], 600)[0] == pytest.approx(540)

    def test_pays_for_extraction_too(self) -> None:
        assert self.fits(self.networks[-1:], 600, 500) == (pytest.approx(40), "")
        assert "would get 0.0 s" in self.fits(self.networks[-1:], 600, 590)[1]
        assert "extraction takes about 11 min" in self.fits(self.ways, 600, 660)[1]
        assert self.fits(self.ways, 600, 500) == (None, "")

    def test_never_leaves_out_the_cheapest_way(self) -> None:
        assert module._fits(self.ways, -5, 1000, is_first=True) == (None, "")

    def test_that_was_not_asked_for_limits_nothing(self) -> None:
        assert self.fits(self.networks, None, 1e9) == (None, "")


def test_what_a_way_needs_of_the_base_is_estimated_before_it_runs(photos: Path, tmp_path: Path, bases: Bases) -> None:
    store, dataset = Store.open(tmp_path / "store"), open_dataset(photos)
    views = Way("views", LivePlan("frozen", replace(VGG, views=3)), "logreg")
    maps = Way("maps", LivePlan("finetune", replace(VGG, views=3), on_maps=True))
    before = [module._extraction_seconds(dataset, way, store) for way in (CACHED, views, maps, NETWORK)]
    assert before[1] == pytest.approx(before[0] * 60 / 36)
    assert before[2] == pytest.approx(before[0] * 48 / 36)
    assert before[3] == 0
    featstore.extract(photos, VGG, store=store)
    assert module._extraction_seconds(dataset, CACHED, store) == 0


def test_nothing_to_compare_is_said(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Contest, "ways", ())
    with pytest.raises(InputError, match="nothing could be compared"):
        compared(photos, tmp_path)
