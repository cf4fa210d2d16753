from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from featstore.cached import CachedRows
from featstore.neighbours import Neighbours
from featstore.online import Busy
from featstore.spec import Spec
from featstore.store import Store
from heads.bundles.bundle import Bundle, read_bundle
from heads.service import gallery as module
from heads.service.gallery import Gallery, label_of
from tests.commands import good
from tests.pictures import class_folders
from tests.stubs import Bases


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "photos")


@pytest.fixture
def bundle(photos: Path, bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setattr("featstore.scan.RACY_NS", 0)  # files written just now are remembered, too
    options = ("--image-size", "32", "--out", tmp_path / "bundles", "--store", tmp_path / "store")
    good("train", photos, "--head", "logreg", *options)
    [path] = (tmp_path / "bundles").iterdir()
    return read_bundle(path)


@pytest.fixture
def gallery(bundle: Bundle, tmp_path: Path) -> Gallery:
    return Gallery(Store.open(tmp_path / "store"))


def features_of(bundle: Bundle, store: Path, digest: bytes) -> np.ndarray:
    [spec] = bundle.card.specs
    return CachedRows(Store.open(store), spec).read(np.frombuffer(digest, np.uint8).reshape(1, -1))[0]


def test_a_picture_is_found_where_it_was_last_seen(gallery: Gallery, photos: Path) -> None:
    file = photos / "test" / "cats" / "1.png"
    digest = hashlib.sha256(file.read_bytes()).digest()
    assert gallery.picture(digest) == file.read_bytes()
    assert gallery.folder_of(digest) == "cats"
    assert gallery.folder_of(bytes(32)) is None
    with pytest.raises(KeyError):
        gallery.picture(bytes(32))
    file.write_bytes(b"another")
    with pytest.raises(KeyError):
        gallery.picture(digest)
    file.unlink()
    with pytest.raises(OSError, match=r"1\.png"):
        gallery.picture(digest)


def test_the_nearest_are_others_than_the_image_itself_and_among_those_that_are_asked_for(
    gallery: Gallery, bundle: Bundle, photos: Path, tmp_path: Path
) -> None:
    digest = hashlib.sha256((photos / "train" / "dogs" / "0.png").read_bytes()).digest()
    features = features_of(bundle, tmp_path / "store", digest)
    among_all = gallery.nearest(bundle.card.specs, features, digest, 100)
    assert len(among_all) == 35
    assert digest not in {one.digest for one in among_all}
    fitted = bundle.fitted.digests
    among_some = gallery.nearest(bundle.card.specs, features, digest, 100, fitted)
    assert {one.digest for one in among_some} == {one.tobytes() for one in fitted} - {digest}
    assert gallery.nearest(bundle.card.specs, features, digest, 3) == among_all[:3]


def test_while_neighbours_are_searched_for_the_first_time_files_are_found(
    gallery: Gallery, bundle: Bundle, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, free = threading.Event(), threading.Event()

    def slow(*given: object) -> Neighbours:
        begun.set()
        assert free.wait(20)
        return Neighbours(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "Neighbours", slow)
    digest = hashlib.sha256((photos / "train" / "dogs" / "0.png").read_bytes()).digest()
    features = features_of(bundle, tmp_path / "store", digest)
    with ThreadPoolExecutor(2) as threads:
        asked = threads.submit(gallery.nearest, bundle.card.specs, features, digest, 3)
        assert begun.wait(20)
        assert threads.submit(gallery.folder_of, digest).result(10) == "dogs"
        free.set()
        assert len(asked.result()) == 3


def test_a_map_shows_the_images_of_a_head_once_and_stays_as_it_is(gallery: Gallery, bundle: Bundle) -> None:
    places = gallery.places(bundle)
    assert places is not None
    assert places.total == len(places.digests) == len(places.labels) == 24
    assert (places.places.min(), places.places.max()) == (0, 1)
    assert sum(said is not None for said in places.said) == 12
    assert gallery.places(bundle) is places


def test_only_one_map_is_drawn_at_a_time(gallery: Gallery, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, free, real = threading.Event(), threading.Event(), module.in_the_plane

    def slow(X: np.ndarray, seed: int) -> np.ndarray | None:
        begun.set()
        assert free.wait(20)
        return real(X, seed)

    monkeypatch.setattr(module, "in_the_plane", slow)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(gallery.places, bundle)
        assert begun.wait(20)
        with pytest.raises(Busy):
            gallery.places(bundle)
        free.set()
        assert asked.result() is not None


def test_what_was_held_for_a_head_goes_with_it(
    gallery: Gallery, bundle: Bundle, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[Spec, ...]] = []
    real = Gallery._search
    monkeypatch.setattr(Gallery, "_search", lambda self, specs: (made.append(specs), real(self, specs))[1])
    digest = hashlib.sha256((photos / "train" / "dogs" / "0.png").read_bytes()).digest()
    features = features_of(bundle, tmp_path / "store", digest)
    places = gallery.places(bundle)
    for kept, expected in (([bundle], 1), ([], 2)):
        gallery.nearest(bundle.card.specs, features, digest, 3)
        gallery.keep(kept)
        gallery.nearest(bundle.card.specs, features, digest, 3)
        assert len(made) == expected
    assert gallery.places(bundle) is not places


def test_an_image_has_the_class_of_its_folder_if_the_head_knows_it(bundle: Bundle, photos: Path) -> None:
    for split, known in (("train", True), ("validation", True), ("test", False)):
        for name in ("cats", "dogs"):
            digest = hashlib.sha256((photos / split / name / "0.png").read_bytes()).digest()
            assert label_of(bundle, digest) == (name if known else None)
