from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featstore import Request, Store, open_dataset
from featstore.errors import ReadOnlyError
from featstore.features import features_of
from featstore.job import Job, resolve_jobs
from featstore.records import Reason
from tests.pictures import png
from tests.stubs import Bases


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        path.write_bytes(png(seed=i))
    return paths


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def job(store: Store, bases: Bases, files: list[Path]) -> Job:
    return resolve_jobs([Request("vgg16")], store, open_dataset(files))[0]


def test_fresh_rows_are_computed_kept_and_served_from_the_cache_next_time(
    files: list[Path], store: Store, job: Job
) -> None:
    first = features_of(open_dataset(files), job, store)
    again = features_of(open_dataset(files), job, store)
    assert not first.cached.any()
    assert again.cached.all()
    assert first.values.shape == (5, 6)
    np.testing.assert_array_equal(first.values, again.values)


def test_rows_come_in_the_order_asked_with_copies_and_rejects_in_place(
    files: list[Path], store: Store, job: Job, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    straight = features_of(open_dataset(files), job, store)
    mixed = features_of(open_dataset([files[3], broken, files[0], files[3]]), job, store)
    assert mixed.reasons == (Reason.OK, Reason.NOT_AN_IMAGE, Reason.OK, Reason.OK)
    np.testing.assert_array_equal(mixed.values[[0, 2, 3]], straight.values[[3, 0, 3]])
    np.testing.assert_array_equal(mixed.values[1], 0)
    assert mixed.cached.tolist() == [True, False, True, True]


def test_a_store_that_cannot_be_written_serves_what_it_has_and_forgets_the_rest(
    files: list[Path], store: Store, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = features_of(open_dataset(files[:2]), job, store)

    def refuse(self: Store) -> None:
        raise ReadOnlyError("read-only")

    monkeypatch.setattr(Store, "check_writable", refuse)
    mixed = features_of(open_dataset([files[4], files[1], files[3], files[0]]), job, store)
    assert mixed.cached.tolist() == [False, True, False, True]
    np.testing.assert_array_equal(mixed.values[[3, 1]], straight.values)
    assert store.namespace(job.spec).snapshot().rows == 2
    monkeypatch.undo()


def test_only_rejects_give_no_columns(tmp_path: Path, store: Store, job: Job) -> None:
    (tmp_path / "x.png").write_text("no picture")
    found = features_of(open_dataset([tmp_path / "x.png"]), job, store)
    assert found.values.shape == (1, 0)
    assert found.reasons == (Reason.NOT_AN_IMAGE,)
