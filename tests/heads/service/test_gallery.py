from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from featstore import neighbours
from featstore.cached import CachedRows
from featstore.neighbours import Neighbours
from featstore.online import Busy
from featstore.processes import in_a_process
from featstore.records import Rejected
from featstore.spec import Spec
from featstore.store import Store
from heads.bundles.bundle import Bundle, read_bundle
from heads.service import gallery as module
from heads.service.gallery import Gallery, label_of, read_picture
from tests.commands import ROOT, good
from tests.pictures import class_folders, png
from tests.stubs import Bases
from tests.waiting import until


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
    assert gallery.file_of(digest) == file
    assert read_picture(file, digest) == file.read_bytes()
    assert gallery.folder_of(digest) == "cats"
    assert gallery.folder_of(bytes(32)) is None
    with pytest.raises(KeyError):
        gallery.file_of(bytes(32))
    file.write_bytes(b"another")
    with pytest.raises(KeyError):
        read_picture(file, digest)
    file.unlink()
    with pytest.raises(Rejected, match="No such file"):
        read_picture(file, digest)
    os.mkfifo(file)
    with pytest.raises(Rejected, match="not a regular file"):
        read_picture(file, digest)


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


def test_once_heads_have_changed_what_came_since_is_found_at_once(
    gallery: Gallery, bundle: Bundle, photos: Path, tmp_path: Path
) -> None:
    digest = hashlib.sha256((photos / "train" / "dogs" / "0.png").read_bytes()).digest()
    features = features_of(bundle, tmp_path / "store", digest)
    assert len(gallery.nearest(bundle.card.specs, features, digest, 100)) == 35
    new = photos / "train" / "cats" / "new.png"
    new.write_bytes(png(4321))
    good("extract", photos, "--image-size", "32", "--store", tmp_path / "store")
    assert len(gallery.nearest(bundle.card.specs, features, digest, 100)) == 35
    gallery.keep([bundle])
    assert len(gallery.nearest(bundle.card.specs, features, digest, 100)) == 36
    assert gallery.folder_of(hashlib.sha256(new.read_bytes()).digest()) == "cats"


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


