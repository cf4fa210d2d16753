from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from featstore.errors import InputError, ReadOnlyError
from featstore.records import Digests
from featstore.spec import Spec
from featstore.store import export as module
from featstore.store import tables as shared
from featstore.store.export import export

ROW = 6 * 4
"""Bytes of its features."""

SPEC = Spec("vgg16", "ab" * 32, "block5_pool", (150, 150))


@dataclass(frozen=True)
class FakeTable:
    X: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    ids: tuple[str, ...]
    paths: tuple[str, ...]
    classes: tuple[str, ...] = ("cat", "dög")
    spec: Spec = SPEC

    @property
    def digests(self) -> Digests:
        return np.repeat(np.arange(len(self.y), dtype=np.uint8)[:, None], 32, axis=1)


def table(count: int, seed: int = 0) -> FakeTable:
    values = np.random.default_rng(seed).random((count, 6)).astype(np.float32)
    names = tuple(f"cat/é {i}.jpg" for i in range(count))
    return FakeTable(values, np.arange(count) % 3 - 1, tuple(map(str, range(count))), names)


@pytest.fixture
def tables() -> dict[str, FakeTable]:
    return {"train": table(9), "validation": table(4, 1), "test": table(0)}


def test_hdf5_has_a_group_for_each_split(tables: dict[str, FakeTable], tmp_path: Path) -> None:
    export(tables, tmp_path / "features.h5")
    with h5py.File(tmp_path / "features.h5", "r") as file:
        assert set(file) == set(tables)
        for split, expected in tables.items():
            assert (file[split]["features"][:] == expected.X).all()
            assert (file[split]["labels"][:] == expected.y).all()
            assert tuple(file[split]["ids"].asstr()[:]) == expected.ids
            assert tuple(file[split]["paths"].asstr()[:]) == expected.paths
        assert [name.decode() for name in file.attrs["classes"]] == ["cat", "dög"]
        assert Spec.from_json(file.attrs["spec"]) == SPEC
        assert (file.attrs["fingerprint"], file.attrs["export_version"]) == (SPEC.fingerprint, 2)
        assert file["train/features"].fletcher32


def test_npz_needs_no_pickle(tables: dict[str, FakeTable], tmp_path: Path) -> None:
    export(tables, tmp_path / "features.npz")
    with np.load(tmp_path / "features.npz", allow_pickle=False) as file:
        assert (file["train_features"] == tables["train"].X).all()
        assert (file["validation_labels"] == tables["validation"].y).all()
        assert tuple(file["train_paths"]) == tables["train"].paths
        assert file["test_features"].shape == (0, 6)
        assert tuple(file["classes"]) == ("cat", "dög")
        assert Spec.from_json(str(file["spec"])) == SPEC


def test_parquet_has_a_row_for_each_image(tables: dict[str, FakeTable], tmp_path: Path) -> None:
    from pyarrow import parquet

    export(tables, tmp_path / "features.parquet")
    read = parquet.read_table(tmp_path / "features.parquet")
    assert read.column("split").to_pylist() == ["train"] * 9 + ["validation"] * 4
    assert read.column("label").to_pylist()[:4] == [None, "cat", "dög", None]
    assert read.column("label_index").to_pylist()[:4] == [None, 0, 1, None]
    assert read.column("digest").to_pylist()[:2] == ["00" * 32, "01" * 32]
    assert read.column("path").to_pylist()[:9] == list(tables["train"].paths)
    assert (np.array(read.column("features").to_pylist()[:9], np.float32) == tables["train"].X).all()
    assert json.loads(read.schema.metadata[b"classes"]) == ["cat", "dög"]
    assert Spec.from_json(read.schema.metadata[b"spec"].decode()) == SPEC


@pytest.mark.parametrize("ending", ["h5", "npz", "parquet"])
def test_names_that_are_not_utf8_are_written_readably(tmp_path: Path, ending: str) -> None:
    odd = replace(table(1), paths=("\udcff.jpg",))
    export({"train": odd}, tmp_path / f"features.{ending}")
    assert rb"\udcff.jpg" in (tmp_path / f"features.{ending}").read_bytes().replace(b"\0", b"")


