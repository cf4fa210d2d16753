from __future__ import annotations

from pathlib import Path

import pytest

from featstore import folders


def test_the_default_store_is_featstore_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEATSTORE_HOME", str(tmp_path / "mine"))
    assert folders.default_store() == str(tmp_path / "mine")


def test_without_featstore_home_the_store_lies_in_the_users_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("FEATSTORE_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert folders.default_store() == str(tmp_path / "featstore" / "store")


@pytest.mark.parametrize(
    ("value", "offline"), [("1", True), ("yes", True), ("0", False), ("", False), ("False", False)]
)
def test_offline_is_any_value_but_empty_and_zero(monkeypatch: pytest.MonkeyPatch, value: str, offline: bool) -> None:
    monkeypatch.setenv("FEATSTORE_OFFLINE", value)
    assert folders.is_offline() is offline
