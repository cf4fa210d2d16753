from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featstore import Request, Store, load_table, open_dataset
from featstore.errors import InputError
from heads.bundles.bundle import read_bundle
from heads.compose import train_on
from heads.evaluate import evaluate_on
from tests.pictures import pixels, png
from tests.stubs import Bases, stub_base


def trained(photos: Path, store: Store, *heads: str, backbone: str = "vgg16", out: str = "b") -> list[Path]:
    _, compared = train_on(
        open_dataset(photos), [Request(backbone)], heads or ["logreg"], store=store, bundles=photos.parent / out
    )
    return [result.bundle for result in compared.results if result.bundle is not None]


def nearly(seed: int) -> bytes:
    """:func:`png` of the same seed with one pixel changed."""
    changed = pixels(seed).copy()
    changed[0, 0] = 255 - changed[0, 0]
    buffer = io.BytesIO()
    Image.fromarray(changed).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_test_split_is_scored_as_at_training_time(photos: Path, store: Store, bases: Bases) -> None:
    [bundle] = trained(photos, store)
    before = bases.computed
    found = evaluate_on(open_dataset(photos), [bundle], store=store)
    [result] = found.results
    assert (found.split, found.images, bases.computed) == ("test", 12, before)
    assert result.metrics == read_bundle(bundle).card.test, "the intervals as well"
    assert result.seen == ()
    assert result.without_seen is None
    assert found.notes == ()
    table = load_table(photos, split="test", store=store)
    said = read_bundle(bundle).probabilities(table.X).argmax(axis=1)
    np.testing.assert_array_equal(result.right, said == table.y)


def test_what_is_missing_is_extracted_and_only_that(photos: Path, store: Store, bases: Bases, tmp_path: Path) -> None:
    [bundle] = trained(photos, store)
    (photos / "test" / "cats" / "new.png").write_bytes(png(seed=100))
    (photos / "train" / "cats" / "new.png").write_bytes(png(seed=101))
    before = bases.computed
    assert evaluate_on(open_dataset(photos), [bundle], store=store).images == 13
    assert bases.computed == before + 1


@pytest.mark.parametrize(("split", "images"), [("train", 12), ("validation", 12), ("test", 12), ("all", 36)])
def test_a_split_can_be_chosen(split: str, images: int, photos: Path, store: Store, bases: Bases) -> None:
    found = evaluate_on(open_dataset(photos), trained(photos, store), split=split, store=store)
    assert (found.split, found.images) == (split, images)


def test_without_a_test_split_validation_is_scored_and_said_to_flatter(
    photos: Path, store: Store, bases: Bases
) -> None:
    bundles = trained(photos, store)
    shutil.rmtree(photos / "test")
    found = evaluate_on(open_dataset(photos), bundles, store=store)
    assert found.split == "validation"
    assert "there is no test split" in found.notes[0]
    assert "flatters" in found.notes[1]


def test_images_split_by_content_can_all_be_scored(photos: Path, store: Store, bases: Bases, tmp_path: Path) -> None:
    bundles = trained(photos, store)
    for name in ("cats", "dogs"):
        (tmp_path / "new" / name).mkdir(parents=True)
        for i in range(20):
            (tmp_path / "new" / name / f"{i}.png").write_bytes(png(seed=ord(name[0]) * 100 + i))
    found = evaluate_on(open_dataset(tmp_path / "new"), bundles, store=store)
    assert 0 < found.images < 20
    assert "--split all" in found.notes[0]
    assert evaluate_on(open_dataset(tmp_path / "new"), bundles, split="all", store=store).images == 40


def test_a_split_that_is_not_there_names_those_that_are(photos: Path, store: Store, bases: Bases) -> None:
    bundles = trained(photos, store)
    shutil.rmtree(photos / "test")
    with pytest.raises(InputError, match=r"no labelled image in the test split[\s\S]*train \(12 images\)"):
        evaluate_on(open_dataset(photos), bundles, split="test", store=store)


def test_images_without_labels_are_no_test(photos: Path, store: Store, bases: Bases, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "1.png").write_bytes(png(1))
    with pytest.raises(InputError, match="no image has a label"):
        evaluate_on(open_dataset(tmp_path / "flat"), trained(photos, store), store=store)


