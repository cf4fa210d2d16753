"""Rows to the bytes of a segment, in memory: HDF5 never touches a file of the store while writing."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from featstore.errors import InputError
from featstore.spec import Spec
from featstore.store.rows import FORMAT_VERSION, MAX_ATTRIBUTE_BYTES, MAX_ROW_BYTES, Rows
from featstore.store.structure import KEYS, MAX_UNPACKED_BYTES, ZSTD, Codec, feature_type, require_zstd

_CHUNK_BYTES = 2**20
"""Aimed at, uncompressed: small enough to bound the memory of a reader, large enough that HDF5's overhead vanishes."""

_ZSTD_LEVEL = 3


def encode(rows: Rows, spec: Spec, recorded: Mapping[str, str], codec: Codec = "none") -> bytes:
    """The HDF5 image of ``rows``: the same arguments give the same bytes (with one version of HDF5).

    ``recorded`` is what people may want to know of the making (library versions, runtime); it identifies nothing.
    Raises InputError if the features are not of the spec's dtype, if there is more than a reader takes, or if the codec
    is not installed.
    """
    if rows.features is not None and rows.features.dtype != feature_type(spec):
        raise InputError(
            "features of the wrong type", where="rows of a segment", expected=spec.dtype, received=rows.features.dtype
        )
    if rows.features is not None:
        _require("one row", rows.features[0].nbytes, MAX_ROW_BYTES)
        _require("features", rows.features.nbytes, MAX_UNPACKED_BYTES)
    if codec == "zstd":
        require_zstd("this codec")
    buffer = io.BytesIO()
    with _new_image(buffer) as file:
        _write_attributes(file, spec, recorded)
        for name, dtype in KEYS.items():
            _write_array(file, name, getattr(rows, _FIELDS[name]).astype(dtype, copy=False))
        if rows.features is not None:
            _write_array(file, "features", rows.features, codec)
    return buffer.getvalue()


_FIELDS = {"digest": "digests", "view": "views", "status": "status"}


def _new_image(buffer: io.BytesIO) -> Any:
    """An empty HDF5 file in ``buffer``: newest layout (its metadata carry checksums), no times of creation.

    Not h5py's core driver: what its get_file_image returns has a wrong superblock checksum in this layout.
    """
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, buffer)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    return h5py.File(h5py.h5f.create(b"segment", h5py.h5f.ACC_TRUNC, fcpl=creation, fapl=access))


def _require(what: str, size: int, most: int) -> None:
    """That no reader will refuse it as too large."""
    if size > most:
        raise InputError(
            "a segment that is too large to be read", where=what, expected=f"at most {most} bytes", received=size
        )


def _write_attributes(file: Any, spec: Spec, recorded: Mapping[str, str]) -> None:
    file.attrs["schema"] = np.uint16(FORMAT_VERSION)
    file.attrs["fingerprint"] = np.bytes_(spec.fingerprint.encode())
    file.attrs["spec"] = np.bytes_(spec.to_json().encode())
    text = json.dumps(dict(recorded), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    _require("recorded", len(text), MAX_ATTRIBUTE_BYTES)
    file.attrs["recorded"] = np.bytes_(text.encode())


def _write_array(file: Any, name: str, values: npt.NDArray[Any], codec: Codec = "none") -> None:
    """One chunked dataset. h5py puts Fletcher-32 last, so a chunk is checked before any decompressor sees it."""
    rows = max(1, min(len(values), _CHUNK_BYTES // values[0].nbytes))
    compression = {"compression": ZSTD, "compression_opts": (_ZSTD_LEVEL,)} if codec == "zstd" else {}
    file.create_dataset(name, data=values, chunks=(rows, *values.shape[1:]), fletcher32=True, **compression)
