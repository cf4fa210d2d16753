from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from featstore import Request, Store, open_dataset
from featstore.errors import InputError
from heads.apply import predict_files
from heads.compose import train_on
from tests.pictures import png
from tests.stubs import Bases


@pytest.fixture
def bundle(photos: Path, store: Store, bases: Bases, tmp_path: Path) -> Path:
    _, compared = train_on(open_dataset(photos), [Request("vgg16")], ["logreg"], store=store, bundles=tmp_path / "b")
    assert compared.best.bundle is not None
    return compared.best.bundle


def names(found: tuple[object, ...], below: Path) -> list[str]:
    return [str(Path(prediction.path).relative_to(below)) for prediction in found]  # type: ignore[attr-defined]


def test_a_pattern_stands_for_the_files_that_it_matches_in_natural_order(
    bundle: Path, photos: Path, store: Store
) -> None:
    for name in ("10.png", "2x.png"):
        shutil.copy(photos / "test" / "cats" / "0.png", photos / "test" / "cats" / name)
    found = predict_files(bundle, [photos / "test" / "cats" / "[0-9]*.png"], store=store)
    assert names(found, photos / "test" / "cats") == [
        *("0.png", "1.png", "2.png", "2x.png", "3.png", "4.png", "5.png", "10.png")
    ]


def test_two_stars_reach_into_every_folder_and_bring_each_file_once(bundle: Path, photos: Path, store: Store) -> None:
    found = predict_files(bundle, [photos / "test" / "**"], store=store)
    assert names(found, photos / "test") == [f"{name}/{i}.png" for name in ("cats", "dogs") for i in range(6)]
    assert len(predict_files(bundle, [photos / "**" / "0.png"], store=store)) == 6


def test_a_pattern_may_match_folders_as_in_a_shell(bundle: Path, photos: Path, store: Store) -> None:
    assert len(predict_files(bundle, [photos / "t*"], store=store)) == 24


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(bundle: Path, photos: Path, store: Store) -> None:
    odd = photos / "[0]*.png"
    shutil.copy(photos / "test" / "cats" / "0.png", odd)
    assert [prediction.path for prediction in predict_files(bundle, [odd], store=store)] == [str(odd)]


def test_zips_manifests_and_patterns_can_be_mixed(bundle: Path, photos: Path, store: Store, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "z"), "zip", photos / "test"))
    (tmp_path / "list.csv").write_text("path\nphotos/test/cats/0.png\nphotos/test/cats/1.png\n")
    images = [archive, tmp_path / "list.csv", photos / "validation" / "*" / "0.png"]
    assert len(predict_files(bundle, images, store=store)) == 12 + 2 + 2


def test_everything_that_is_not_there_is_named_at_once_and_nothing_is_computed(
    bundle: Path, photos: Path, store: Store, bases: Bases, tmp_path: Path
) -> None:
    new = tmp_path / "new.png"
    new.write_bytes(png(seed=77))
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    before = bases.computed
    missing = [tmp_path / name for name in ("a.png", "none", "*.jpg", "gone.png", "odd-\udcff")]
    with pytest.raises(InputError, match="these cannot be found") as raised:
        predict_files(bundle, [new, *missing], store=store)
    assert all(name in str(raised.value) for name in ("/a.png", "/none,", "*.jpg", "gone.png", "odd-\\xff"))
    assert "new.png" not in str(raised.value)
    assert bases.computed == before