def test_which_images_a_head_was_fitted_on_is_looked_for_once(
    gallery: Gallery, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SEARCH_SECONDS", 0.0)
    asked: list[np.ndarray] = []
    real = Neighbours.which
    monkeypatch.setattr(Neighbours, "which", lambda self, among: (asked.append(among), real(self, among))[1])
    fitted, others = bundle.fitted.digests, [bundle.fitted.digests[:count].copy() for count in range(1, 21)]
    query, specs = np.ones(6, np.float32), bundle.card.specs

    def found(among: np.ndarray) -> set[bytes]:
        return {one.digest for one in gallery.nearest(specs, query, bytes(32), 100, among)}

    assert found(fitted) == found(fitted) == {one.tobytes() for one in fitted}
    assert len(asked) == 1
    for count, one in enumerate(others, start=1):
        assert len(found(one)) == min(count, len(fitted))
    assert found(fitted) == {one.tobytes() for one in fitted}
    assert len(asked) == 22, "of very many the first was forgotten"
    with Store.open(tmp_path / "store").namespace(specs[0]).writer({}) as writer:
        writer.add(b"7" * 32, 0, query)
    assert found(fitted) == {one.tobytes() for one in fitted}
    assert len(asked) == 23, "there is more to search"


@pytest.mark.parametrize("distinct", [1, 3, 1000])
def test_the_nearest_are_the_first_of_all_in_order_even_where_many_are_equally_near(distinct: int) -> None:
    chance = np.random.default_rng(distinct)
    for values in (chance.integers(distinct, size=500).astype(np.float32), np.full(3, np.nan, np.float32)):
        values[::50] = np.nan
        for count in (0, 1, 2, 7, 100, 499, 500, 501):
            assert np.array_equal(neighbours._first(values, count), np.argsort(values, kind="stable")[:count])


def soon() -> float:
    return time.monotonic() + 60


def test_a_map_shows_the_images_of_a_head_once_and_stays_as_it_is(gallery: Gallery, bundle: Bundle) -> None:
    places = gallery.places(bundle, soon())
    assert places is not None
    assert places.total == len(places.digests) == len(places.labels) == 24
    assert (places.places.min(), places.places.max()) == (0, 1)
    assert sum(said is not None for said in places.said) == 12
    assert gallery.places(bundle, soon()) is places


def test_a_map_that_could_not_be_drawn_is_drawn_once_there_are_features(
    gallery: Gallery, bundle: Bundle, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Bundle] = []
    real = module._draw
    monkeypatch.setattr(module, "_draw", lambda bundle, store: (drawn.append(bundle), real(bundle, store))[1])
    shutil.rmtree(tmp_path / "store" / "ns")
    assert gallery.places(bundle, soon()) is None
    assert gallery.places(bundle, soon()) is None
    assert len(drawn) == 1, "nothing has changed"
    good("extract", photos, "--image-size", "32", "--store", tmp_path / "store")
    assert gallery.places(bundle, soon()) is not None


def test_what_is_searched_is_read_again_only_if_the_store_has_changed(
    gallery: Gallery, bundle: Bundle, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SEARCH_SECONDS", 0.0)
    [spec] = bundle.card.specs
    query = np.ones(6, np.float32)
    found = gallery.nearest((spec,), query, bytes(32), 100)
    with monkeypatch.context() as patch:
        patch.setattr(module, "Neighbours", None)  # calling it would be an error
        assert gallery.nearest((spec,), query, bytes(32), 100) == found
    with Store.open(tmp_path / "store").namespace(spec).writer({}) as writer:
        writer.add(b"7" * 32, 0, query)
    assert len(gallery.nearest((spec,), query, bytes(32), 100)) == len(found) + 1


def test_of_all_that_is_held_for_searches_what_was_used_last_stays(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[Spec, ...]] = []
    real = Gallery._read
    monkeypatch.setattr(
        Gallery, "_read", lambda self, specs, before: (read.append(specs), real(self, specs, before))[1]
    )
    one = bundle.card.specs
    other, third = one * 2, one * 3
    size = len(Neighbours([CachedRows(Store.open(tmp_path / "store"), one[0])]))
    gallery = Gallery(Store.open(tmp_path / "store"), most_bytes=size * (4 * 6 * 4 + 2 * 32))
    for specs in (one, other, one, third, one, other):
        gallery.nearest(specs, np.ones(6 * len(specs), np.float32), bytes(32), 3)
    assert read == [one, other, third, other]
    held = sum(renewed.made.neighbours.nbytes for renewed in gallery._searched.values() if renewed.made)
    assert held <= gallery._most_bytes


def test_maps_are_drawn_one_after_the_other_and_each_once(
    gallery: Gallery, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, free, real, drawn = threading.Event(), threading.Event(), module.in_the_plane, []

    def slow(X: np.ndarray, seed: int) -> np.ndarray | None:
        drawn.append(len(X))
        begun.set()
        assert free.wait(20)
        return real(X, seed)

    monkeypatch.setattr(module, "in_the_plane", slow)
    another = replace(bundle, path=bundle.path.with_name("another"))
    with ThreadPoolExecutor(6) as threads:
        asked = [threads.submit(gallery.places, bundle, soon())]
        assert begun.wait(20)
        with pytest.raises(Busy):
            gallery.places(another, time.monotonic() + 0.1)
        asked += [threads.submit(gallery.places, one, soon()) for one in (bundle, another, another, bundle)]
        until(lambda: not gallery._waiting._value)  # type: ignore[attr-defined]
        with pytest.raises(Busy):
            gallery.places(another, soon())
        free.set()
        assert all(one.result() is not None for one in asked)
    assert len(drawn) == 2


def test_the_libraries_of_a_map_do_not_stay(bundle: Bundle, tmp_path: Path) -> None:
    program = """
    if __name__ == "__main__":
        import sys
        import time
        from pathlib import Path
        from featstore.store import Store
        from heads.bundles.bundle import read_bundle
        from heads.service.gallery import Gallery

        gallery, bundle = Gallery(Store.open(Path(sys.argv[2]))), read_bundle(Path(sys.argv[1]))
        assert gallery.places(bundle, time.monotonic() + 60) is not None
        print(*{"sklearn", "scipy", "pandas", "pyarrow"} & set(sys.modules))"""
    (tmp_path / "draw.py").write_text(dedent(program))
    words = [sys.executable, tmp_path / "draw.py", bundle.path, tmp_path / "store"]
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.stdout.split() == []


def end(*_: object) -> None:
    os._exit(9)


def test_if_drawing_is_ended_from_outside_one_may_ask_again(
    gallery: Gallery, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "in_a_process", in_a_process)
        patch.setattr(module, "_draw", end)
        with pytest.raises(Busy):
            gallery.places(bundle, soon())
    assert gallery.places(bundle, soon()) is not None


def test_what_was_held_for_a_head_goes_with_it(
    gallery: Gallery, bundle: Bundle, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    monkeypatch.setattr(module, "Neighbours", lambda rows: (made.append(rows), Neighbours(rows))[1])
    digest = hashlib.sha256((photos / "train" / "dogs" / "0.png").read_bytes()).digest()
    features = features_of(bundle, tmp_path / "store", digest)
    places = gallery.places(bundle, soon())
    for kept, expected in (([bundle], 1), ([], 2)):
        gallery.nearest(bundle.card.specs, features, digest, 3)
        gallery.keep(kept)
        gallery.nearest(bundle.card.specs, features, digest, 3)
        assert len(made) == expected
    assert gallery.places(bundle, soon()) is not places


def test_an_image_has_the_class_of_its_folder_if_the_head_knows_it(bundle: Bundle, photos: Path) -> None:
    for split, known in (("train", True), ("validation", True), ("test", False)):
        for name in ("cats", "dogs"):
            digest = hashlib.sha256((photos / split / name / "0.png").read_bytes()).digest()
            assert label_of(bundle, digest) == (name if known else None)
