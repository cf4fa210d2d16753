"""The live path from files to a bundle, on a real base with random weights and small pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featstore
from featstore import Request, Store, open_dataset
from featstore.errors import FeatstoreError, InputError
from featstore.table import StoredRows
from featstore.weights import read_tensors, resolve
from featstore.weights.keras_io import load_own
from heads.apply import predict_files
from heads.bundles.bundle import read_bundle
from heads.live import run as run_module
from heads.live.batches import Views
from heads.live.plan import LiveOptions, LivePlan, LiveResult
from heads.live.run import train_live
from tests.commands import good, run
from tests.pictures import class_folders, png
from tests.reliability.campaign import takes_long

VGG = Request("vgg16", weights="random:0", image_size=32, precision="float32")
FEW = {"epochs": 2, "tuning_epochs": 2, "hidden": (8,), "options": LiveOptions(batch_size=8)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "photos")


@pytest.fixture
def store(private_home: Path) -> Store:
    return Store.open(private_home / "store")


def trained(photos: Path, store: Store, plan: LivePlan, out: Path, **given: Any) -> LiveResult:
    return train_live(open_dataset(photos), plan, store=store, out=out, **given)


PLANS = {
    "scratch": LivePlan("scratch", VGG, augment="flip", **FEW),
    "frozen": LivePlan("frozen", VGG, augment="tutorial", **FEW),
    "live": LivePlan("finetune", VGG, augment="tutorial", **FEW),
    "maps": LivePlan("finetune", replace(VGG, views=2), on_maps=True, **FEW),
    "frozen on maps": LivePlan("frozen", replace(VGG, views=2), on_maps=True, **FEW),
}


@pytest.mark.parametrize("name", ["scratch", "frozen", "maps", "frozen on maps"])
def test_what_was_trained_is_a_bundle_that_predicts_what_was_scored(
    name: str, photos: Path, store: Store, tmp_path: Path
) -> None:
    plan = PLANS[name]
    found = trained(photos, store, plan, tmp_path / "out")
    bundle = read_bundle(found.bundle)
    assert bundle.card.kind == plan.way
    assert (bundle.card.rows, len(bundle.fitted.digests)) == (12, 12)
    assert (found.base is None) == (plan.way == "frozen")
    assert found.held_out.n == 12
    assert found.test is not None
    said = predict_files(found.bundle, [photos / "validation"], store=store)
    classes = ("cats", "dogs")
    assert [Path(one.path).name for one in said] == [Path(path).name for path in found.paths]
    by_class = np.array([[one.probabilities[classes.index(label)] for label in classes] for one in said])
    np.testing.assert_array_equal(by_class, found.probabilities)
    assert all(one.from_cache for one in said)


def test_two_classes_or_three_and_a_broken_image_are_no_trouble(photos: Path, store: Store, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        (photos / split / "birds").mkdir()
        for i in range(3):
            (photos / split / "birds" / f"{i}.png").write_bytes(png(500 + i + 10 * len(split)))
    (photos / "train" / "cats" / "broken.png").write_bytes(b"no picture")
    found = trained(photos, store, PLANS["maps"], tmp_path / "out")
    assert found.probabilities.shape == (15, 3)
    assert read_bundle(found.bundle).card.rows == 15


@takes_long
def test_maps_and_pictures_of_the_same_views_train_the_same_network(
    photos: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_maps = trained(photos, store, PLANS["maps"], tmp_path / "maps")
    monkeypatch.setattr(run_module, "Views", lambda *given, **named: Views(2))  # the same two in turn, not new ones
    live = trained(photos, store, PLANS["live"], tmp_path / "live")
    np.testing.assert_allclose(on_maps.curve.loss, live.curve.loss, rtol=1e-3)
    np.testing.assert_allclose(on_maps.probabilities, live.probabilities, atol=1e-3)
    assert on_maps.base_images == 2 * 12 + 12
    assert live.base_images == 4 * (12 + 12)


def test_what_is_frozen_is_bit_identical_afterwards_and_the_rest_is_not(
    photos: Path, store: Store, tmp_path: Path
) -> None:
    found = trained(photos, store, PLANS["live"], tmp_path / "out")
    assert found.base is not None
    before, after = read_tensors(resolve("vgg16", "random:0")), load_own(found.base).get_weights()
    same = [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert same == [True] * 20 + [False] * 6


def test_a_fine_tuned_base_is_a_backbone_of_ones_own(photos: Path, store: Store, tmp_path: Path) -> None:
    found = trained(photos, store, PLANS["maps"], tmp_path / "out")
    done = featstore.extract(photos, str(found.base), image_size=32, store=store)
    assert done.report.specs[0].computed == 36


def test_the_same_call_again_trains_nothing_and_gives_the_same(photos: Path, store: Store, tmp_path: Path) -> None:
    one = trained(photos, store, PLANS["maps"], tmp_path / "out")
    other = trained(photos, store, PLANS["maps"], tmp_path / "out")
    assert other.epoch_seconds == one.epoch_seconds
    assert other.bundle == one.bundle
    np.testing.assert_array_equal(other.probabilities, one.probabilities)


def test_every_seed_has_a_checkpoint_of_its_own_and_more_time_goes_on_with_it(
    photos: Path, store: Store, tmp_path: Path
) -> None:
    for options in (LiveOptions(8, seed=0, seconds=1e9), LiveOptions(8, seed=1), LiveOptions(8, seed=0, seconds=2e9)):
        trained(photos, store, replace(PLANS["scratch"], options=options), tmp_path / "out")
    assert len(list((tmp_path / "out" / "checkpoints").iterdir())) == 2


def test_a_network_from_scratch_needs_no_base_at_all(
    photos: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATSTORE_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "empty"))
    plan = replace(PLANS["scratch"], request=Request("vgg16", image_size=24))
    assert trained(photos, store, plan, tmp_path / "out").held_out.n == 12


class _Spoiled:
    """A runtime whose every batch begins with numbers that are not finite."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime

    def __call__(self, images: np.ndarray) -> np.ndarray:
        rows = self._runtime(images)
        rows[0] = np.inf
        return np.asarray(rows)


