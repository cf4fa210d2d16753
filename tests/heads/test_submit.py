from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore import Request, Store, open_dataset
from featstore.errors import InputError
from featstore.records import Reason
from heads.bundles.card import Card
from heads.compose import train_on
from heads.evaluation.metrics import measure
from heads.predict import Prediction
from heads.submit import SubmitOptions, submission, submit_files
from tests.pictures import class_folders, png
from tests.stubs import Bases


@pytest.fixture
def two(card: Card) -> Card:
    """The card of a head for two classes; three of four held-out images were dogs."""
    classes = ("cats", "dogs")
    y = np.array([0, 1, 1, 1])
    return replace(card, classes=classes, clip=0.01, held_out=measure(y, np.eye(2)[y], classes))


def said(path: str, *probabilities: float, classes: tuple[str, ...] = ("cats", "dogs")) -> Prediction:
    if not probabilities:
        return Prediction(path, None, classes, (), Reason.TRUNCATED, False)
    return Prediction(path, classes[int(np.argmax(probabilities))], classes, probabilities, Reason.OK, True)


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_ids_are_stems_in_natural_order_with_the_second_classs_probability(two: Card) -> None:
    done = submission(two, [said(f"test/{name}.jpg", 0.25, 0.75) for name in ("10", "9", "1", "2", "100")])
    assert done.to_csv().splitlines()[0] == "id,label"
    lines = read(done.to_csv())
    assert [line["id"] for line in lines] == ["1", "2", "9", "10", "100"]
    assert {line["label"] for line in lines} == {"0.75"}
    assert (done.positive, done.clip, done.rejected, done.notes) == ("dogs", 0.01, (), ())


def test_the_positive_class_can_be_chosen(two: Card) -> None:
    assert submission(two, [said("1.jpg", 0.25, 0.75)], SubmitOptions("cats")).rows == (("1", "0.25"),)
    with pytest.raises(InputError, match="did you mean cats"):
        submission(two, [said("1.jpg", 0.25, 0.75)], SubmitOptions("cat"))


def test_probabilities_keep_the_fitted_bound_from_0_and_1_unless_another_is_asked_for(two: Card) -> None:
    found = [said("1.jpg", 0.0, 1.0), said("2.jpg", 1.0, 0.0)]
    assert [row[1] for row in submission(two, found).rows] == ["0.99", "0.01"]
    assert [row[1] for row in submission(two, found, SubmitOptions(clip=0.2)).rows] == ["0.8", "0.2"]
    hardly = submission(two, found, SubmitOptions(clip=0)).rows
    assert all(0 < float(row[1]) < 1 for row in hardly), "the log loss of 0 is infinite"
    unfitted = submission(replace(two, clip=None), found)
    assert unfitted.rows == hardly
    assert "not clipped" in unfitted.notes[0]


@pytest.mark.parametrize("clip", [-0.1, 0.5, float("nan")])
def test_a_bound_that_is_none_is_refused(clip: float, two: Card) -> None:
    with pytest.raises(InputError, match="no bound"):
        submission(two, [said("1.jpg", 0.5, 0.5)], SubmitOptions(clip=clip))


def test_a_rejected_image_has_a_line_that_says_no_more_than_the_held_out_images(two: Card) -> None:
    done = submission(two, [said("2.jpg"), said("1.jpg", 0.9, 0.1)])
    assert done.rows == (("1", "0.1"), ("2", repr(4 / 6)))
    assert done.rejected == (("2.jpg", "truncated"),)
    assert "1 image could not be read (1 truncated)" in done.notes[0]


def test_two_files_with_one_id_are_refused_and_the_same_file_twice_is_one_line(two: Card) -> None:
    with pytest.raises(InputError, match=r"one id[\s\S]*b/1.png and a/1.jpg"):
        submission(two, [said("a/1.jpg", 0.5, 0.5), said("b/1.png", 0.5, 0.5)])
    assert len(submission(two, [said("a/1.jpg", 0.5, 0.5)] * 2).rows) == 1


