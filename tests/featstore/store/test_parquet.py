"""The folder of Parquet files; the single file is tested with the other formats, in test_export."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore.errors import InputError, ReadOnlyError
from featstore.spec import Spec
from featstore.store import parquet as module
from featstore.store import tables as shared
from featstore.store.export import export
from tests.featstore.store.test_export import ROW, FakeTable, table
from tests.featstore.test_shuffling import scattered
from tests.memory import mib_taken_by
from tests.reliability.campaign import FULL

pytest.importorskip("pyarrow")


@pytest.fixture
def tables() -> dict[str, FakeTable]:
    return {"train": table(9), "validation": table(4, 1), "test": table(0)}


def read(folder: Path) -> Any:
    from pyarrow import dataset

    return dataset.dataset(folder, partitioning="hive").to_table()


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_each_split_is_a_folder_and_engines_see_it_as_a_column(tables: dict[str, FakeTable], tmp_path: Path) -> None:
    path = export(tables, f"{tmp_path}/features/")
    assert path == tmp_path / "features"
    assert files(path) == [
        "_featstore.json",
        "split=test/part-00000.parquet",
        "split=train/part-00000.parquet",
        "split=validation/part-00000.parquet",
    ]
    rows = read(path)
    assert rows.num_rows == 13
    train = rows.filter(np.array([split == "train" for split in rows["split"].to_pylist()]))
    assert train["path"].to_pylist() == list(tables["train"].paths)
    assert train["label"].to_pylist()[:4] == [None, "cat", "dög", None]
    assert train["label_index"].to_pylist()[:4] == [None, 0, 1, None]
    assert train["digest"].to_pylist()[1] == "01" * 32
    assert (np.array(train["features"].to_pylist(), np.float32) == tables["train"].X).all()
    assert json.loads(rows.schema.metadata[b"classes"]) == ["cat", "dög"]
    about = json.loads((path / "_featstore.json").read_text())
    assert (about["splits"], about["classes"]) == ({"train": 9, "validation": 4, "test": 0}, ["cat", "dög"])
    assert Spec.from_json(json.dumps(about["spec"])).fingerprint == about["fingerprint"]


def test_pandas_reads_it_as_one_table(tables: dict[str, FakeTable], tmp_path: Path) -> None:
    import pandas

    path = export(tables, f"{tmp_path}/features/")
    frame = pandas.read_parquet(path, filters=[("split", "==", "validation")])
    assert list(frame["id"]) == list(tables["validation"].ids)
    assert (np.stack(frame["features"]) == tables["validation"].X).all()


def test_duckdb_reads_it_as_one_table(tables: dict[str, FakeTable], tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    path = export(tables, f"{tmp_path}/features/")
    counts = f"select split, count(*) from read_parquet('{path}/*/*.parquet') group by split order by split"
    assert duckdb.sql(counts).fetchall() == [("train", 9), ("validation", 4)]


def test_what_is_not_installed_is_named_with_its_extra(
    tables: dict[str, FakeTable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match="needs pyarrow, which is not installed") as failed:
        export(tables, f"{tmp_path}/features/")
    assert failed.value.todo == 'pip install pyarrow (the extra "parquet" has it)'


def test_many_rows_are_many_groups_in_several_files(
    tables: dict[str, FakeTable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import parquet

    monkeypatch.setattr(shared, "_READ_BYTES", 2 * ROW)
    monkeypatch.setattr(module, "_PART_BYTES", 4 * ROW)
    path = export({"train": tables["train"]}, f"{tmp_path}/features/")
    parts = [parquet.ParquetFile(file) for file in sorted(path.glob("*/*.parquet"))]
    groups = [[part.metadata.row_group(i).num_rows for i in range(part.num_row_groups)] for part in parts]
    assert groups == [[2, 2], [2, 2], [1]]
    assert read(path)["path"].to_pylist() == list(tables["train"].paths)


def test_rows_come_as_they_lie_in_the_store(tmp_path: Path) -> None:
    class Stored:
        order = np.array([2, 0, 1])
        shape = (3, 6)

        def __getitem__(self, chosen: Any) -> Any:
            return table(3).X[chosen]

    rows = read(export({"train": FakeTable(Stored(), table(3).y, table(3).ids, table(3).paths)}, f"{tmp_path}/f/"))
    assert rows["id"].to_pylist() == ["2", "0", "1"]
    assert (np.array(rows["features"].to_pylist(), np.float32) == table(3).X[[2, 0, 1]]).all()
    assert rows["label"].to_pylist() == ["dög", None, "cat"]


def test_a_folder_of_an_earlier_export_is_replaced_and_nothing_of_it_stays(
    tables: dict[str, FakeTable], tmp_path: Path
) -> None:
    (tmp_path / "features").mkdir()  # an empty one is nobody's
    export(tables, f"{tmp_path}/features/")
    export({"train": table(3)}, f"{tmp_path}/features/")
    assert files(tmp_path / "features") == ["_featstore.json", "split=train/part-00000.parquet"]
    assert [path.name for path in tmp_path.iterdir()] == ["features"]


def test_what_is_somebody_elses_stays(tables: dict[str, FakeTable], tmp_path: Path) -> None:
    export(tables, f"{tmp_path}/real/")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "_featstore.json").write_text('["export_version"]')
    (tmp_path / "folder" / "more").touch()
    (tmp_path / "folder" / "_featstore.json").write_text("{}")
    before = files(tmp_path)
    for name in ("link", "file", "folder"):
        with pytest.raises(InputError, match="something else already"):
            export(tables, f"{tmp_path}/{name}/")
    assert files(tmp_path) == before


def test_what_comes_while_it_is_written_or_lies_beside_the_files_stays(
    tables: dict[str, FakeTable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(tables, f"{tmp_path}/mine/")
    (tmp_path / "mine" / "split=train" / "notes.txt").touch()
    with pytest.raises(InputError, match="something else already"):
        export(tables, f"{tmp_path}/mine/")
    about = module._about

    def meanwhile(tables: Any) -> bytes:
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "holiday.jpg").touch()
        return about(tables)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_about", meanwhile)
        with pytest.raises(InputError, match="something else already"):
            export(tables, f"{tmp_path}/new/")
    assert files(tmp_path / "new") == ["holiday.jpg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "new"]


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_failure_leaves_what_was_there_and_nothing_else(
    tables: dict[str, FakeTable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    export({"train": table(3)}, f"{tmp_path}/features/")
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    done: list[Any] = []
    real = getattr(os, call)

    def fail(*words: Any) -> Any:
        done.append(words)
        if len(done) == 2:
            raise PermissionError(1, "no")
        return real(*words)

    with monkeypatch.context() as patch:
        patch.setattr(module.os, call, fail)
        with pytest.raises(ReadOnlyError):
            export(tables, f"{tmp_path}/features/")
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before
    assert [path.name for path in tmp_path.iterdir()] == ["features"]


LARGE = """
import sys
from pathlib import Path
from featstore.store.export import export
from tests.featstore.test_shuffling import opened
table = opened(Path(sys.argv[1]))
export({"train": table.select(range(300))}, sys.argv[1] + "/small" + sys.argv[2])  # what is imported and indexed once
"""


@pytest.mark.skipif(not FULL, reason="writes hundreds of MB: a part of the whole campaign")
@pytest.mark.parametrize("ending", ["/", ".parquet", ".h5", ".npz"])
def test_memory_does_not_grow_with_the_table(tmp_path: Path, ending: str) -> None:
    scattered(tmp_path, segments=96, rows=192, width=2048)
    taken = mib_taken_by(LARGE, 'export({"train": table}, sys.argv[1] + "/all" + sys.argv[2])', tmp_path, ending)
    assert taken < 100, "of a table of 144 MiB"
