"""Tables as Parquet: one file, or a folder of files by split as the engines that read Parquet lay them out.

The folder has one folder a split, ``split=train/part-00000.parquet`` and so on (Hive's way: the split is a column to
whoever reads the folder), and ``_featstore.json``, which those engines pass over: the spec, the classes and how many
rows each split has. It also says that the folder is ours, so that the next export may replace it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError
from featstore.store.commit import explained, fsync_folder
from featstore.store.draft import drafted
from featstore.store.tables import EXPORT_VERSION, TableLike, Tables, printable_names, rows_at_once
from featstore.whole import read_small

ABOUT = "_featstore.json"
_OURS = re.compile(r"split=[a-z]+(/part-[0-9]+\.parquet)?")

_PART_BYTES = 2**28
"""Features of a file of a folder."""

_GROUP_ROWS = 4096
"""Rows of a group, at most: what a reader takes into memory at a time."""

_Indices = npt.NDArray[np.intp]


def write_parquet(tables: Tables, file: BinaryIO) -> None:
    """All splits in one file, row by row as in the tables. Raises InputError without pyarrow, OSError."""
    pa, _ = _pyarrow()
    schema = _schema(pa, next(iter(tables.values())), [("split", pa.string())])
    with _writer(file, schema) as writer:
        for split, table in tables.items():
            for rows in _groups(np.arange(len(table.y)), table):
                writer.write_table(_rows(pa, table, rows, schema, split))


def write_parquet_folder(tables: Tables, folder: Path) -> None:
    """A folder of files by split, their rows as they lie in the store; one that is there is replaced at the end.

    Raises InputError if something else is there, or without pyarrow, and what writing raises: nothing is left then.
    """
    _pyarrow()
    _check_place(folder)
    with explained("write the exported folder", folder), drafted(folder) as draft:
        draft.mkdir()
        for split, table in tables.items():
            _write_split(table, draft / f"split={split}")
        _put(draft / ABOUT, lambda file: file.write(_about(tables)))
        fsync_folder(draft)
        _check_place(folder)


def _write_split(table: TableLike, folder: Path) -> None:
    pa, _ = _pyarrow()
    schema = _schema(pa, table)
    order = getattr(table.X, "order", np.arange(len(table.y)))  # rows in memory have no order but the table's
    groups = list(_groups(order, table)) or [order]
    most = max(1, _PART_BYTES // max(1, groups[0].size * 4 * table.X.shape[1]))
    folder.mkdir()
    for number, start in enumerate(range(0, len(groups), most)):
        part = groups[start : start + most]

        def write(file: BinaryIO, part: list[_Indices] = part) -> None:
            with _writer(file, schema) as writer:
                for rows in part:
                    writer.write_table(_rows(pa, table, rows, schema))

        _put(folder / f"part-{number:05}.parquet", write)
    fsync_folder(folder)


def _put(path: Path, write: Callable[[BinaryIO], object]) -> None:
    with path.open("xb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def _groups(order: _Indices, table: TableLike) -> Iterator[_Indices]:
    """The rows of each group, in that order."""
    most = min(_GROUP_ROWS, rows_at_once(table))
    return (order[start : start + most] for start in range(0, len(order), most))


def _rows(pa: Any, table: TableLike, rows: _Indices, schema: Any, split: str | None = None) -> Any:
    """The chosen rows as a table of Arrow's."""
    names = [*printable_names(table.classes), None]  # the label -1 is the last: null
    features = np.ascontiguousarray(table.X[rows]).reshape(-1)
    columns = {
        "id": printable_names([table.ids[i] for i in rows]),
        "path": printable_names([table.paths[i] for i in rows]),
        "label": [names[label] for label in table.y[rows]],
        "label_index": pa.array(table.y[rows], mask=table.y[rows] < 0),
        "digest": [table.digests[i].tobytes().hex() for i in rows],
        "features": pa.FixedSizeListArray.from_arrays(pa.array(features), table.X.shape[1]),
        "split": [split] * len(rows),
    }
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _schema(pa: Any, table: TableLike, more: list[tuple[str, Any]] | None = None) -> Any:
    return pa.schema(
        [
            ("id", pa.string()),
            ("path", pa.string()),
            *(more or []),
            ("label", pa.string()),
            ("label_index", pa.int64()),
            ("digest", pa.string()),
            ("features", pa.list_(pa.float32(), table.X.shape[1])),
        ],
        metadata={
            "spec": table.spec.to_json(),
            "classes": json.dumps(printable_names(table.classes)),
            "fingerprint": table.spec.fingerprint,
            "export_version": str(EXPORT_VERSION),
        },
    )


def _writer(file: BinaryIO, schema: Any) -> Any:
    """Dictionaries are for the columns with few values; of features they would only be tried in vain."""
    few = [name for name in schema.names if name in ("split", "label")]
    return _pyarrow()[1].ParquetWriter(file, schema, use_dictionary=few)


def _about(tables: Tables) -> bytes:
    first = next(iter(tables.values()))
    words = {
        "export_version": EXPORT_VERSION,
        "fingerprint": first.spec.fingerprint,
        "spec": json.loads(first.spec.to_json()),
        "classes": printable_names(first.classes),
        "splits": {split: len(table.y) for split, table in tables.items()},
    }
    return json.dumps(words, indent=1).encode()


def _check_place(folder: Path) -> None:
    """Raise InputError unless there is nothing, an empty folder, or one that an export wrote, with nothing else in it.

    Nor may it be a link, or a mounted disk: neither can be replaced.
    """
    if not os.path.lexists(folder):
        return
    empty = folder.is_dir() and not any(folder.iterdir())
    if (empty or _is_ours(folder)) and not folder.is_symlink() and not folder.is_mount():
        return
    raise InputError(
        "there is something else already",
        where=folder,
        expected="nothing, or a folder that an export wrote, which is replaced",
        received="a folder" if folder.is_dir() else "a file",
        todo="name another place",
    )


def _is_ours(folder: Path) -> bool:
    try:
        if "export_version" not in json.loads(read_small(folder / ABOUT, 2**24)):
            return False
        inside = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    except (OSError, ValueError, TypeError):
        return False
    return all(name == ABOUT or _OURS.fullmatch(name) for name in inside)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            "Parquet needs pyarrow, which is not installed",
            where="--to",
            todo='pip install pyarrow (the extra "parquet" has it)',
        ) from error
    return pyarrow, parquet