def test_images_without_finite_features_are_left_out_of_training_and_of_scores(
    photos: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featstore.extraction import lane

    plain = lane.open_runtime
    monkeypatch.setattr(lane, "open_runtime", lambda *given, **named: _Spoiled(plain(*given, **named)))
    found = trained(photos, store, PLANS["maps"], tmp_path / "out")
    assert read_bundle(found.bundle).card.rows == 11
    assert found.held_out.n == len(found.paths) == len(found.answers) == 11


@takes_long
def test_maps_larger_than_memory_stay_in_the_store_and_train_the_same(
    photos: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = trained(photos, store, PLANS["maps"], tmp_path / "small")
    kinds = []
    plain = run_module.MapBatches
    monkeypatch.setattr(run_module.machine, "is_large", lambda count: True)
    monkeypatch.setattr(
        run_module, "MapBatches", lambda table, *rest: kinds.append(type(table.X)) or plain(table, *rest)
    )
    large = trained(photos, store, PLANS["maps"], tmp_path / "large")
    assert kinds == [StoredRows, StoredRows]
    assert large.curve == small.curve


def test_a_base_whose_last_block_is_unknown_is_looked_for_before_that_is_asked(
    photos: Path, store: Store, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="did you mean"):
        trained(photos, store, replace(PLANS["live"], request=Request("vgg61")), tmp_path / "out")


def test_logs_of_two_plans_are_kept_apart_and_a_file_in_their_place_is_an_error_in_words(
    photos: Path, store: Store, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    logs = tmp_path / "logs"
    for seed in (0, 1):
        options = LiveOptions(8, seed=seed, tensorboard=logs)
        trained(photos, store, replace(PLANS["scratch"], options=options), tmp_path / "out")
    assert len(list(logs.glob("scratch-*"))) == 2
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(FeatstoreError) as refused:
        trained(
            photos, store, replace(PLANS["scratch"], options=LiveOptions(8, seed=2, tensorboard=file)), tmp_path / "out"
        )
    assert "write TensorBoard's logs" in str(refused.value)


def test_what_an_earlier_call_had_done_is_said_with_the_checkpoint_that_stays(
    photos: Path, store: Store, tmp_path: Path
) -> None:
    first, again = (trained(photos, store, PLANS["scratch"], tmp_path / "out").notes for _ in range(2))
    assert [words for words in first if "done before" in words] == []
    assert "2 epochs of 2 had been done before: the time in all is of this call alone" in again
    assert any("checkpoints" in words for words in first)


def test_without_validation_images_nothing_is_trained(store: Store, tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "p", splits=("train", "test"))
    with pytest.raises(InputError, match="needs validation images"):
        trained(folder, store, PLANS["scratch"], tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"augment": "flip"}, "cannot be stored"),
        ({"way": "scratch"}, "nothing is frozen"),
        ({"layer": "all"}, "nothing is frozen"),
        ({"way": "frozen", "layer": "block5_conv1"}, "does not train layers"),
        ({"request": replace(VGG, precision="int8")}, "not trained in it"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(PLANS["maps"], **change)


def test_the_command_trains_tells_and_predicts(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "live"
    words = ("live", photos, "--weights", "random:0", "--image-size", "32", "--views", "2", "--epochs", "1")
    done = good(*words, "--tuning-epochs", "1", "--out", out, "--json")
    assert done.json["trainable"] > 7_000_000
    assert len(done.json["epoch_seconds"]) == 2
    assert "numbers trained" in done.err
    assert good("predict", done.json["bundle"], photos / "test", "--json").json["predictions"]
    assert good("heads", "show", done.json["bundle"]).out
    assert Path(done.json["picture"]).read_bytes().startswith(b"\x89PNG")
    assert str(Path(done.json["picture"])) in done.err
    assert run(*words, "--from", "block5", "--out", out).code == 2
    refused = run(*words, "--augment", "none", "--out", out)
    assert refused.code == 2
    assert "need a policy" in refused.err
