from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from featstore import Request, Store, open_dataset
from featstore.errors import InputError
from heads.apply import predict_files
from heads.bundles.bundle import read_bundle
from heads.compose import Grid, split_names, sweep_on, train_on
from heads.notes import reading_notes
from heads.training.train import TrainOptions
from tests.pictures import png
from tests.stubs import Bases, stub_base


def test_training_extracts_what_is_missing_and_nothing_twice(
    photos: Path, store: Store, bases: Bases, tmp_path: Path
) -> None:
    for expected in (36, 36):
        done, trained = train_on(
            open_dataset(photos), [Request("vgg16")], ["logreg"], store=store, bundles=tmp_path / "bundles"
        )
        assert bases.computed == expected
    [result] = trained.results
    assert result.choice.on == "validation"
    assert result.test is not None
    assert result.test.n == 12
    assert done.report.images == 36


def test_the_prediction_for_a_cached_image_is_the_one_at_training_time(
    photos: Path, store: Store, bases: Bases, tmp_path: Path
) -> None:
    _, trained = train_on(open_dataset(photos), [Request("vgg16")], ["logreg"], store=store, bundles=tmp_path / "b")
    bundle = trained.results[0].bundle
    assert bundle is not None
    before = bases.computed
    copy = shutil.copy(photos / "test" / "cats" / "0.png", tmp_path / "other name.png")
    fresh = tmp_path / "fresh.png"
    fresh.write_bytes(png(seed=4711))
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    folder, single, new, bad = (
        predict_files(bundle, [photos / "test"], store=store)[0],
        *predict_files(bundle, [Path(copy), fresh, broken], store=store),
    )
    np.testing.assert_array_equal(folder.probabilities, single.probabilities)
    assert (single.from_cache, new.from_cache) == (True, False)
    assert bases.computed == before + 1
    assert (bad.label, bad.reason.code) == (None, "not-an-image")


