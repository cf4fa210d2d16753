from __future__ import annotations

import pytest

from featstore.dataset.dataset import BY_DIGEST, UNLABELLED
from featstore.dataset.layouts import TEST, TRAIN, VALIDATION, Arrangement, arrange
from featstore.dataset.listing import Listing


def arranged(*files: str, folders: tuple[str, ...] = (), pattern: str | None = None, root: str = "") -> Arrangement:
    above = {"/".join(f.split("/")[:i]) for f in files for i in range(1, f.count("/") + 1)}
    return arrange(Listing(files, [*sorted(above), *folders]), pattern, lambda path: "picture" in path, root)


def rows(arrangement: Arrangement) -> list[tuple[str, str | None, int]]:
    return list(zip(arrangement.paths, arrangement.labels, arrangement.splits, strict=True))


class TestSplitFolders:
    def test_splits_and_classes_are_folders(self) -> None:
        found = arranged("test/a/1.jpg", "train/a/1.jpg", "train/b/deep/2.jpg", "val/b/3.jpg")
        assert found.layout == "split folders"
        assert rows(found) == [
            ("train/a/1.jpg", "a", TRAIN),
            ("train/b/deep/2.jpg", "b", TRAIN),
            ("val/b/3.jpg", "b", VALIDATION),
            ("test/a/1.jpg", "a", TEST),
        ]

    @pytest.mark.parametrize("name", ["validation", "val", "valid", "Valid", "VALIDATION"])
    def test_validation_has_many_names(self, name: str) -> None:
        assert arranged("train/a/1.jpg", f"{name}/a/1.jpg").splits == [TRAIN, VALIDATION]

    @pytest.mark.parametrize("splits", [["train"], ["Train", "TEST"], ["test"], ["train", "val"]])
    def test_any_subset_will_do(self, splits: list[str]) -> None:
        found = arranged(*(f"{split}/{label}/1.jpg" for split in splits for label in "ab"))
        assert found.layout == "split folders"
        assert BY_DIGEST not in found.splits

    def test_a_class_may_be_called_train(self) -> None:
        found = arranged("car/1.jpg", "plane/1.jpg", "train/1.jpg")
        assert found.layout == "class folders"
        assert found.labels == ["car", "plane", "train"]

    def test_other_folders_beside_the_splits_are_passed_over_with_a_note(self) -> None:
        found = arranged("docs/x.jpg", "train/a/1.jpg", "train/b/1.jpg")
        assert found.paths == ["train/a/1.jpg", "train/b/1.jpg"]
        assert any("docs" in note for note in found.notes)

    def test_images_beside_the_class_folders_are_passed_over_with_a_note(self) -> None:
        found = arranged("train/a/1.jpg", "train/b/1.jpg", "train/loose.jpg", "train/notes.txt")
        assert len(found.paths) == 2
        assert found.notes == ["passed over 1 image beside the class folders of train"]

    def test_an_empty_class_is_left_out_with_a_note(self) -> None:
        found = arranged("train/a/1.jpg", folders=("train/b", "train/a/deep"))
        assert set(found.labels) == {"a"}
        assert found.notes == ["class folders without any image, left out: b"]


