from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from featstore.dataset import DatasetOptions, open_dataset, require_trainable
from featstore.dataset.dataset import BY_DIGEST
from featstore.errors import FeatstoreError, InputError
from featstore.records import SPLITS
from tests.featstore.dataset.samples import PICTURE, refusal, write


class TestFolders:
    def test_split_folders_become_a_dataset(self, tmp_path: Path) -> None:
        write(
            tmp_path, "train/dogs/10.jpg", "train/dogs/9.jpg", "train/cats/1.jpg", "test/cats/2.jpg", "test/dogs/2.jpg"
        )
        data = open_dataset(tmp_path)
        assert data.layout == "split folders"
        assert data.name == tmp_path.name
        assert data.paths[:3] == ("train/cats/1.jpg", "train/dogs/9.jpg", "train/dogs/10.jpg")
        assert data.ids == data.paths
        assert data.classes == ("cats", "dogs")
        assert data.labels.dtype == np.int64
        assert data.labels.tolist() == [0, 1, 1, 0, 1]
        assert [SPLITS[s] for s in data.splits] == ["train"] * 3 + ["test"] * 2
        assert data.notes == ()
        assert data.source.read(data.paths[0], 10_000) == PICTURE

    def test_what_a_split_lacks_is_noted_once(self, tmp_path: Path) -> None:
        write(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "validation/a/2.jpg", "test/c/3.jpg")
        (tmp_path / "train" / "empty").mkdir()
        assert open_dataset(tmp_path).notes == (
            "class folders without any image, left out: empty",
            "c is seen only in test: no head can learn it",
            "validation has no image of b",
            "test has no image of a, b",
        )

    def test_split_folders_are_found_below_a_chain_of_single_folders(self, tmp_path: Path) -> None:
        write(tmp_path, *(f"a/b/photos/{split}/{label}/1.jpg" for split in ("train", "test") for label in "xy"))
        write(tmp_path, "a/.DS_Store", "a/b/Thumbs.db")
        data = open_dataset(tmp_path)
        assert (data.layout, data.classes, data.notes) == ("split folders", ("x", "y"), ())
        assert data.splits.tolist() == [0, 0, 2, 2]
        assert data.paths[0] == "a/b/photos/train/x/1.jpg"
        assert data.source.read(data.paths[0], 10_000) == PICTURE

    def test_one_class_folder_alone_stays_a_class(self, tmp_path: Path) -> None:
        write(tmp_path, "photos/cats/IMG_1.jpg", "photos/cats/DSC_2.jpg")
        assert open_dataset(tmp_path / "photos").classes == ("cats",)
        assert open_dataset(tmp_path).classes == ("cats",)

    def test_split_folders_that_lie_deeper_beside_other_things_are_pointed_out(self, tmp_path: Path) -> None:
        root = write(tmp_path / "withjunk", "readme.jpg", "photos/train/a/1.jpg", "photos/test/a/2.jpg")
        note = "train and test folders lie deeper: did you mean withjunk/photos?"
        assert note in open_dataset(root).notes
        assert note not in open_dataset(root / "photos").notes

    def test_a_pattern_that_labels_no_file_is_refused_with_a_name(self, tmp_path: Path) -> None:
        write(tmp_path, "x/1-cat.jpg", "y/2-dog.jpg")
        with pytest.raises(InputError, match="finds no label") as caught:
            open_dataset(tmp_path, DatasetOptions(label_pattern=r"_(\w+)"))
        assert "names such as 1-cat.jpg" in str(caught.value)

    def test_options_reach_the_dataset(self, tmp_path: Path) -> None:
        write(tmp_path, "x/1-cat.jpg", "x/2-dog.jpg")
        data = open_dataset(tmp_path, DatasetOptions(7, (0.5, 0.25, 0.25), r"-(\w+)"))
        assert (data.seed, data.fractions, data.classes) == (7, (0.5, 0.25, 0.25), ("cat", "dog"))

    def test_kaggles_layout_has_numbers_as_ids(self, tmp_path: Path) -> None:
        write(tmp_path, "train/cat.0.jpg", "train/dog.1.jpg", "test/2.jpg", "test/10.jpg")
        data = open_dataset(tmp_path)
        assert data.ids == ("train/cat.0.jpg", "train/dog.1.jpg", "2", "10")
        assert data.labels.tolist() == [0, 1, -1, -1]
        assert data.splits.tolist() == [BY_DIGEST, BY_DIGEST, 3, 3]

    def test_a_number_that_is_there_twice_is_no_id(self, tmp_path: Path) -> None:
        write(tmp_path, "1.jpg", "1.png")
        assert open_dataset(tmp_path).ids == ("1.jpg", "1.png")

    def test_one_class_or_no_label_is_a_dataset_that_cannot_be_trained_on(self, tmp_path: Path) -> None:
        for name in ("cats/1.jpg", "1.jpg"):
            data = open_dataset(write(tmp_path / name.replace("/", "-"), name))
            assert len(data) == 1
            with pytest.raises(InputError, match="nothing can be trained"):
                require_trainable(data)

    def test_images_without_ending_are_found_by_their_content(self, tmp_path: Path) -> None:
        assert len(open_dataset(write(tmp_path, "a/one", "b/two"))) == 2

    def test_odd_files_do_not_stop_a_dataset(self, tmp_path: Path) -> None:
        write(tmp_path, "a/1.jpg", "b/caf\udce9.jpg")
        (tmp_path / "a" / "loop").symlink_to(tmp_path)
        if hasattr(os, "mkfifo"):
            os.mkfifo(tmp_path / "b" / "fifo.jpg")
        data = open_dataset(tmp_path)
        assert data.paths == ("a/1.jpg", "b/caf\udce9.jpg")
        assert data.source.read(data.paths[1], 10_000) == PICTURE
        assert any("loop" in note for note in data.notes)

    def test_a_home_folder_may_be_named_by_its_tilde(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        write(tmp_path / "pictures", "a/1.jpg")
        assert open_dataset("~/pictures").source.location == str(tmp_path / "pictures")

    def test_many_files_are_listed_in_a_moment(self, tmp_path: Path) -> None:
        for label in "ab":
            (tmp_path / label).mkdir()
            for i in range(5_000):
                (tmp_path / label / f"{i}.jpg").touch()
        started = time.perf_counter()
        assert len(open_dataset(tmp_path)) == 10_000
        assert time.perf_counter() - started < 20  # seconds; 0.3 on an idle machine


class TestBadInput:
    def test_a_missing_folder_is_one_message_with_the_nearest_name(self, tmp_path: Path) -> None:
        write(tmp_path / "photographs", "1.jpg")
        said = refusal(tmp_path / "photograph")
        assert said.exit_code == 2
        assert "does not exist" in str(said)
        assert "did you mean photographs?" in str(said)

    @pytest.mark.parametrize("name", ["empty", "hidden", "nested"])
    def test_an_empty_folder_is_one_message(self, name: str, tmp_path: Path) -> None:
        (tmp_path / "nested" / "a").mkdir(parents=True)
        (tmp_path / "empty").mkdir()
        write(tmp_path / "hidden", ".x.jpg", "Thumbs.db")
        assert "no files" in str(refusal(tmp_path / name))

    @pytest.mark.parametrize("paths", [("notes.txt", "todo.md"), ("a/notes.txt", "b/todo.md")])
    def test_a_folder_of_text_says_what_it_found(self, paths: tuple[str, ...], tmp_path: Path) -> None:
        said = str(refusal(write(tmp_path, *paths, data=b"text")))
        assert "no images in" in said
        assert "2 files such as" in said
        assert "notes.txt" in said

    def test_an_empty_name_is_not_the_current_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(write(tmp_path, "cats/1.jpg"))
        assert "no dataset was named" in str(refusal(""))

    def test_a_file_of_another_kind_is_refused(self, tmp_path: Path) -> None:
        write(tmp_path, "a.txt", data=b"text")
        assert "not a dataset" in str(refusal(tmp_path / "a.txt"))
        assert "does not exist" in str(refusal(tmp_path / "a.txt" / "b"))

    def test_a_fifo_or_device_is_refused_at_once(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo.csv")
        assert "neither a file nor a folder" in str(refusal(tmp_path / "fifo.csv"))
        assert "neither a file nor a folder" in str(refusal("/dev/zero"))

    @pytest.mark.parametrize("path", ["a\0b", "n" * 5000])
    def test_an_impossible_path_is_an_expected_failure(self, path: str) -> None:
        with pytest.raises(FeatstoreError):
            open_dataset(path)

    def test_a_zip_that_is_none_is_refused(self, tmp_path: Path) -> None:
        write(tmp_path, "a.zip", data=b"text")
        assert "zip cannot be read" in str(refusal(tmp_path / "a.zip"))


class TestLists:
    def test_files_are_unlabelled_in_the_order_given(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, "b.jpg", "a.jpg")
        monkeypatch.chdir(tmp_path)
        data = open_dataset(["b.jpg", tmp_path / "a.jpg", "b.jpg"])
        assert data.paths == ("b.jpg", str(tmp_path / "a.jpg"), "b.jpg")
        assert data.splits.tolist() == [3, 3, 3]
        assert data.classes == ()
        monkeypatch.chdir("/")
        assert data.source.read("b.jpg", 10_000) == PICTURE

    def test_one_image_is_a_list_of_one(self, tmp_path: Path) -> None:
        write(tmp_path, "a.jpg")
        assert open_dataset(tmp_path / "a.jpg").paths == (str(tmp_path / "a.jpg"),)

    def test_all_missing_files_are_named_at_once(self, tmp_path: Path) -> None:
        said = str(refusal([tmp_path / "x.jpg", tmp_path / "y.jpg"]))
        assert "x.jpg" in said
        assert "y.jpg" in said
        assert "no image file" in str(refusal([]))


class TestReal:
    def test_the_photographs_are_a_balanced_dataset(self, photographs: Path) -> None:
        data = open_dataset(photographs)
        assert np.bincount(data.splits).tolist() == [1000, 200, 199]
        assert data.classes == ("cats", "dogs")
        assert data.notes == ()
        require_trainable(data)

    def test_every_odd_file_counts(self, odd_images: Path) -> None:
        assert len(open_dataset(odd_images)) == sum(f.is_file() for f in odd_images.rglob("*"))


def test_the_package_loads_no_heavy_library() -> None:
    code = "import sys, featstore.scan; print([m for m in ('PIL', 'keras', 'h5py') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
