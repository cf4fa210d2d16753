"""Files that are not segments, each under the right name for its bytes: only the structure can tell."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from blake3 import blake3

from featstore.errors import DamageError, InputError
from featstore.spec import Spec
from featstore.store.encode import encode
from featstore.store.rows import Rows
from featstore.store.segment import open_segment
from featstore.store.structure import frame_content_bytes

Forge = Callable[[Callable[[Any], None]], Path]


@pytest.fixture
def forge(tmp_path: Path, make_rows: Any, spec: Spec) -> Forge:
    """A good segment of 8 rows with 4 features, changed by a function of its open file, named after its new bytes."""

    def make(change: Callable[[Any], None]) -> Path:
        draft = tmp_path / "draft.h5"
        draft.write_bytes(encode(make_rows(8), spec, {}))
        with h5py.File(draft, "r+", libver="v110") as file:
            change(file)
        return draft.rename(tmp_path / f"{blake3(draft.read_bytes()).hexdigest()}.h5")

    return make


def replaced(name: str, **arguments: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        values = file[name][:] if name in file else None
        if name in file:
            del file[name]
        given = {"data": values, "chunks": True, "fletcher32": True, **arguments}
        file.create_dataset(name, **{k: v for k, v in given.items() if v is not None})

    return change


def attribute(name: str, value: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file.attrs[name]
        if value is not None:
            file.attrs[name] = value

    return change


def linked(link: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        file.move("features", "elsewhere") if isinstance(link, h5py.SoftLink) else None
        if "features" in file:
            del file["features"]
        file["features"] = link

    return change


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((8, 4), "<f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (8, 4))
    del file["features"]
    file.create_virtual_dataset("features", layout)


def never_written(file: Any) -> None:
    del file["features"]
    file.create_dataset("features", (8, 4), "<f4", chunks=(8, 4), fletcher32=True)


def never_written_zstd(file: Any) -> None:
    del file["features"]
    file.create_dataset("features", (8, 4), "<f4", chunks=(8, 4), compression=hdf5plugin.Zstd(), fletcher32=True)


def checksum_skipped(file: Any) -> None:
    """The filter is announced, but the chunk says that it was not applied to it."""
    values = file["features"][:]
    file["features"].id.write_direct_chunk((0, 0), values.tobytes(), filter_mask=1)


def compressed(frame: bytes, shape: tuple[int, int] = (8, 4), filter_mask: int = 0) -> Callable[[Any], None]:
    """Every chunk, of as many rows as fit 1 MiB, is this Zstandard frame, as far as the file says."""

    def change(file: Any) -> None:
        del file["features"]
        rows = max(1, min(shape[0], 2**20 // (4 * shape[1])))
        options = {"chunks": (rows, shape[1]), "compression": hdf5plugin.Zstd(), "fletcher32": True}
        features = file.create_dataset("features", shape, "<f4", **options)
        for start in range(0, shape[0], rows):
            features.id.write_direct_chunk((start, 0), frame + b"\0" * 4, filter_mask)

    return change


def frame_of(size: int) -> bytes:
    """A Zstandard frame of so many zeros, that says so in four bytes."""
    blocks = [min(2**17, size - start) for start in range(0, size, 2**17)]
    lasts = [number == len(blocks) - 1 for number in range(len(blocks))]
    body = b"".join(
        (n << 3 | 1 << 1 | last).to_bytes(3, "little") + b"\0" for n, last in zip(blocks, lasts, strict=True)
    )
    return b"\x28\xb5\x2f\xfd\xa0" + size.to_bytes(4, "little") + body


NO_SIZE = b"\x28\xb5\x2f\xfd\x00\x58" + (128 << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"\0"
"""A frame of 128 zeros that does not say how many."""


def in_another_file(file: Any) -> None:
    """All is as it should be, but for the place where the features are."""
    other = Path(file.filename).with_name("other.h5")
    with h5py.File(other, "w", libver="v110") as target:
        file.copy("features", target)
    del file["features"]
    file["features"] = h5py.ExternalLink(str(other), "/features")


def group(file: Any) -> None:
    del file["features"]
    file.create_group("features")


FORGERIES: dict[str, Callable[[Any], None]] = {
    "external link": linked(h5py.ExternalLink("/etc/passwd", "/x")),
    "soft link": linked(h5py.SoftLink("/digest")),
    "virtual dataset": virtual,
    "external storage": replaced("view", chunks=None, fletcher32=None, external=[("/dev/zero", 0, 16)]),
    "contiguous": replaced("features", chunks=None, fletcher32=None),
    "no checksum": replaced("features", fletcher32=False),
    "unknown filter": replaced("features", compression="gzip"),
    "never written": never_written,
    "never written, compressed": never_written_zstd,
    "checksum skipped": checksum_skipped,
    "a compressed bomb": compressed(frame_of(2**30)),
    "a compressed chunk of fewer bytes": compressed(frame_of(127)),
    "a compressed chunk without its size": compressed(NO_SIZE),
    "a compressed chunk that is no frame": compressed(bytes(60)),
    "a compressed chunk of nothing": compressed(b""),
    "compression skipped": compressed(bytes(128), filter_mask=1),
    "checksum skipped after compression": compressed(frame_of(128), filter_mask=2),
    "compressed features without end": compressed(frame_of(2**27), (8, 2**25)),
    "in another file": in_another_file,
    "a group": group,
    "a dataset more": lambda file: file.create_dataset("more", data=[1]),
    "a dataset less": lambda file: file.pop("status"),
    "many links": lambda file: [file.create_group(str(i)) for i in range(50)],
    "other dtype": replaced("features", data=np.zeros((8, 4), "<f8")),
    "big endian": replaced("features", data=np.zeros((8, 4), ">f4")),
    "other rank": replaced("features", data=np.zeros((8, 4, 4), "<f4")),
    "fewer features": replaced("features", data=np.zeros((7, 4), "<f4")),
    "fewer views": replaced("view", data=np.zeros(7, "<u2")),
    "no features in sound rows": lambda file: file.pop("features"),
    "narrow digests": replaced("digest", data=np.zeros((8, 31), "u1")),
    "growing": replaced("features", maxshape=(None, 4)),
    "chunks across rows": replaced("features", chunks=(8, 2)),
    "a status that is no reason": replaced("status", data=np.array([0, 0, 77, 0, 0, 0, 0, 0], "u1")),
    "strings": replaced("status", data=np.array([b"x"] * 8)),
    "a bomb of rows": replaced("digest", data=None, shape=(2**50, 32), dtype="u1", chunks=(1, 32)),
    "a bomb of features": replaced("features", data=None, shape=(8, 2**50), dtype="<f4", chunks=(1, 4)),
    "a scalar": replaced("digest", data=np.uint8(1), chunks=None, fletcher32=None),
    "old schema": attribute("schema", np.uint16(0)),
    "schema as text": attribute("schema", "1"),
    "no schema": attribute("schema", None),
    "an attribute more": lambda file: file.attrs.__setitem__("more", 1),
    "other fingerprint": attribute("fingerprint", np.bytes_(b"0" * 64)),
    "fingerprint of variable length": attribute("fingerprint", "x" * 64),
    "other spec": attribute("spec", np.bytes_(b"{}")),
    "spec that is not ASCII": attribute("spec", np.bytes_(b"\xff")),
    "records that are no JSON": attribute("recorded", np.bytes_(b"{")),
    "records that are no object": attribute("recorded", np.bytes_(b"[]")),
    "records too long": attribute("recorded", np.bytes_(json.dumps({"x": "y" * 70_000}).encode())),
}


@pytest.mark.parametrize("read_data", [True, False])
@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_file_is_damage(forge: Forge, spec: Spec, name: str, read_data: bool) -> None:
    with pytest.raises(DamageError):
        open_segment(forge(FORGERIES[name]), spec, read_data=read_data)


def test_what_is_only_touched_is_accepted(forge: Forge, spec: Spec) -> None:
    assert len(open_segment(forge(lambda file: None), spec).digests) == 8


@pytest.mark.parametrize("read_data", [True, False])
def test_compressed_zeros_are_no_bomb(tmp_path: Path, spec: Spec, read_data: bool) -> None:
    for count, width in ((1, 1), (8, 4), (3000, 8), (5000, 512), (2, 2**20)):
        digests = np.zeros((count, 32), np.uint8)
        rows = Rows(digests, np.arange(count, dtype=np.uint16), digests[:, 0], np.zeros((count, width), np.float32))
        data = encode(rows, spec, {}, "zstd")
        path = tmp_path / f"{blake3(data).hexdigest()}.h5"
        path.write_bytes(data)
        segment = open_segment(path, spec, read_data=read_data)
        out = np.ones((1, width), np.float32)
        segment.read_into(out, np.array([0]), np.array([count - 1]))
        assert not out.any()


def test_the_forged_frames_are_ones_that_the_filter_takes(forge: Forge) -> None:
    for frame in (frame_of(128), NO_SIZE):
        path = forge(compressed(frame))
        with h5py.File(path) as file:
            filters = file["features"].id.get_create_plist()
            assert filters.get_nfilters() == 2
            _, stored = file["features"].id.read_direct_chunk((0, 0))
            assert stored == frame + b"\0" * 4
    assert frame_content_bytes(frame_of(128)) == 128
    assert frame_content_bytes(NO_SIZE) is None


@pytest.mark.parametrize(
    ("head", "size"),
    [
        ("20 05", 5),  # a single segment: one byte
        ("60 0500", 256 + 5),
        ("a0 05000000", 5),
        ("e0 0500000000000080", 2**63 + 5),
        ("40 58 0500", 256 + 5),  # after the size of the window
        ("61 07 0500", 256 + 5),  # after the number of a dictionary, of 1, 2 or 4 bytes
        ("62 0707 0500", 256 + 5),
        ("e3 07070707 0500000000000000", 5),
        ("c3 58 07070707 0500000000000000", 5),
        ("00 58", None),
        ("60 05", None),
        ("a0 050000", None),
    ],
)
def test_the_size_in_the_head_of_a_frame_is_read_as_rfc_8878_says(head: str, size: int | None) -> None:
    assert frame_content_bytes(b"\x28\xb5\x2f\xfd" + bytes.fromhex(head)) == size
    assert frame_content_bytes(b"\x27\xb5\x2f\xfd" + bytes.fromhex(head)) is None


def test_what_stands_before_the_hdf5_file_is_damage(tmp_path: Path, make_rows: Any, spec: Spec) -> None:
    data = bytes(512) + encode(make_rows(8), spec, {}, "zstd")
    path = tmp_path / f"{blake3(data).hexdigest()}.h5"
    path.write_bytes(data)
    with pytest.raises(DamageError, match="before the HDF5 file"):
        open_segment(path, spec)


def test_a_newer_format_is_no_damage_but_a_message(forge: Forge, spec: Spec) -> None:
    with pytest.raises(InputError, match="newer featstore"):
        open_segment(forge(attribute("schema", np.uint16(3))), spec)


def test_a_codec_that_is_not_installed_is_no_damage_but_a_message(
    tmp_path: Path, make_rows: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(make_rows(8), spec, {}, "zstd")
    path = tmp_path / f"{blake3(data).hexdigest()}.h5"
    path.write_bytes(data)
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with pytest.raises(InputError, match="pip install"):
        open_segment(path, spec)