def test_other_weights_are_refused(
    photos: Path, store: Store, bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, trained = train_on(open_dataset(photos), [Request("vgg16")], ["logreg"], store=store, bundles=tmp_path / "b")
    bundle = trained.results[0].bundle
    assert bundle is not None
    monkeypatch.setattr("featstore.job.resolve", lambda *args, **more: stub_base("vgg19"))
    with pytest.raises(InputError, match="not the ones"):
        predict_files(bundle, [photos / "test"], store=store)


def test_the_bundle_records_the_segments_it_was_trained_on(
    photos: Path, store: Store, bases: Bases, tmp_path: Path
) -> None:
    _, trained = train_on(open_dataset(photos), [Request("vgg16")], ["logreg"], store=store, bundles=tmp_path / "b")
    bundle = trained.results[0].bundle
    assert bundle is not None
    segments = sorted(path.stem for path in (store.path / "ns").rglob("*.h5"))
    assert list(read_bundle(bundle).card.snapshot) == segments


def test_an_unknown_head_is_refused_before_anything_is_computed(photos: Path, store: Store, bases: Bases) -> None:
    with pytest.raises(InputError, match="logreg"):
        train_on(open_dataset(photos), [Request("vgg16")], ["logrek"], store=store, bundles=None)
    assert bases.computed == 0


def test_one_class_only_is_refused_before_anything_is_computed(tmp_path: Path, store: Store, bases: Bases) -> None:
    (tmp_path / "p" / "cats").mkdir(parents=True)
    for i in range(4):
        (tmp_path / "p" / "cats" / f"{i}.png").write_bytes(png(seed=i))
    with pytest.raises(InputError, match="one class"):
        train_on(open_dataset(tmp_path / "p"), [Request("vgg16")], ["logreg"], store=store, bundles=None)
    assert bases.computed == 0


def test_a_class_that_a_split_by_content_lacks_is_said(tmp_path: Path, store: Store, bases: Bases) -> None:
    for name, count in (("cats", 60), ("dogs", 60), ("rare", 2)):
        (tmp_path / "p" / name).mkdir(parents=True)
        for i in range(count):
            (tmp_path / "p" / name / f"{i}.png").write_bytes(png(seed=1000 * ord(name[0]) + i))
    dataset = open_dataset(tmp_path / "p")
    done, _ = train_on(dataset, [Request("vgg16")], ["logreg"], store=store, bundles=None)
    assert any("rare" in note for note in reading_notes(dataset, done))


def test_a_class_whose_images_are_all_rejected_is_said(
    photos: Path, store: Store, bases: Bases, tmp_path: Path
) -> None:
    (photos / "train" / "annotations").mkdir()
    (photos / "train" / "annotations" / "a.xml").write_text("<x/>")
    dataset = open_dataset(photos)
    done, trained = train_on(dataset, [Request("vgg16")], ["logreg"], store=store, bundles=tmp_path / "b")
    assert reading_notes(dataset, done) == ("no image of 'annotations' could be used: it is not a class of the heads",)
    assert trained.results[0].test is not None


def test_copies_across_splits_and_classes_are_said(photos: Path, store: Store, bases: Bases) -> None:
    for name in ("0.png", "1.png"):
        shutil.copy(photos / "train" / "cats" / name, photos / "test" / "cats" / f"copy-{name}")
    shutil.copy(photos / "train" / "cats" / "2.png", photos / "train" / "dogs" / "copy.png")
    dataset = open_dataset(photos)
    done, _ = train_on(dataset, [Request("vgg16")], ["logreg"], store=store, bundles=None)
    assert reading_notes(dataset, done) == (
        "2 of the test images are copies of train images: that score flatters",
        "images that stand in several classes at once: 1",
    )


def test_predictions_of_a_folder_say_which_file(photos: Path, store: Store, bases: Bases, tmp_path: Path) -> None:
    _, trained = train_on(open_dataset(photos), [Request("vgg16")], ["logreg"], store=store, bundles=tmp_path / "b")
    bundle = trained.results[0].bundle
    assert bundle is not None
    folders = [photos / "test" / "cats", photos / "test" / "dogs"]
    found = predict_files(bundle, folders, store=store)
    assert {prediction.path for prediction in found} == {str(f) for folder in folders for f in folder.iterdir()}


def test_a_bundle_finds_its_own_base_from_anywhere_by_its_digest(
    photos: Path, store: Store, bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, trained = train_on(open_dataset(photos), [Request("vgg16")], ["logreg"], store=store, bundles=tmp_path / "b")
    bundle = trained.results[0].bundle
    assert bundle is not None
    monkeypatch.setattr("featstore.job.cached_base", lambda name, digest: stub_base())
    monkeypatch.setattr("featstore.job.resolve", lambda *args, **more: pytest.fail("the base was asked for by name"))
    assert len(predict_files(bundle, [photos / "test"], store=store)) == 12


def test_images_and_folders_may_be_mixed(photos: Path, store: Store, bases: Bases, tmp_path: Path) -> None:
    _, trained = train_on(open_dataset(photos), [Request("vgg16")], ["logreg"], store=store, bundles=tmp_path / "b")
    bundle = trained.results[0].bundle
    assert bundle is not None
    archive = shutil.make_archive(str(tmp_path / "z"), "zip", photos / "test")
    found = predict_files(bundle, [photos / "train" / "cats" / "0.png", photos / "test", Path(archive)], store=store)
    assert len(found) == 1 + 12 + 12


def test_backbones_joined_by_a_plus_give_one_head_on_both(
    photos: Path, store: Store, bases: Bases, tmp_path: Path
) -> None:
    request = Request("vgg16+xception")
    _, trained = train_on(open_dataset(photos), [request], ["logreg", "stacking"], store=store, bundles=tmp_path / "b")
    assert {(result.backbone, result.head) for result in trained.results} == {
        ("vgg16+xception", "logreg"),
        ("vgg16+xception", "stacking"),
    }
    assert bases.computed == 72
    for result in trained.results:
        card = read_bundle(result.bundle).card
        assert card.widths == (6, 6)
        assert [origin.backbone for origin in card.origins] == ["vgg16", "xception"]
    found = predict_files(trained.best.bundle, [photos / "test"], store=store)
    assert sum(p.label == Path(p.path).parent.name for p in found) == round(12 * trained.best.test.accuracy.value)
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    assert predict_files(trained.best.bundle, [broken], store=store)[0].reason.code == "not-an-image"


def test_a_sweep_computes_maps_once_and_derives_every_pooling(
    photos: Path, store: Store, bases: Bases, tmp_path: Path
) -> None:
    grid = Grid(("vgg16", "xception"), Request("vgg16"), heads=("logreg", "stacking"))
    out = tmp_path / "out"
    _, swept = sweep_on(open_dataset(photos), grid, store=store, out=out)
    assert swept.report == out / "report.html"
    assert bases.computed == 72
    tables = {(r.backbone, r.pooling) for r in swept.results if r.head == "logreg"}
    singles = {(name, pooling) for name in ("vgg16", "xception") for pooling in ("avg", "max", "flatten")}
    assert tables == singles | {("vgg16+xception", "avg"), ("vgg16+xception", "max")}
    assert {r.backbone for r in swept.results if r.head == "stacking"} == {"vgg16+xception"}
    assert [r.bundle is not None for r in swept.results] == [True] + [False] * (len(swept.results) - 1)
    assert swept.best.test.n == 12
    again = sweep_on(open_dataset(photos), grid, store=store, out=out)[1]
    assert bases.computed == 72
    assert again.best.bundle == swept.best.bundle
    assert [r.choice.seconds for r in again.results] == [r.choice.seconds for r in swept.results], "chosen again"


def test_a_sweep_combines_preprocessings_and_asks_for_maps_once() -> None:
    grid = Grid(("vgg16", "xception"), Request("vgg16"), ("keras", "rescale"), ("avg", "flatten"))
    assert [(r.backbone, r.preprocessing, r.pooling) for r in grid.requests] == [
        (name, preprocessing, "map") for preprocessing in ("keras", "rescale") for name in ("vgg16", "xception")
    ]
    found = {("+".join(r.backbone for r in several), several[0].preprocessing, p) for several, p in grid.combinations}
    names = [("vgg16", "avg"), ("vgg16", "flatten"), ("xception", "avg"), ("xception", "flatten")]
    both = [*names, ("vgg16+xception", "avg")]
    assert found == {(name, kind, pooling) for name, pooling in both for kind in ("keras", "rescale")}
    assert all(len({r.preprocessing for r in several}) == 1 for several, _ in grid.combinations)


def test_a_sweep_of_one_pooling_stores_no_maps() -> None:
    assert [r.pooling for r in Grid(("vgg16",), Request("vgg16"), poolings=("max",)).requests] == ["max"]


def test_a_grid_with_unknown_names_is_refused_before_any_work() -> None:
    with pytest.raises(InputError, match="unknown head"):
        Grid(("vgg16",), Request("vgg16"), heads=("forest",))
    with pytest.raises(InputError, match="unknown pooling"):
        Grid(("vgg16",), Request("vgg16"), poolings=("map",))
    with pytest.raises(InputError, match="unknown preprocessing"):
        Grid(("vgg16",), Request("vgg16"), ("caffe",))


def test_tables_larger_than_memory_stay_in_the_store_all_of_a_set_or_none(
    photos: Path, store: Store, bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The columns of both backbones together are what memory has to hold."""
    import heads.compose

    one_of_them = 36 * 6 * 4 * 8
    about = replace(heads.compose.machine.describe(), memory=one_of_them + 1)
    monkeypatch.setattr(heads.compose.machine, "describe", lambda: about)
    places = {"store": store, "bundles": tmp_path / "b"}
    _, small = train_on(open_dataset(photos), [Request("vgg16")], ["logreg", "linear"], **places)
    assert {result.head for result in small.results} == {"logreg", "linear"}
    asked = ["logreg", "ridge", "linear"]
    _, large = train_on(open_dataset(photos), [Request("vgg16+xception")], asked, **places)
    assert {result.head for result in large.results} == {"logreg", "linear"}
    assert large.best.test is not None
    assert any("stay in the store, and heads learn from batches" in note for note in large.notes)
    assert any(note.startswith("ridge on vgg16+xception avg was left out") for note in large.notes)
    bundle = large.best.bundle
    assert bundle is not None
    assert len(predict_files(bundle, [photos / "test"], store=store)) == 12


def test_streaming_is_asked_for_and_its_bundle_is_like_any_other(
    photos: Path, store: Store, bases: Bases, tmp_path: Path
) -> None:
    asked = (open_dataset(photos), [Request("vgg16", views=2)], ["logreg", "linear-svm"])
    _, plain = train_on(*asked, store=store, bundles=tmp_path / "plain")
    _, streamed = train_on(*asked, store=store, bundles=tmp_path / "streamed", options=TrainOptions(stream=True))
    assert any("learn from batches" in note for note in streamed.notes)
    assert not any("learn from batches" in note for note in plain.notes)
    for one, other in zip(plain.results, streamed.results, strict=True):
        assert (one.head, one.choice.chosen.params) == (other.head, other.choice.chosen.params)
        assert one.bundle is not None
        assert other.bundle is not None
        cards = [asdict(read_bundle(path).card) for path in (one.bundle, other.bundle)]
        assert [{**card, "held_out": 0, "test": 0, "trials": 0, "calibration": 0, "clip": 0} for card in cards[:1]] == [
            {**card, "held_out": 0, "test": 0, "trials": 0, "calibration": 0, "clip": 0} for card in cards[1:]
        ]
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=0.05)
    assert (streamed.best.test is None, streamed.results[1].test) == (False, None)


def test_names_are_split_at_a_plus_unless_a_file_is_called_so(tmp_path: Path) -> None:
    own = tmp_path / "a+b.keras"
    own.touch()
    assert split_names(str(own)) == (str(own),)
    assert split_names("vgg16 + xception") == ("vgg16", "xception")
    with pytest.raises(InputError, match="name is missing"):
        split_names("vgg16+")