THREE = ("ant", "bee", '=cow, "x"\n')


@pytest.fixture
def three(card: Card) -> Card:
    y = np.array([0, 1, 2, 2])
    return replace(card, classes=THREE, clip=0.02, held_out=measure(y, np.eye(3)[y], THREE))


def test_of_more_classes_the_label_is_the_likeliest_name(three: Card) -> None:
    done = submission(three, [said("2.png", 0.1, 0.2, 0.7, classes=THREE), said("1.png", classes=THREE)])
    lines = read(done.to_csv())
    assert [line["label"] for line in lines] == [THREE[2], THREE[2]], "names exactly as they are"
    assert (done.positive, done.clip) == (None, None)


def test_of_more_classes_one_can_be_chosen(three: Card) -> None:
    found = [said("1.png", 0.1, 0.9, 0.0, classes=THREE), said("2.png", 0.0, 1.0, 0.0, classes=THREE)]
    done = submission(three, found, SubmitOptions("bee"))
    columns = submission(three, found, SubmitOptions(per_class=True))
    assert [row[1] for row in done.rows] == [row[2] for row in columns.rows], "one bound has one meaning"
    assert done.rows[1][1] == "0.98"


def test_every_class_can_have_a_column_and_rows_sum_to_1(three: Card) -> None:
    found = [said("1.png", 0.2, 0.3, 0.5, classes=THREE), said("2.png", 0.0, 1.0, 0.0, classes=THREE)]
    lines = read(submission(three, found, SubmitOptions(per_class=True)).to_csv())
    assert list(lines[0]) == ["id", *THREE]
    values = np.array([[float(line[name]) for name in THREE] for line in lines])
    np.testing.assert_allclose(values.sum(axis=1), 1)
    np.testing.assert_allclose(values, [[0.2, 0.3, 0.5], [0.01, 0.98, 0.01]])


def test_one_class_and_all_of_them_are_not_both_written(three: Card) -> None:
    with pytest.raises(InputError, match="cannot both"):
        submission(three, [], SubmitOptions("bee", per_class=True))


def log_loss(of_truth: Any) -> float:
    return float(-np.log(of_truth).mean())


def test_the_submitted_bound_never_worsens_the_validation_images_it_was_fitted_on(
    private_home: Path, bases: Bases, tmp_path: Path
) -> None:
    store, photos = Store.open(private_home / "store"), class_folders(tmp_path / "photos")
    _, compared = train_on(
        open_dataset(photos), [Request("vgg16")], ["logreg", "linear-svm", "knn"], store=store, bundles=tmp_path / "b"
    )
    for result in compared.results:
        assert result.bundle is not None
        dogs = [float(row[1]) for row in submit_files(result.bundle, [photos / "validation/dogs"], store=store).rows]
        cats = [float(row[1]) for row in submit_files(result.bundle, [photos / "validation/cats"], store=store).rows]
        held_out = np.clip(result.probabilities[np.arange(len(result.answers)), result.answers], 1e-15, 1 - 1e-15)
        clip = submit_files(result.bundle, [photos / "validation/cats"], store=store).clip
        assert clip is not None
        assert log_loss(np.clip(held_out, clip, 1 - clip)) <= log_loss(held_out) + 1e-12
        assert all(clip <= value <= 1 - clip for value in dogs + cats)


def test_options_are_refused_before_any_work(private_home: Path, bases: Bases, tmp_path: Path) -> None:
    store, photos = Store.open(private_home / "store"), class_folders(tmp_path / "photos")
    _, compared = train_on(open_dataset(photos), [Request("vgg16")], ["logreg"], store=store, bundles=tmp_path / "b")
    bundle = compared.best.bundle
    assert bundle is not None
    (tmp_path / "new.png").write_bytes(png(seed=5))
    before = bases.computed
    with pytest.raises(InputError, match="unknown class"):
        submit_files(bundle, [tmp_path / "new.png"], store=store, options=SubmitOptions("wolf"))
    assert bases.computed == before
