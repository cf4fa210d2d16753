from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from featstore.dataset import DatasetOptions, open_dataset
from featstore.dataset.sources import FolderSource, ZipSource
from tests.featstore.dataset.samples import PICTURE, refusal, write, zipped


class TestManifests:
    def test_paths_are_relative_to_the_manifest(self, tmp_path: Path) -> None:
        write(tmp_path, "images/1.jpg", "images/2.jpg")
        (tmp_path / "list.csv").write_text("path,label,split\nimages/2.jpg,b,train\nimages/1.jpg,a,val\n")
        data = open_dataset(tmp_path / "list.csv")
        assert (data.name, data.layout) == ("list", "manifest")
        assert data.paths == ("images/2.jpg", "images/1.jpg")
        assert data.classes == ("a", "b")
        assert data.source.read(data.paths[0], 10_000) == PICTURE

    def test_one_missing_file_is_no_error_and_all_are(self, tmp_path: Path) -> None:
        write(tmp_path, "1.jpg")
        (tmp_path / "some.csv").write_text("path\n1.jpg\n2.jpg\n")
        assert len(open_dataset(tmp_path / "some.csv")) == 2
        (tmp_path / "none.csv").write_text("path\nx/1.jpg\n2.jpg\n")
        assert "not there" in str(refusal(tmp_path / "none.csv"))

    def test_a_manifest_of_nothing_is_empty(self, tmp_path: Path) -> None:
        (tmp_path / "a.tsv").write_text("path\tlabel\n")
        assert "the manifest lists no image" in str(refusal(tmp_path / "a.tsv"))

    def test_missing_files_are_counted_in_a_note_after_one_look_at_each(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path, "299.jpg")
        (tmp_path / "list.csv").write_text("path\n" + "".join(f"{i}.jpg\n" for i in range(300)))
        looks = []
        stamp = FolderSource.stamp
        monkeypatch.setattr(FolderSource, "stamp", lambda self, path: looks.append(path) or stamp(self, path))
        assert open_dataset(tmp_path / "list.csv").notes == ("299 listed files are missing, such as 0.jpg",)
        assert len(looks) == 300
        (tmp_path / "list.csv").write_text("path\n299.jpg\nx.jpg\n")
        assert open_dataset(tmp_path / "list.csv").notes == ("1 listed file is missing, such as x.jpg",)

    @pytest.mark.parametrize("path", ["../beside/1.jpg", "inner/../../beside/1.jpg", "{folder}/beside/1.jpg"])
    def test_images_outside_of_its_folder_are_refused_unless_they_are_allowed(self, path: str, tmp_path: Path) -> None:
        write(tmp_path, "data/inner/1.jpg", "beside/1.jpg")
        manifest, path = tmp_path / "data" / "list.csv", path.format(folder=tmp_path)
        manifest.write_text(f"path,label\ninner/1.jpg,a\n{path},b\n")
        said = str(refusal(manifest))
        assert f"line 3: {path!r} is outside of the manifest's folder" in said
        assert "--outside" in said
        data = open_dataset(manifest, DatasetOptions(outside=True))
        assert (data.paths, data.notes) == (("inner/1.jpg", path), ())
        assert data.source.read(path, 10_000) == PICTURE

    @pytest.mark.parametrize(
        "path", ["away/../secret.jpg", "away/1.jpg", "one.jpg", "one.jpg/", "one.jpg/.", "inner/away/1.jpg"]
    )
    def test_so_are_those_that_links_lead_to(self, path: str, tmp_path: Path) -> None:
        write(tmp_path, "data/inner/1.jpg", "beside/there/1.jpg", "beside/secret.jpg", "data-too/1.jpg")
        (tmp_path / "data" / "away").symlink_to(tmp_path / "beside" / "there")
        (tmp_path / "data" / "one.jpg").symlink_to("../beside/secret.jpg")
        (tmp_path / "data" / "inner" / "away").symlink_to(tmp_path / "data-too")
        manifest = tmp_path / "data" / "list.csv"
        manifest.write_text(f"path,label\ninner/1.jpg,a\n{path},b\n")
        said = str(refusal(manifest))
        assert f"line 3: {path!r} is outside of the manifest's folder" in said
        assert "--outside" in said
        data = open_dataset(manifest, DatasetOptions(outside=True))
        assert data.source.read(data.paths[1], 10_000) == PICTURE

    def test_links_that_stay_inside_are_read_and_so_is_a_folder_that_is_one(self, tmp_path: Path) -> None:
        write(tmp_path, "data/inner/deep/1.jpg", "data/2.jpg")
        (tmp_path / "data" / "link").symlink_to("inner/deep")
        (tmp_path / "data" / "3.jpg").symlink_to(tmp_path / "data" / "2.jpg")
        (tmp_path / "data" / "loop").symlink_to("loop")
        (tmp_path / "again").symlink_to("data")
        names = ["link/1.jpg", "link/../deep/1.jpg", "3.jpg", "loop", "not-there/1.jpg", "x/" * 5000]
        (tmp_path / "data" / "list.csv").write_text("\n".join(["path", *names, ""]))
        for folder in ("data", "again"):
            data = open_dataset(tmp_path / folder / "list.csv")
            assert len(data) == len(names)
            assert data.source.read("link/../deep/1.jpg", 10_000) == PICTURE

    def test_each_folder_on_the_way_is_resolved_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, *(f"{folder}/{number}.jpg" for folder in "abc" for number in range(100)))
        rows = "".join(f"{folder}/{number}.jpg\n" for folder in "abc" for number in range(100))
        (tmp_path / "list.csv").write_text("path\n" + rows)
        resolved = []
        realpath = os.path.realpath
        monkeypatch.setattr(os.path, "realpath", lambda path: resolved.append(path) or realpath(path))
        assert len(open_dataset(tmp_path / "list.csv")) == 300
        assert len(resolved) == 4

    def test_no_two_datasets_of_one_folder_share_a_name(self, tmp_path: Path) -> None:
        write(tmp_path / "d", "1.jpg")
        names = ["a.csv", "b.csv", "a.tsv", "a.CSV", "d.csv", "a.tsv.csv"]
        for name in names:
            (tmp_path / "d" / name).write_text("path\n1.jpg\n")
        opened = [open_dataset(tmp_path / "d"), *(open_dataset(tmp_path / "d" / name) for name in names)]
        assert [data.name for data in opened] == ["d", "a", "b", "a.tsv", "a.CSV", "d.csv", "a.tsv.csv"]
        assert {data.source.location for data in opened} == {str(tmp_path / "d")}

    def test_a_label_pattern_that_a_manifest_overrules_is_noted(self, tmp_path: Path) -> None:
        write(tmp_path, "cat.1.jpg")
        (tmp_path / "list.csv").write_text("path\ncat.1.jpg\n")
        data = open_dataset(tmp_path / "list.csv", DatasetOptions(label_pattern=r"(\w+)\."))
        assert data.notes == ("the label pattern is not used: the manifest says the labels",)


