"""Tables to one portable file, HDF5, NumPy or Parquet by its ending, or to a folder of Parquet files.

What is exported is a copy; the store stays.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from numpy.lib.format import write_array, write_array_header_1_0

from featstore.cloud import is_url
from featstore.errors import InputError, unknown_name
from featstore.store.commit import explained
from featstore.store.draft import drafted
from featstore.store.parquet import write_parquet, write_parquet_folder
from featstore.store.tables import EXPORT_VERSION, TableLike, Tables, printable_names, rows_at_once

_CHUNK_BYTES = 2**20

_Write = Callable[[Tables, BinaryIO], None]


def export(tables: Tables, to: str | Path) -> Path:
    r"""Write ``tables`` (split name → table, all of one spec) to ``to``, and return its path.

    - ``.h5`` or ``.hdf5``: a group a split with ``features`` float32 (N, D), ``labels`` int64 (N,), ``ids`` and
      ``paths`` (UTF-8); root attributes ``classes``, ``spec``, ``fingerprint``, ``export_version``.
    - ``.npz``: arrays ``train_features``, ``train_labels``, ``train_ids``, ``train_paths`` …, ``classes``, ``spec``.
    - ``.parquet``: a row an image: ``id``, ``path``, ``split``, ``label`` (a class name or null), ``label_index``
      (its place in ``classes``, or null), ``digest`` (SHA-256 of the file, 64 hex digits), ``features`` (D floats);
      the spec and the classes in the schema's metadata.
    - a name without an ending, or one that ends in ``/``: a folder of such files by split, for engines that read
      several at once (:mod:`featstore.store.parquet`).

    Names that are not UTF-8 are written with their odd bytes as ``\udcXX``. Rows are read a few MiB at a time, from a
    store as from memory. The file, or the folder, appears whole or not at all; a file that is there is replaced at the
    end, and so is a folder that an export wrote.
    Raises InputError (an unknown ending, tables that do not belong together, something in the way, pyarrow missing),
    NoSpaceError, ReadOnlyError or StorageError.
    """
    if is_url(str(to)):
        raise InputError("an export is written to a disk", where=to, todo="name a place there, and copy it from there")
    path = Path(to)
    as_folder = str(to).endswith(os.sep) or not path.suffix
    write = _FORMATS.get(path.suffix.lower())
    if write is None and not as_folder:
        raise unknown_name("file ending", path.suffix, (*_FORMATS, "none (a folder of Parquet)"), where=str(path))
    if not as_folder and os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        what = "a folder" if path.is_dir() else "something that is no file"
        raise InputError(
            f"there is {what} of this name", where=path, expected="nothing, or a file", todo="name another file"
        )
    if not tables or len({(t.spec, t.classes, t.X.shape[1]) for t in tables.values()}) != 1:
        raise InputError(
            "these tables do not make one file",
            where=path,
            expected="at least one table, all of one spec and with the same classes",
            received=", ".join(f"{name}: {t.spec.backbone}, {t.X.shape}" for name, t in tables.items()) or "none",
        )
    if write is None or as_folder:
        write_parquet_folder(tables, path)
    else:
        _write_file(write, tables, path)
    return path


def _write_file(write: _Write, tables: Tables, path: Path) -> None:
    with explained("write the exported file", path), drafted(path) as draft, open(draft, "x+b") as file:
        write(tables, file)
        file.flush()
        os.fsync(file.fileno())


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
            columns = {"labels": table.y, "ids": _utf8(table.ids), "paths": _utf8(table.paths)}
            for name, values in columns.items():
                chunked = {"fletcher32": True, "chunks": True} if len(values) else {}
                group.create_dataset(name, data=values, **chunked)
            _write_features(group, table, target)
    if target.failure is not None:
        raise target.failure


def _write_features(group: Any, table: TableLike, target: _Forgiving) -> None:
    """The features, a whole chunk of them at a time."""
    count, width = table.X.shape
    rows = max(1, min(count, _CHUNK_BYTES // max(1, 4 * width)))
    chunked = {"fletcher32": True, "chunks": (rows, max(1, width))} if count and width else {}
    features = group.create_dataset("features", (count, width), np.float32, **chunked)
    for part in _parts(table, rows):
        if target.failure is None:
            features[part] = table.X[part]


def _parts(table: TableLike, of: int = 1) -> Iterator[slice]:
    """The rows that are read at a time, each time a multiple ``of`` as many but the last."""
    step = max(1, rows_at_once(table) // of) * of
    return (slice(start, min(start + step, len(table.y))) for start in range(0, len(table.y), step))


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
    """What ``numpy.savez`` writes, the features a part at a time."""
    first = next(iter(tables.values()))
    with zipfile.ZipFile(file, "w") as archive:

        def put(name: str, values: npt.NDArray[Any]) -> None:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                write_array(member, values, allow_pickle=False)

        put("classes", _text(first.classes))
        put("spec", np.array(first.spec.to_json()))
        for split, table in tables.items():
            with archive.open(f"{split}_features.npy", "w", force_zip64=True) as member:
                header = {"descr": "<f4", "fortran_order": False, "shape": tuple(table.X.shape)}
                write_array_header_1_0(member, header)
                for part in _parts(table):
                    member.write(np.ascontiguousarray(table.X[part], "<f4").data)
            put(f"{split}_labels", table.y)
            put(f"{split}_ids", _text(table.ids))
            put(f"{split}_paths", _text(table.paths))


def _text(names: tuple[str, ...]) -> npt.NDArray[np.str_]:
    return np.array(printable_names(names), dtype=np.str_)


def _utf8(names: tuple[str, ...]) -> npt.NDArray[Any]:
    """Fixed-length UTF-8, which every HDF5 reader knows: one allocation, no heap of strings."""
    import h5py

    encoded = [name.encode() for name in printable_names(names)]
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max([1, *map(len, encoded)])))


_FORMATS: dict[str, _Write] = {
    ".h5": _write_hdf5,
    ".hdf5": _write_hdf5,
    ".npz": _write_npz,
    ".parquet": write_parquet,
}
