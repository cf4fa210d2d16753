from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from featstore.store import checked as checked_module
from featstore.store.checked import Checked

SECOND = 10**9
NOW = 1_000_000 * SECOND
STAMP = (10, NOW - 10 * SECOND, NOW - 10 * SECOND, 7)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The time of day, to be set."""
    now = {"ns": NOW}
    monkeypatch.setattr(checked_module.time, "time_ns", lambda: now["ns"])
    return now


def load(folder: Path) -> Checked:
    return Checked(folder / "scan" / "f.checked.json", folder)


def test_a_check_is_known_to_the_next_process(tmp_path: Path) -> None:
    first = load(tmp_path)
    assert not first.holds("a", STAMP)
    first.put("a", STAMP, NOW)
    first.save(["a"])
    assert load(tmp_path).holds("a", STAMP)
    assert not load(tmp_path).holds("b", STAMP)


@pytest.mark.parametrize("place", range(4))
def test_a_file_that_changed_in_any_way_is_not(tmp_path: Path, place: int) -> None:
    known = load(tmp_path)
    known.put("a", STAMP, NOW)
    changed = list(STAMP)
    changed[place] += 1
    assert not known.holds("a", tuple(changed))  # type: ignore[arg-type]


def test_a_day_later_nothing_is_trusted(tmp_path: Path, clock: dict[str, int]) -> None:
    known = load(tmp_path)
    known.put("a", STAMP, NOW)
    clock["ns"] = NOW + 86_399 * SECOND
    assert known.holds("a", STAMP)
    clock["ns"] = NOW + 86_400 * SECOND
    assert not known.holds("a", STAMP)


def test_a_clock_that_was_set_back_trusts_nothing(tmp_path: Path, clock: dict[str, int]) -> None:
    known = load(tmp_path)
    known.put("a", STAMP, NOW)
    clock["ns"] = NOW - 1
    assert not known.holds("a", STAMP)


@pytest.mark.parametrize("place", [1, 2])
def test_a_file_that_changed_just_before_the_check_could_change_again(tmp_path: Path, place: int) -> None:
    known, stamp = load(tmp_path), list(STAMP)
    stamp[place] = NOW - 2 * SECOND
    known.put("a", tuple(stamp), NOW)  # type: ignore[arg-type]
    assert not known.holds("a", tuple(stamp))  # type: ignore[arg-type]


def test_what_was_found_damaged_is_forgotten_for_good(tmp_path: Path) -> None:
    known = load(tmp_path)
    known.put("a", STAMP, NOW)
    known.save(["a"])
    other = load(tmp_path)
    other.forget("a")
    other.save(["a"])
    assert not load(tmp_path).holds("a", STAMP)


def test_segments_that_are_gone_are_not_kept(tmp_path: Path) -> None:
    known = load(tmp_path)
    known.put("a", STAMP, NOW)
    known.put("b", STAMP, NOW)
    known.save(["b"])
    assert [*json.loads((tmp_path / "scan" / "f.checked.json").read_text())] == ["b"]


def test_nothing_is_written_when_nothing_changed(tmp_path: Path) -> None:
    load(tmp_path).save(["a"])
    assert not (tmp_path / "scan").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"7", b'{"a": 1}', b'{"a": ["x"]}', b"\xff", b"[" * 100_000, b'{"a": []}', b'{"a": [Infinity]}'],
)
def test_a_damaged_file_knows_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "f.checked.json").write_bytes(content)
    known = load(tmp_path)
    assert not known.holds("a", STAMP)
    known.put("a", STAMP, NOW)
    known.save(["a"])
    assert load(tmp_path).holds("a", STAMP)


def test_a_file_larger_than_it_can_be_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = load(tmp_path)
    known.put("a", STAMP, NOW)
    known.save(["a"])
    size = (tmp_path / "scan" / "f.checked.json").stat().st_size
    monkeypatch.setattr(checked_module, "_MAX_BYTES", size)
    assert load(tmp_path).holds("a", STAMP)
    monkeypatch.setattr(checked_module, "_MAX_BYTES", size - 1)
    assert not load(tmp_path).holds("a", STAMP)


def test_a_disk_that_refuses_is_no_error(tmp_path: Path) -> None:
    known = Checked(tmp_path / "scan" / "f.checked.json", tmp_path / "missing")
    known.put("a", STAMP, NOW)
    known.save(["a"])
    shutil.rmtree(tmp_path / "scan")
    (tmp_path / "scan").write_bytes(b"a file")
    known.put("a", STAMP, NOW)
    known.save(["a"])