class TestZips:
    def test_a_zip_is_read_like_its_folder(self, tmp_path: Path) -> None:
        names = ["train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg"]
        data = open_dataset(zipped(tmp_path / "d.zip", *names))
        folder = open_dataset(write(tmp_path / "d", *names))
        assert data.layout == "zip of split folders"
        assert (data.paths, data.classes, data.notes) == (folder.paths, folder.classes, folder.notes)
        assert data.splits.tolist() == folder.splits.tolist()
        assert data.source.read("val/a/3.jpg", 10_000) == PICTURE

    def test_one_folder_around_everything_is_looked_through(self, tmp_path: Path) -> None:
        data = open_dataset(zipped(tmp_path / "d.zip", "pets/cats/1.jpg", "pets/dogs/1.jpg", "__MACOSX/pets/._x"))
        assert data.classes == ("cats", "dogs")
        assert data.paths[0] == "pets/cats/1.jpg"

    def test_two_folders_around_everything_are_looked_through(self, tmp_path: Path) -> None:
        names = [f"x/y/{split}/{label}/1.jpg" for split in ("train", "test") for label in ("cats", "dogs")]
        data = open_dataset(zipped(tmp_path / "d.zip", *names))
        assert (data.layout, data.classes) == ("zip of split folders", ("cats", "dogs"))
        assert data.splits.tolist() == [0, 0, 2, 2]

    def test_split_folders_deeper_in_a_zip_are_pointed_out(self, tmp_path: Path) -> None:
        data = open_dataset(zipped(tmp_path / "d.zip", "readme.jpg", "photos/train/a/1.jpg", "photos/val/a/2.jpg"))
        assert any("train and validation folders lie deeper, in photos" in note for note in data.notes)

    def test_a_manifest_below_two_folders_is_used(self, tmp_path: Path) -> None:
        data = open_dataset(
            zipped(tmp_path / "d.zip", "x/y/1.jpg", "x/y/2.jpg", x__y__list="path,label\n1.jpg,a\n2.jpg,b\n")
        )
        assert (data.paths, data.classes) == (("x/y/1.jpg", "x/y/2.jpg"), ("a", "b"))

    def test_a_split_folder_is_not_looked_through(self, tmp_path: Path) -> None:
        data = open_dataset(zipped(tmp_path / "d.zip", "train/a/1.jpg", "train/b/1.jpg"))
        assert data.splits.tolist() == [0, 0]

    def test_flat_files_in_a_zip_are_labelled_by_name(self, tmp_path: Path) -> None:
        data = open_dataset(zipped(tmp_path / "d.zip", "x/cat.1.jpg", "x/dog.1.jpg", "x/readme"))
        assert data.classes == ("cat", "dog")
        assert len(data) == 3  # the "readme" is a picture by its content

    def test_a_manifest_in_a_zip_is_used_and_other_tables_are_not(self, tmp_path: Path) -> None:
        names = ("d/images/1.jpg", "d/images/2.jpg")
        data = open_dataset(
            zipped(tmp_path / "d.zip", *names, d__list="path,label\nimages/1.jpg,a\n./images/2.jpg,b\n")
        )
        assert data.layout == "zip of manifest"
        assert data.paths == names
        other = open_dataset(zipped(tmp_path / "e.zip", *names, d__sample="id,label\n1,0.5\n"))
        assert other.layout == "zip of class folders"

    def test_a_table_is_known_by_its_first_line_without_being_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        big = "id,label\n" + "1,0.5\n" * 100_000
        path = zipped(tmp_path / "d.zip", "a/1.jpg", "b/1.jpg", sample=big, other=big.replace("id", "no"))
        monkeypatch.setattr(ZipSource, "read", lambda *_: pytest.fail("read whole"))
        assert open_dataset(path).layout == "zip of class folders"

    def test_a_zip_of_unsafe_names_alone_is_refused_for_that(self, tmp_path: Path) -> None:
        error = refusal(zipped(tmp_path / "d.zip", "./a/../a/0.jpg", "..\\..\\a\\0.jpg"))
        assert "no files in this dataset that can be read" in error.what
        assert error.received == "passed over 2 entries with unsafe names (absolute or with ..)"
        assert refusal(zipped(tmp_path / "e.zip", ".x")).received == "nothing but hidden files and empty folders"

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_a_manifest_that_unpacks_without_measure_is_refused_in_words(self, method: int, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "d.zip", "w", method) as archive:
            archive.writestr("list.csv", "path\n1.jpg\n")
        assert "packed with" in str(refusal(tmp_path / "d.zip"))

    def test_nothing_is_written_to_disk(self, tmp_path: Path) -> None:
        data = open_dataset(zipped(tmp_path / "d.zip", "a/1.jpg", "b/1.jpg"))
        data.source.read("a/1.jpg", 10_000)
        assert [f.name for f in tmp_path.iterdir()] == ["d.zip"]

    def test_an_empty_zip_and_one_of_text_are_refused(self, tmp_path: Path) -> None:
        assert "no files" in str(refusal(zipped(tmp_path / "a.zip")))
        assert "no images" in str(refusal(zipped(tmp_path / "b.zip", notes="x")))