@pytest.mark.parametrize("ending", ["h5", "npz", "parquet"])
def test_an_existing_file_is_replaced_only_by_a_whole_one(
    tables: dict[str, FakeTable], tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"features.{ending}"
    path.write_bytes(b"old")

    def fail(*_: Any) -> None:
        raise PermissionError(1, "no")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fsync", fail)
        with pytest.raises(ReadOnlyError):
            export(tables, path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"
    export(tables, path)
    assert path.stat().st_size > 1000
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", ["h5", "npz", "parquet"])
def test_no_room_is_one_message_and_leaves_nothing(tmp_path: Path, ending: str) -> None:
    """At every size, in a process of its own: HDF5 would crash it if it saw a write fail."""
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from featstore.errors import StorageError
from test_export import export, table
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path({str(tmp_path)!r}) / "features.{ending}"
tables = {{"train": table(500), "test": table(50)}}
export(tables, path)
size = path.stat().st_size
path.unlink()
for limit in range(0, size, size // 40):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        export(tables, path)
        sys.exit(f"it was written with a limit of {{limit}} of {{size}} bytes")
    except StorageError:
        pass
    assert not list(path.parent.iterdir()), limit
"""
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_an_unknown_ending_is_told_the_known_ones(tables: dict[str, FakeTable], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="parquet") as caught:
        export(tables, tmp_path / "features.parquett")
    assert ".npz" in str(caught.value)


def test_a_place_that_cannot_be_written_is_told_before_a_row_is_read(
    tables: dict[str, FakeTable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder.h5").mkdir()
    monkeypatch.setattr(FakeTable, "X", property(lambda _: pytest.fail("a row was read")), raising=False)
    with pytest.raises(InputError, match="there is a folder of this name"):
        export(tables, tmp_path / "folder.h5")
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(InputError, match="there is something that is no file of this name"):
        export(tables, tmp_path / "pipe.npz")
    with pytest.raises(InputError, match="an export is written to a disk"):
        export(tables, "s3://bucket/features.h5")


def test_tables_of_two_specs_are_refused(tables: dict[str, FakeTable], tmp_path: Path) -> None:
    tables["test"] = replace(tables["test"], spec=SPEC.but(pooling="max"))
    with pytest.raises(InputError, match="do not make one file"):
        export(tables, tmp_path / "features.h5")
    with pytest.raises(InputError, match="at least one table"):
        export({}, tmp_path / "features.h5")


def test_without_pyarrow_it_says_what_to_install(
    tables: dict[str, FakeTable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for place in ("features.parquet", "features/"):
        with pytest.raises(InputError, match="pip install"):
            export(tables, f"{tmp_path}/{place}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".h5", ".npz", ".parquet", "/"])
def test_rows_that_are_read_a_few_at_a_time_are_those_that_are_read_at_once(
    tables: dict[str, FakeTable], tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(tables, f"{tmp_path}/whole{ending}")
    monkeypatch.setattr(module, "_CHUNK_BYTES", 2 * ROW)
    monkeypatch.setattr(shared, "_READ_BYTES", 3 * ROW)
    asked: list[int] = []
    export(
        {split: replace(table, X=Watched(table.X, asked)) for split, table in tables.items()}, f"{tmp_path}/p{ending}"
    )
    assert max(asked) <= 3
    assert contents(tmp_path / f"p{ending}") == contents(tmp_path / f"whole{ending}")


class Watched:
    """Rows that note how many of them are asked for at once."""

    def __init__(self, X: npt.NDArray[np.float32], asked: list[int]) -> None:
        self.X, self.shape, self.asked = X, X.shape, asked

    def __getitem__(self, chosen: Any) -> npt.NDArray[np.float32]:
        self.asked.append(len(self.X[chosen]))
        return self.X[chosen]


def contents(path: Path) -> Any:
    """All features that were written, as text."""
    if path.suffix == ".h5":
        with h5py.File(path, "r") as file:
            return {split: file[split]["features"][:].tolist() for split in file}
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name].tolist() for name in file.files}
    from pyarrow import dataset

    return dataset.dataset(path, partitioning="hive").to_table().sort_by([("split", "ascending"), ("id", "ascending")])


def test_a_missing_folder_is_one_message(tables: dict[str, FakeTable], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write the exported file"):
        export(tables, tmp_path / "nowhere" / "features.h5")
