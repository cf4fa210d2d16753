"""Measured rates: what a store remembers of them, and that nothing in the file is believed too much."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from featstore import rates
from featstore.store import Store

JOB: Any = "a job"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(rates, "_key", str)
    return Store.open(tmp_path / "store", create=True)


def test_what_was_measured_is_remembered_beside_the_rest(store: Store) -> None:
    assert not rates.is_measured(JOB, store)
    other: Any = "another job"
    for job, rate in ((JOB, 5.0), (other, 2.0), (JOB, 7.5)):
        rates.record(job, store, rate)
    found = [rates.estimate(job, store) for job in (JOB, other)]
    assert [rate.images_per_second for rate in found if rate is not None] == [7.5, 2.0]
    assert [file.name for file in store.scan_folder.iterdir()] == ["rates.json"]


def test_a_store_that_is_not_there_or_takes_nothing_is_no_error(store: Store, tmp_path: Path) -> None:
    rates.record(JOB, Store.open(tmp_path / "nothing"), 5.0)
    assert not (tmp_path / "nothing").exists()
    store.scan_folder.write_bytes(b"a file")
    rates.record(JOB, store, 5.0)
    assert not rates.is_measured(JOB, store)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"7", b"\xff", b"[" * 100_000),
        *(b'{"a job": 1e-320}', b'{"a job": Infinity}', b'{"a job": NaN}', b'{"a job": 1e300}'),
        *(b'{"a job": "x"}', b'{"a job": -1}', b'{"a job": 1%s}' % (b"0" * 400)),
    ],
)
def test_a_damaged_file_knows_nothing_and_mends(store: Store, content: bytes) -> None:
    store.scan_folder.mkdir()
    (store.scan_folder / "rates.json").write_bytes(content)
    assert not rates.is_measured(JOB, store)
    rates.record(JOB, store, 5.0)
    assert rates.is_measured(JOB, store)


def test_a_file_larger_than_it_can_be_is_not_read(store: Store) -> None:
    store.scan_folder.mkdir()
    text = b'{"a job": 5}'
    for spaces, known in ((2**20 - len(text), True), (2**20 - len(text) + 1, False)):
        (store.scan_folder / "rates.json").write_bytes(text + b" " * spaces)
        assert rates.is_measured(JOB, store) is known