def test_unlabelled_and_rejected_images_are_left_out_and_counted(
    photos: Path, store: Store, bases: Bases, tmp_path: Path
) -> None:
    bundles = trained(photos, store)
    (photos / "test" / "dogs" / "bad.png").write_bytes(b"no picture")
    lines = [f"photos/test/{name}/{i}.png,{name},test" for name in ("cats", "dogs") for i in range(6)]
    lines += ["photos/test/dogs/bad.png,dogs,test", "photos/train/cats/0.png,,unlabelled"]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *lines]))
    found = evaluate_on(open_dataset(tmp_path / "list.csv"), bundles, store=store)
    assert (found.images, found.unlabelled, found.reasons) == (12, 1, {"not-an-image": 1})
    assert [note for note in found.notes if note.startswith("left out")] == [
        "left out: 1 unlabelled image of the dataset",
        "left out: 1 rejected image of the split (1 not-an-image)",
    ]


def test_exact_and_near_copies_of_what_the_head_was_fitted_on_are_found_and_scored_apart(
    photos: Path, store: Store, bases: Bases
) -> None:
    bundles = trained(photos, store)
    shutil.copy(photos / "train" / "cats" / "0.png", photos / "test" / "dogs" / "exact.png")
    (photos / "test" / "dogs" / "near.png").write_bytes(nearly(seed=2))  # train/cats/1.png
    found = evaluate_on(open_dataset(photos), bundles, store=store)
    [result] = found.results
    planted = {seen.path: seen for seen in result.seen}
    exact, near = planted["test/dogs/exact.png"], planted["test/dogs/near.png"]
    assert (exact.exact, exact.train_path, exact.cosine) == (True, "train/cats/0.png", 1.0)
    assert (near.exact, near.train_path) == (False, "train/cats/1.png")
    assert found.threshold <= near.cosine < 1
    assert result.without_seen is not None
    assert result.metrics.n == 14
    assert result.without_seen.n == 14 - len(planted)
    assert result.without_seen.accuracy.value != result.metrics.accuracy.value
    assert any("were seen in training: 1 exactly" in note and f"{found.threshold:g}" in note for note in found.notes)


def test_the_guard_needs_neither_the_training_images_nor_their_names(
    photos: Path, store: Store, bases: Bases, tmp_path: Path
) -> None:
    bundles = trained(photos, store)
    new = tmp_path / "new" / "test"
    shutil.copytree(photos / "test", new)
    shutil.copy(photos / "train" / "cats" / "0.png", new / "cats" / "exact.png")
    shutil.rmtree(photos)
    [result] = evaluate_on(open_dataset(new.parent), bundles, store=store).results
    assert [(seen.path, seen.train_path) for seen in result.seen if seen.exact] == [("test/cats/exact.png", None)]


def test_features_of_training_images_that_are_gone_are_said_to_be_missing(
    photos: Path, store: Store, bases: Bases, tmp_path: Path
) -> None:
    bundles = trained(photos, store)
    found = evaluate_on(open_dataset(photos), bundles, store=Store.open(tmp_path / "other store"))
    assert found.results[0].searched == 0
    assert any("near copies were not looked for" in note for note in found.notes)


def test_the_training_images_themselves_say_nothing_of_new_ones(photos: Path, store: Store, bases: Bases) -> None:
    found = evaluate_on(open_dataset(photos), trained(photos, store), split="train", store=store)
    [result] = found.results
    assert len(result.seen) == 12
    assert result.without_seen is None
    assert any("says nothing of new images" in note for note in found.notes)


def test_a_class_that_the_head_does_not_know_counts_as_wrong_and_is_said(
    photos: Path, store: Store, bases: Bases
) -> None:
    bundles = trained(photos, store)
    before = evaluate_on(open_dataset(photos), bundles, store=store).results[0].metrics
    (photos / "test" / "birds").mkdir()
    for i in range(3):
        (photos / "test" / "birds" / f"{i}.png").write_bytes(png(seed=200 + i))
    found = evaluate_on(open_dataset(photos), bundles, store=store)
    [result] = found.results
    assert result.strangers == (("birds", 3),)
    assert result.metrics.accuracy.value == pytest.approx(before.accuracy.value * 12 / 15)
    assert [entry.name for entry in result.metrics.per_class] == ["cats", "dogs", "birds"]
    assert "the head does not know 'birds': its 3 images here count as wrong" in found.notes


def test_classes_are_matched_by_name_whatever_their_order(photos: Path, store: Store, bases: Bases) -> None:
    bundles = trained(photos, store)
    before = evaluate_on(open_dataset(photos), bundles, store=store).results[0].metrics
    (photos / "train" / "ants").mkdir()
    (photos / "train" / "ants" / "0.png").write_bytes(png(seed=300))
    assert open_dataset(photos).classes == ("ants", "cats", "dogs")
    assert evaluate_on(open_dataset(photos), bundles, store=store).results[0].metrics == before


