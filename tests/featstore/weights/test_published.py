from __future__ import annotations

import errno
import hashlib
import io
import urllib.error
import urllib.request
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from featstore.catalog import Backbone, find
from featstore.errors import NoSpaceError
from featstore.weights import published
from featstore.weights.published import Unavailable

CONTENT = b"weights" * 1000


@pytest.fixture
def backbone(private_cache: Path) -> Backbone:
    return replace(find("vgg16"), weights_hash=hashlib.md5(CONTENT, usedforsecurity=False).hexdigest())


def _serve(monkeypatch: pytest.MonkeyPatch, content: bytes, length: int | None = None) -> list[float]:
    timeouts = []

    class Response(io.BytesIO):
        def __init__(self) -> None:
            super().__init__(content)
            self.headers = {"Content-Length": str(len(content) if length is None else length)}

    def urlopen(url: str, timeout: float) -> Any:
        timeouts.append(timeout)
        return Response()

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return timeouts


def _put(backbone: Backbone, content: bytes) -> Path:
    path = published.keras_file(backbone)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_kerass_cache_is_looked_into(backbone: Backbone) -> None:
    path = _put(backbone, CONTENT)
    assert published.from_keras_cache(backbone) == path


def test_a_sha256_is_recognised_by_its_length(backbone: Backbone) -> None:
    path = _put(backbone, CONTENT)
    backbone = replace(backbone, weights_hash=hashlib.sha256(CONTENT).hexdigest())
    assert published.from_keras_cache(backbone) == path


def test_a_file_with_another_hash_is_not_used(backbone: Backbone) -> None:
    _put(backbone, CONTENT[:-1])
    with pytest.raises(Unavailable, match="does not have the hash"):
        published.from_keras_cache(backbone)


def test_a_missing_file_is_unavailable_and_creates_nothing(backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="No such file"):
        published.from_keras_cache(backbone)
    assert list(tmp_path.iterdir()) == []


def test_a_download_lands_in_kerass_cache(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    timeouts = _serve(monkeypatch, CONTENT)
    path = published.download(backbone)
    assert path == published.keras_file(backbone)
    assert path.read_bytes() == CONTENT
    assert timeouts == [published.CONNECT_SECONDS]


def test_a_download_shows_what_is_fetched_and_how_far_it_is(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(5_700_000)
    _serve(monkeypatch, content)
    stages, shown = [], []

    def progress(label: str, total: int, unit: str = "images") -> Any:
        stages.append((label, total, unit))
        return nullcontext(shown.append)

    published.download(replace(backbone, weights_hash=None), progress)
    assert stages == [("fetch vgg16 weights (6 MB) from Keras", 6, "MB")]
    assert (sum(shown), len(shown) > 3, min(shown) >= 0) == (6, True, True)


@pytest.mark.parametrize("content", [b"<html>not found</html>", CONTENT[:-7], b""])
def test_a_download_of_something_else_is_thrown_away(
    content: bytes, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    _serve(monkeypatch, content)
    with pytest.raises(Unavailable, match="not the published file"):
        published.download(backbone)
    assert list(published.keras_file(backbone).parent.iterdir()) == []


def test_a_cut_download_is_noticed_without_a_hash_too(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    _serve(monkeypatch, CONTENT[:100], length=len(CONTENT))
    with pytest.raises(Unavailable, match="100 bytes"):
        published.download(replace(backbone, weights_hash=None))


@pytest.mark.parametrize(
    "error", [urllib.error.URLError("no route"), TimeoutError("timed out"), ConnectionResetError("reset")]
)
def test_a_network_that_fails_is_unavailable_at_once(
    error: Exception, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def urlopen(*args: Any, **options: Any) -> None:
        calls.append(args)
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    with pytest.raises(Unavailable, match=r"https://.*vgg16"):
        published.download(backbone)
    assert len(calls) == 1


def test_a_full_disk_is_not_taken_for_a_network_that_fails(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    _serve(monkeypatch, CONTENT)

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(published.os, "replace", full)
    with pytest.raises(NoSpaceError):
        published.download(backbone)
    assert list(published.keras_file(backbone).parent.iterdir()) == []