class TestKaggle:
    def test_a_numbered_test_folder_is_unlabelled_and_train_is_split_by_digest(self) -> None:
        found = arranged("train/cat.0.jpg", "train/dog.1.jpg", "test1/1.jpg", "sampleSubmission.csv")
        assert rows(found) == [
            ("train/cat.0.jpg", "cat", BY_DIGEST),
            ("train/dog.1.jpg", "dog", BY_DIGEST),
            ("test1/1.jpg", None, UNLABELLED),
        ]
        assert any("test has no labels" in note for note in found.notes)

    def test_with_labelled_validation_train_stays_whole(self) -> None:
        found = arranged("train/cat.0.jpg", "validation/cat.1.jpg", "test/1.jpg")
        assert found.splits == [TRAIN, VALIDATION, UNLABELLED]

    @pytest.mark.parametrize("folders", [(), ("validation",)])
    def test_so_it_does_with_any_validation_folder_and_a_note(self, folders: tuple[str, ...]) -> None:
        files = ["train/cat.0.jpg", "test/1.jpg", *([] if folders else ["validation/2.jpg"])]
        found = arranged(*files, folders=folders)
        assert found.splits[0] == TRAIN
        assert "test has no labels, and there is a validation folder: train is not split" in found.notes

    def test_a_few_labels_among_the_unlabelled_are_noted_and_move_no_image_of_train(self) -> None:
        numbered = [f"test/{number}.jpg" for number in range(5)]
        found = arranged("train/cat.0.jpg", *numbered, "test/cat.7.jpg", "test/cat.8.jpg")
        assert found.splits == [BY_DIGEST, *[UNLABELLED] * 5, TEST, TEST]
        assert found.notes == [
            "test has labels for 2 of 7 images: the images of train are split into train, validation and test"
        ]

    def test_nor_do_a_few_unlabelled_among_the_labelled(self) -> None:
        labelled = [f"test/cat.{number}.jpg" for number in range(3)]
        found = arranged("train/cat.0.jpg", *labelled, "test/1.jpg", "test/2.jpg", "test/3.jpg")
        assert found.splits == [TRAIN, *[TEST] * 3, *[UNLABELLED] * 3]
        assert found.notes == []

    def test_one_test_folder_with_labels_is_enough_to_keep_train_whole(self) -> None:
        found = arranged("train/cat.0.jpg", "test/cat/1.jpg", *(f"test1/{number}.jpg" for number in range(3)))
        assert found.splits == [TRAIN, TEST, *[UNLABELLED] * 3]

    def test_a_name_in_test_is_a_label_only_if_train_has_it(self) -> None:
        found = arranged("train/cat.0.jpg", "test/IMG_1.jpg", "test/cat.2.jpg")
        assert rows(found)[1:] == [("test/IMG_1.jpg", None, UNLABELLED), ("test/cat.2.jpg", "cat", TEST)]


class TestClassFolders:
    def test_folders_are_classes_and_the_digest_splits(self) -> None:
        found = arranged("a/1.jpg", "b/deep/2", "README.md")
        assert found.layout == "class folders"
        assert rows(found) == [("a/1.jpg", "a", BY_DIGEST), ("b/deep/2", "b", BY_DIGEST)]

    def test_below_a_root_only_the_rest_counts(self) -> None:
        found = arranged("top/a/1.jpg", "top/b/1.jpg", root="top/")
        assert rows(found) == [("top/a/1.jpg", "a", BY_DIGEST), ("top/b/1.jpg", "b", BY_DIGEST)]
        assert found.notes == []


class TestFlatFiles:
    @pytest.mark.parametrize(
        ("name", "label"),
        [
            ("cat.0.jpg", "cat"),
            ("dog_12.png", "dog"),
            ("cat12.JPEG", "cat"),
            ("great_dane-3.jpg", "great_dane"),
            ("cat (2).jpg", "cat"),
            ("n01440764_10026.JPEG", "n01440764"),
            ("Äffchen-1.jpg", "Äffchen"),
            ("12.jpg", None),
            ("cat.jpg", None),
            ("crash-0c7e0e8.jpg", None),
        ],
    )
    def test_the_label_is_the_word_before_the_number(self, name: str, label: str | None) -> None:
        assert arranged(name).labels == [label]

    def test_files_without_label_are_in_no_split(self) -> None:
        assert rows(arranged("cat.1.jpg", "x.jpg")) == [("cat.1.jpg", "cat", BY_DIGEST), ("x.jpg", None, UNLABELLED)]

    def test_loose_files_count_if_their_ending_or_their_content_is_a_picture(self) -> None:
        assert arranged("1.jpg", "LICENSE", "labels.csv", "picture", "broken.png").paths == [
            "1.jpg",
            "picture",
            "broken.png",
        ]

    def test_a_pattern_of_ones_own_goes_before_folders(self) -> None:
        found = arranged("x/7-cat.jpg", "y/8-dog.jpg", "y/nine.jpg", pattern=r"\d-(\w+)\.")
        assert found.layout == "flat files"
        assert found.labels == ["cat", "dog", None]

    def test_a_group_called_label_goes_before_the_first(self) -> None:
        assert arranged("7-cat.jpg", pattern=r"(\d)-(?P<label>\w+)").labels == ["cat"]

    def test_an_empty_label_is_none(self) -> None:
        assert arranged("7-.jpg", pattern=r"\d-(\w*)").labels == [None]


def test_nothing_is_arranged_as_nothing() -> None:
    assert rows(arranged()) == []
