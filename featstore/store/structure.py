"""The trust boundary: is this HDF5 file a segment, exactly? Asked before any array is made or any filter is run."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt

from featstore.errors import InputError
from featstore.records import DIGEST_BYTES
from featstore.spec import Spec
from featstore.store.rows import FORMAT_VERSION, MAX_ATTRIBUTE_BYTES, MAX_ROW_BYTES

ZSTD = 32015
"""The number under which the HDF Group registered the Zstandard filter."""

Codec = Literal["none", "zstd"]
"""How the features are compressed."""

KEYS: dict[str, np.dtype[Any]] = {"digest": np.dtype("u1"), "view": np.dtype("<u2"), "status": np.dtype("u1")}
"""The datasets that say what a row is, in the order in which they are stored."""

MAX_UNPACKED_BYTES = 2**29
"""Of all compressed features: far more than a writer commits at once, and what a compaction takes into memory."""

_MAX_CHUNK_BYTES = 2**26
_CHECKSUM_BYTES = 4
_FRAME_MARK = b"\x28\xb5\x2f\xfd"
_FRAME_HEAD_BYTES = 18


class Malformed(ValueError):
    """The file is not a segment of this format; the message says why."""


def feature_type(spec: Spec) -> np.dtype[Any]:
    """The little-endian type in which features of ``spec`` are stored."""
    return np.dtype(spec.dtype).newbyteorder("<")


def require_zstd(who: str) -> None:
    """Make the Zstandard filter available; raises InputError if it is not installed."""
    try:
        import hdf5plugin  # noqa: F401 - importing registers the filter
    except ImportError as error:
        raise InputError(
            f"{who} needs Zstandard, which is not installed", where="hdf5plugin", todo="pip install hdf5plugin"
        ) from error


def check_structure(file: Any, size: int, spec: Spec) -> tuple[dict[str, Any], Mapping[str, str]]:
    """Check an open h5py file of ``size`` bytes against the format and ``spec``.

    Returns its datasets by name ("features" only where there are any), as h5py's own identifiers (``DatasetID``), for a
    store has many segments and the usual objects cost ten times as much; and what its maker recorded.
    Raises Malformed, or InputError if it needs a newer featstore or a codec that is not installed; and whatever
    h5py raises on damaged metadata.
    """
    if file.userblock_size:  # what HDF5 calls a place in the file would be another one
        raise Malformed("there is something before the HDF5 file")
    root = h5py.h5g.open(file.id, b"/")
    recorded = _check_attributes(root, spec, file.filename)
    names = {name.decode() for name in root} if root.get_num_objs() <= len(KEYS) + 1 else set()
    if names not in ({*KEYS}, {*KEYS, "features"}):
        raise Malformed("the datasets are not digest, view, status and features")
    datasets = {name: _dataset(root, name) for name in sorted(names)}
    rows = (datasets["digest"].shape or (0,))[0]  # a scalar has the shape (), an empty dataspace none
    if not 0 < rows * (DIGEST_BYTES + 3) <= size:
        raise Malformed(f"{rows} rows do not fit a file of {size} bytes")
    for name, dataset in datasets.items():
        if name == "features":
            shape = dataset.shape
            if len(shape) not in (2, 4) or shape[0] != rows or min(shape) < 1:
                raise Malformed(f"features is {shape}, not ({rows}, D) or ({rows}, H, W, C)")
            _check_dataset(name, dataset, shape, feature_type(spec), size)
        else:
            _check_dataset(name, dataset, (rows, DIGEST_BYTES) if name == "digest" else (rows,), KEYS[name], size)
    if "features" in datasets and codec_of(datasets["features"]) == "zstd":
        _check_compressed(datasets["features"], file.id.get_vfd_handle())
    return datasets, recorded


def spec_text(file: Any) -> str:
    """The canonical JSON in an open h5py file of which nothing was checked; raises as :func:`check_structure`."""
    return _text(h5py.h5g.open(file.id, b"/"), "spec")


def read_whole(dataset: Any) -> npt.NDArray[Any]:
    """All of a dataset that was checked."""
    values = np.empty(dataset.shape, dataset.dtype)
    dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
    return values


def chunks_of(dataset: Any) -> tuple[int, ...]:
    """The shape of its chunks."""
    found: tuple[int, ...] = dataset.get_create_plist().get_chunk()
    return found


def stored_chunks(features: Any) -> Iterator[Any]:
    """Where each chunk lies and what it went through, in the order of their rows (h5py's ``StoreInfo``)."""
    rows, *rest = features.shape
    for start in range(0, rows, chunks_of(features)[0]):
        yield features.get_chunk_info_by_coord((start, *(0,) * len(rest)))


def codec_of(features: Any) -> Codec:
    """The codec of a dataset of features."""
    return "none" if features.get_create_plist().get_nfilters() == 1 else "zstd"


def _dataset(root: Any, name: str) -> Any:
    """The dataset ``name``, which must lie in this file and nowhere else."""
    key = name.encode()
    if root.links.get_info(key).type != h5py.h5l.TYPE_HARD or h5py.h5g.get_objinfo(root, key).type != h5py.h5g.DATASET:
        raise Malformed(f"{name} is not a dataset of this file")
    return h5py.h5d.open(root, key)


def _check_attributes(root: Any, spec: Spec, where: str) -> Mapping[str, str]:
    if h5py.h5a.get_num_attrs(root) != 4:
        raise Malformed("the attributes are not schema, fingerprint, spec and recorded")
    schema = _attribute(root, "schema")
    if schema.shape != () or schema.dtype != np.dtype("<u2"):
        raise Malformed("the attribute schema is not one 16-bit number")
    if (version := int(_value(schema))) > FORMAT_VERSION:
        raise InputError(
            "a segment was written by a newer featstore",
            where=where,
            expected=f"format {FORMAT_VERSION}",
            received=f"format {version}",
            todo="use that version, or another store",
        )
    if version != FORMAT_VERSION:
        raise Malformed(f"its format is {version}, not {FORMAT_VERSION}")
    fingerprint, canonical = _canonical(spec)
    if (found := _text(root, "fingerprint")) != fingerprint:
        raise Malformed(f"its rows are of another spec, {found[:64]}")
    if _text(root, "spec") != canonical:
        raise Malformed("its spec is not the one of its fingerprint")
    recorded = json.loads(_text(root, "recorded"))
    if not isinstance(recorded, dict):
        raise Malformed("the attribute recorded is not a JSON object")
    return {str(name): str(value) for name, value in recorded.items()}


@lru_cache(maxsize=64)
def _canonical(spec: Spec) -> tuple[str, str]:
    """Fingerprint and canonical JSON."""
    return spec.fingerprint, spec.to_json()


def _attribute(root: Any, name: str) -> Any:
    if not h5py.h5a.exists(root, name.encode()):
        raise Malformed(f"there is no attribute {name}")
    return h5py.h5a.open(root, name.encode())


def _value(attribute: Any) -> Any:
    values = np.empty((), attribute.dtype)
    attribute.read(values)
    return values[()]


def _text(root: Any, name: str) -> str:
    attribute = _attribute(root, name)
    if attribute.shape != () or attribute.dtype.kind != "S" or attribute.dtype.itemsize > MAX_ATTRIBUTE_BYTES:
        raise Malformed(f"the attribute {name} is not a short text of fixed length")
    return bytes(_value(attribute)).decode("ascii")


def _check_dataset(name: str, dataset: Any, shape: tuple[int, ...], kind: np.dtype[Any], size: int) -> None:
    """Stored in this file only, whole, in chunks that are a number of rows, behind no filter but the two we know."""
    space = dataset.get_space()
    if dataset.shape != shape or space.get_simple_extent_dims(maxdims=1) != shape or dataset.dtype != kind:
        raise Malformed(f"{name} is {dataset.dtype} {dataset.shape}, not {kind} {shape}")
    creation = dataset.get_create_plist()
    if creation.get_layout() != h5py.h5d.CHUNKED or creation.get_external_count():
        raise Malformed(f"{name} is not stored in chunks in this file")
    filters = [creation.get_filter(i)[0] for i in range(creation.get_nfilters())]
    compressed = filters == [ZSTD, h5py.h5z.FILTER_FLETCHER32] and name == "features"
    if not compressed and filters != [h5py.h5z.FILTER_FLETCHER32]:
        raise Malformed(f"{name} has filters {filters} that no segment has")
    chunk = creation.get_chunk()
    chunk_bytes = math.prod(chunk) * kind.itemsize
    row_bytes = chunk_bytes // chunk[0]
    if chunk[1:] != shape[1:] or row_bytes > MAX_ROW_BYTES or (chunk[0] > 1 and chunk_bytes > _MAX_CHUNK_BYTES):
        raise Malformed(f"{name} has chunks {chunk} that no segment has")
    chunks = -(-shape[0] // chunk[0])
    stored = dataset.get_storage_size()
    if dataset.get_num_chunks() != chunks or stored > size:
        raise Malformed(f"{name} is not stored whole")
    if not compressed and stored != chunks * (chunk_bytes + _CHECKSUM_BYTES):
        raise Malformed(f"{name} is not stored whole")
    if compressed:
        require_zstd("a segment")


def _check_compressed(features: Any, handle: int) -> None:
    """That every chunk has gone through both filters, and says of itself the size that it must have: the filter takes
    as much memory as it says. ``handle`` is HDF5's own of the file.
    """
    if math.prod(features.shape) * features.dtype.itemsize > MAX_UNPACKED_BYTES:
        raise Malformed(f"features would take more than {MAX_UNPACKED_BYTES} bytes")
    chunk_bytes = math.prod(chunks_of(features)) * features.dtype.itemsize
    for chunk in stored_chunks(features):
        head = os.pread(handle, min(chunk.size, _FRAME_HEAD_BYTES), chunk.byte_offset)
        if chunk.filter_mask or frame_content_bytes(head) != chunk_bytes:
            raise Malformed(f"a compressed chunk of features does not say that it has {chunk_bytes} bytes")


def frame_content_bytes(head: bytes) -> int | None:
    """The size that a Zstandard frame with this head gives for its content; None if it gives none, or is no frame.

    ``head`` is its first 18 bytes, or all of them. See RFC 8878, 3.1.1.1.
    """
    if len(head) < 6 or not head.startswith(_FRAME_MARK):
        return None
    is_single = head[4] >> 5 & 1
    width = (is_single, 2, 4, 8)[head[4] >> 6]
    start = 5 + (1 - is_single) + (0, 1, 2, 4)[head[4] & 3]
    field = head[start : start + width]
    if not field or len(field) < width:
        return None
    return int.from_bytes(field, "little") + (256 if width == 2 else 0)