def test_a_head_that_knows_none_of_the_classes_is_refused_before_any_work(
    photos: Path, store: Store, bases: Bases, tmp_path: Path
) -> None:
    bundles = trained(photos, store)
    for name in ("Cat", "Dog"):
        (tmp_path / "other" / name).mkdir(parents=True)
        (tmp_path / "other" / name / "1.png").write_bytes(png(seed=ord(name[0])))
    before = bases.computed
    with pytest.raises(InputError, match=r"knows none[\s\S]*cats, dogs[\s\S]*Cat, Dog"):
        evaluate_on(open_dataset(tmp_path / "other"), bundles, store=store)
    assert bases.computed == before


def test_several_heads_are_compared_pair_by_pair_on_the_same_images(photos: Path, store: Store, bases: Bases) -> None:
    bundles = [*trained(photos, store, "logreg", "linear-svm"), *trained(photos, store, backbone="xception")]
    found = evaluate_on(open_dataset(photos), [*bundles, bundles[0]], store=store)
    assert [result.bundle for result in found.results] == list(map(str, bundles))
    assert [(pair.first, pair.second) for pair in found.comparisons] == [
        (str(bundles[i]), str(bundles[j])) for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    for result in found.results:
        assert result.metrics.n == len(result.right) == 12
    alone = evaluate_on(open_dataset(photos), bundles[2:], store=store)
    assert alone.results[0].metrics == found.results[2].metrics
    assert alone.comparisons == ()


def test_calibrated_heads_are_shown_before_it_as_well(photos: Path, store: Store, bases: Bases) -> None:
    bundles = trained(photos, store, "logreg", "linear-svm")
    results = evaluate_on(open_dataset(photos), bundles, store=store).results
    methods = [read_bundle(bundle).card.calibration.method for bundle in bundles]
    assert sorted(methods) == ["none", "temperature"]
    for method, result in zip(methods, results, strict=True):
        assert (result.uncalibrated is None) == (method == "none")
        if result.uncalibrated is not None:
            assert result.uncalibrated.accuracy == result.metrics.accuracy
            assert result.uncalibrated.log_loss != result.metrics.log_loss


def test_other_weights_are_refused(photos: Path, store: Store, bases: Bases, monkeypatch: pytest.MonkeyPatch) -> None:
    bundles = trained(photos, store)
    monkeypatch.setattr("featstore.job.resolve", lambda *args, **more: stub_base("vgg19"))
    with pytest.raises(InputError, match="not the ones"):
        evaluate_on(open_dataset(photos), bundles, store=store)


def test_joined_backbones_are_evaluated_with_the_features_of_both(photos: Path, store: Store, bases: Bases) -> None:
    [bundle] = trained(photos, store, backbone="vgg16+xception")
    shutil.copy(photos / "train" / "cats" / "0.png", photos / "test" / "cats" / "exact.png")
    (photos / "test" / "cats" / "near.png").write_bytes(nearly(seed=2))
    [result] = evaluate_on(open_dataset(photos), [bundle], store=store).results
    assert {"test/cats/exact.png", "test/cats/near.png"} <= {seen.path for seen in result.seen}
    assert (result.searched, result.fitted) == (12, 12)


def test_images_for_which_no_near_copy_was_looked_for_are_told(
    photos: Path, store: Store, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles = trained(photos, store)
    monkeypatch.setattr("heads.evaluation.leaks.MOST_PRODUCTS", 1)
    notes = " ".join(evaluate_on(open_dataset(photos), bundles, store=store).notes)
    assert "were looked for of 1 of the 12 images" in notes


def test_the_json_can_be_read_and_names_are_printable(photos: Path, store: Store, bases: Bases) -> None:
    bundles = trained(photos, store, "logreg", "linear-svm")
    (photos / "test" / "cats" / "odd-\udcff.png").write_bytes((photos / "train" / "cats" / "0.png").read_bytes())
    value = json.loads(json.dumps(evaluate_on(open_dataset(photos), bundles, store=store).to_json()))
    assert {leak["path"] for leak in value["results"][0]["leaks"] if leak["exact"]} == {"test/cats/odd-\\xff.png"}
    assert len(value["pairs"]) == 1


def test_names_of_heads_are_their_folders_unless_two_are_called_the_same(
    photos: Path, store: Store, bases: Bases
) -> None:
    [bundle] = trained(photos, store)
    copy = photos.parent / "copy" / bundle.name
    shutil.copytree(bundle, copy)
    dataset = open_dataset(photos)
    assert evaluate_on(dataset, [bundle], store=store).names == (bundle.name,)
    assert evaluate_on(dataset, [bundle, copy], store=store).names == (str(bundle), str(copy))
