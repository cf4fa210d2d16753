"""Tables to one portable file: HDF5, NumPy or Parquet, by its ending. What is exported is a copy; the store stays."""

from __future__ import annotations

import io
import json
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError, unknown_name
from featstore.spec import Spec
from featstore.store.commit import explained, fsync_folder

EXPORT_VERSION = 1
"""Rises when names or shapes in an exported file change."""


class TableLike(Protocol):
    """What is exported of one split: X float32 (N, D), y int64 (N,) with -1 for unlabelled, N ids and paths."""

    @property
    def X(self) -> npt.NDArray[np.float32]: ...  # noqa: D102
    @property
    def y(self) -> npt.NDArray[np.int64]: ...  # noqa: D102
    @property
    def ids(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def paths(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def spec(self) -> Spec: ...  # noqa: D102


Tables = Mapping[str, TableLike]


def export(tables: Tables, path: Path) -> None:
    r"""Write ``tables`` (split name → table, all of one spec) to ``path``; an existing file is replaced at the end.

    - ``.h5`` or ``.hdf5``: a group a split with ``features`` float32 (N, D), ``labels`` int64 (N,), ``ids`` and
      ``paths`` (UTF-8); root attributes ``classes``, ``spec``, ``fingerprint``, ``export_version``.
    - ``.npz``: arrays ``train_features``, ``train_labels``, ``train_ids``, ``train_paths`` …, ``classes``, ``spec``.
    - ``.parquet``: a row an image: ``id``, ``path``, ``split``, ``label`` (a class name or null), ``features``
      (D floats); the spec and the classes in the schema's metadata.

    Names that are not UTF-8 are written with their odd bytes as ``\udcXX``. The file appears whole or not at all.
    Raises InputError (an unknown ending, tables that do not belong together, pyarrow missing), NoSpaceError,
    ReadOnlyError or StorageError.
    """
    write = _FORMATS.get(path.suffix.lower())
    if write is None:
        raise unknown_name("file ending", path.suffix, _FORMATS, where=str(path))
    if not tables or len({(t.spec, t.classes, t.X.shape[1]) for t in tables.values()}) != 1:
        raise InputError(
            "these tables do not make one file",
            where=path,
            expected="at least one table, all of one spec and with the same classes",
            received=", ".join(f"{name}: {t.spec.backbone}, {t.X.shape}" for name, t in tables.items()) or "none",
        )
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with explained("write the exported file", path):
        try:
            with open(temporary, "x+b") as file:
                write(tables, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
        fsync_folder(path.absolute().parent)


def _write_hdf5(tables: Tables, file: BinaryIO) -> None:
    import h5py

    first = next(iter(tables.values()))
    target = _Forgiving(file.fileno())
    with h5py.File(target, "w", libver="v110") as out:
        out.attrs["export_version"] = EXPORT_VERSION
        out.attrs["classes"] = _utf8(first.classes)
        out.attrs["spec"] = first.spec.to_json()
        out.attrs["fingerprint"] = first.spec.fingerprint
        for split, table in tables.items():
            group = out.create_group(split)
            columns: dict[str, npt.NDArray[Any]] = {
                "features": table.X,
                "labels": table.y,
                "ids": _utf8(table.ids),
                "paths": _utf8(table.paths),
            }
            for name, values in columns.items():
                chunked = {"fletcher32": True, "chunks": True} if len(values) else {}
                group.create_dataset(name, data=values, **chunked)
    if target.failure is not None:
        raise target.failure


class _Forgiving(io.RawIOBase):
    """A file that remembers its first failure and goes on as if nothing had happened, for the owner to raise later.

    HDF5 crashes the interpreter when a write fails, on a full disk for one; and so it must not see one.
    """

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._position = 0
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        with memoryview(data) as view, view.cast("B") as left:
            done = 0
            while done < len(left) and self.failure is None:
                try:
                    done += os.pwrite(self._handle, left[done:], self._position + done)
                except OSError as error:
                    self.failure = error
            self._position += len(left)
            return len(left)

    def readinto(self, buffer: Any) -> int:
        with memoryview(buffer) as view, view.cast("B") as target:
            try:
                found = os.pread(self._handle, len(target), self._position)
            except OSError as error:
                self.failure, found = self.failure or error, b""
            target[:] = found.ljust(len(target), b"\0")
            self._position += len(target)
            return len(target)

    def truncate(self, size: int | None = None) -> int:
        size = self._position if size is None else size
        try:
            os.ftruncate(self._handle, size)
        except OSError as error:
            self.failure = self.failure or error
        return size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: os.fstat(self._handle).st_size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True


def _write_npz(tables: Tables, file: BinaryIO) -> None:
    first = next(iter(tables.values()))
    arrays: dict[str, npt.NDArray[Any]] = {"classes": _text(first.classes), "spec": np.array(first.spec.to_json())}
    for split, table in tables.items():
        arrays[f"{split}_features"] = table.X
        arrays[f"{split}_labels"] = table.y
        arrays[f"{split}_ids"] = _text(table.ids)
        arrays[f"{split}_paths"] = _text(table.paths)
    np.savez(file, allow_pickle=False, **arrays)


def _write_parquet(tables: Tables, file: BinaryIO) -> None:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            "Parquet needs pyarrow, which is not installed", where="--to", todo="pip install pyarrow"
        ) from error
    first = next(iter(tables.values()))
    width = first.X.shape[1]
    metadata = {"spec": first.spec.to_json(), "classes": json.dumps(_printable(first.classes))}
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("path", pa.string()),
            ("split", pa.string()),
            ("label", pa.string()),
            ("features", pa.list_(pa.float32(), width)),
        ],
        metadata={**metadata, "fingerprint": first.spec.fingerprint, "export_version": str(EXPORT_VERSION)},
    )
    with parquet.ParquetWriter(file, schema) as writer:
        for split, table in tables.items():
            names = [*_printable(table.classes), None]  # the label -1 is the last: null
            columns = [
                _printable(table.ids),
                _printable(table.paths),
                [split] * len(table.y),
                [names[label] for label in table.y],
                pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(table.X).reshape(-1)), width),
            ]
            writer.write_table(pa.table(columns, schema=schema))


def _printable(names: tuple[str, ...]) -> list[str]:
    r"""File names as valid Unicode: bytes that are no UTF-8 become ``\udcXX``."""
    return [name.encode("utf-8", "backslashreplace").decode() for name in names]


def _text(names: tuple[str, ...]) -> npt.NDArray[np.str_]:
    return np.array(_printable(names), dtype=np.str_)


def _utf8(names: tuple[str, ...]) -> npt.NDArray[Any]:
    """Fixed-length UTF-8, which every HDF5 reader knows: one allocation, no heap of strings."""
    import h5py

    encoded = [name.encode() for name in _printable(names)]
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max([1, *map(len, encoded)])))


_FORMATS: dict[str, Callable[[Tables, BinaryIO], None]] = {
    ".h5": _write_hdf5,
    ".hdf5": _write_hdf5,
    ".npz": _write_npz,
    ".parquet": _write_parquet,
}
