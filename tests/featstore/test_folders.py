from __future__ import annotations

from pathlib import Path

import pytest

from featstore import folders
from featstore.errors import InputError
from featstore.store import Store


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


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whom nobody knows, as in a container that is run as any number."""
    for name in ("HOME", "XDG_CACHE_HOME", "FEATSTORE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 9)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_folder_it_is_said_what_to_set() -> None:
    for asked in (folders.cache_folder, folders.default_store, lambda: folders.mirror_folder("s3://b")):
        with pytest.raises(InputError, match="no home folder") as raised:
            asked()
        assert "$XDG_CACHE_HOME" in str(raised.value.expected)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_folder_a_cache_that_is_named_will_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert folders.default_store() == str(tmp_path / "featstore" / "store")


def test_the_home_of_somebody_whom_nobody_knows_is_wrong_input() -> None:
    for asked in (folders.expanded, Store.open):
        with pytest.raises(InputError, match="nobody knows this home folder") as raised:
            asked("~nobody-of-this-name/x")
        assert raised.value.received == "~nobody-of-this-name"


def test_a_home_folder_is_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert [str(folders.expanded(path)) for path in ("~/x", "x~")] == ["/home/me/x", "x~"]
