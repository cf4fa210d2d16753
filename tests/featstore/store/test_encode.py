from __future__ import annotations

import io
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from featstore.errors import InputError
from featstore.records import Reason
from featstore.spec import Spec
from featstore.store import encode as module
from featstore.store.encode import Codec, encode
from featstore.store.rows import Rows
from featstore.store.segment import open_segment

GOLDEN = Path(__file__).parent / "golden" / "format-2.h5"


def golden_rows() -> Rows:
    digests = (np.arange(5 * 32) % 251).astype(np.uint8).reshape(5, 32)
    features = np.arange(15, dtype=np.float32).reshape(5, 3) / 4
    features[3] = 0
    status = np.array([0, 0, 0, Reason.TRUNCATED, 0], np.uint8)
    return Rows(digests, np.array([0, 0, 1, 0, 65535], np.uint16), status, features)


@st.composite
def any_rows(draw: st.DrawFn) -> tuple[Rows, str]:
    count = draw(st.integers(1, 40))
    shape = draw(st.sampled_from([(1,), (7,), (300_000,), (2, 3, 5), (1, 1, 1)]))
    dtype = draw(st.sampled_from(["float32", "float16"]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    status = np.where(random.random(count) < draw(st.sampled_from([0, 0.3, 1])), 4, 0).astype(np.uint8)
    features = random.standard_normal((count, *shape), np.float32).astype(dtype)
    features[status != 0] = 0
    return Rows(
        random.integers(0, 256, (count, 32), dtype=np.uint8),
        random.integers(0, 2**16, count, dtype=np.uint16),
        status,
        None if status.all() else features,
    ), dtype


@settings(max_examples=60, deadline=None)
@given(drawn=any_rows(), codec=st.sampled_from(["none", "zstd"]), recorded=st.dictionaries(st.text(), st.text()))
def test_what_is_encoded_comes_back(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[Rows, str], codec: Codec, recorded: dict[str, str]
) -> None:
    rows, dtype = drawn
    spec = Spec("vgg16", "ab" * 32, "block5_pool", (150, 150), dtype=dtype)  # type: ignore[arg-type] # drawn from its choices
    data = encode(rows, spec, recorded, codec)
    path = tmp_path_factory.mktemp("s") / f"{blake3(data).hexdigest()}.h5"
    path.write_bytes(data)
    segment = open_segment(path, spec)
    assert (segment.digests == rows.digests).all()
    assert (segment.views == rows.views).all()
    assert (segment.status == rows.status).all()
    assert segment.recorded == recorded
    if rows.features is not None:
        out = np.empty_like(rows.features)
        every = np.arange(len(rows))
        segment.read_into(out, every, every)
        assert (out == rows.features).all()
    else:
        assert segment.feature_shape is None
    path.unlink()


@pytest.mark.parametrize("codec", ["none", "zstd"])
@pytest.mark.parametrize("shape", [(5,), (3000,), (4, 4, 512)])
def test_the_same_rows_give_the_same_bytes(make_rows: Any, spec: Spec, codec: Codec, shape: tuple[int, ...]) -> None:
    rows = make_rows(100, shape=shape, rejects=[3])
    first = encode(rows, spec, {"a": "1", "b": "2"}, codec)
    np.full(10_000_000, 7, np.uint8)  # what the allocator hands out next is not zeros
    assert encode(rows, spec, {"b": "2", "a": "1"}, codec) == first


def test_another_process_at_another_time_gives_the_same_bytes(make_rows: Any, spec: Spec) -> None:
    code = (
        "import hashlib, numpy as np; from featstore.spec import Spec; from featstore.store import Rows;"
        "from featstore.store.encode import encode;"
        "rows = Rows(np.ones((3, 32), np.uint8), np.arange(3, dtype='u2'), np.zeros(3, 'u1'), np.ones((3, 9), 'f4'));"
        "spec = Spec('vgg16', 'ab' * 32, 'block5_pool', (150, 150));"
        "print(hashlib.sha256(encode(rows, spec, {'x': 'y'})).hexdigest())"
    )
    first = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    time.sleep(1.1)  # HDF5 counts time in seconds
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == first


def test_one_row_more_or_other_records_give_other_bytes(make_rows: Any, spec: Spec) -> None:
    images = [encode(make_rows(n), spec, {"v": v}) for n in (3, 4) for v in ("1", "2")]
    assert len(set(images)) == 4


def test_a_segment_is_plain_hdf5_with_checksums_and_without_times(make_rows: Any, spec: Spec) -> None:
    with h5py.File(io.BytesIO(encode(make_rows(300, shape=(2048,)), spec, {"keras": "3"})), "r") as file:
        assert set(file) == {"digest", "view", "status", "features"}
        assert all(file[name].fletcher32 and file[name].compression is None for name in file)
        assert file["features"].chunks == (128, 2048)  # 1 MiB
        assert file.attrs["schema"] == 2
        assert file.attrs["fingerprint"] == spec.fingerprint.encode()
        assert file.attrs["spec"] == spec.to_json().encode()
        assert file.attrs["recorded"] == b'{"keras":"3"}'


def test_the_checksum_is_taken_of_the_compressed_bytes(make_rows: Any, spec: Spec) -> None:
    with h5py.File(io.BytesIO(encode(make_rows(9), spec, {}, "zstd")), "r") as file:
        plan = file["features"].id.get_create_plist()
        assert [plan.get_filter(i)[0] for i in range(plan.get_nfilters())] == [32015, h5py.h5z.FILTER_FLETCHER32]


def test_zstd_makes_sparse_maps_small(make_rows: Any, spec: Spec) -> None:
    rows = make_rows(50, shape=(4, 4, 64))
    sparse = replace(rows, features=np.where(rows.features > 0.84, rows.features, 0).astype(np.float32))
    assert len(encode(sparse, spec, {}, "zstd")) < len(encode(sparse, spec, {})) / 2


def test_a_missing_codec_is_one_message(make_rows: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with pytest.raises(InputError, match="Zstandard"):
        encode(make_rows(3), spec, {}, "zstd")


@pytest.mark.parametrize("most", ["MAX_ROW_BYTES", "MAX_UNPACKED_BYTES", "MAX_ATTRIBUTE_BYTES"])
def test_what_no_reader_would_take_is_refused(
    make_rows: Any, spec: Spec, most: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, recorded = make_rows(1, shape=(300,)), {"a": "b" * 1192}  # 1,200 bytes each
    monkeypatch.setattr(module, most, 1200)
    encode(rows, spec, recorded)
    monkeypatch.setattr(module, most, 1199)
    with pytest.raises(InputError, match="too large to be read"):
        encode(rows, spec, recorded)


def test_features_of_another_dtype_are_refused(make_rows: Any, spec: Spec) -> None:
    with pytest.raises(InputError, match="wrong type"):
        encode(make_rows(3, dtype="float16"), spec, {})


def test_a_segment_of_the_released_format_stays_readable(spec: Spec, tmp_path: Path) -> None:
    path = tmp_path / f"{blake3(GOLDEN.read_bytes()).hexdigest()}.h5"
    path.write_bytes(GOLDEN.read_bytes())
    segment, rows = open_segment(path, spec), golden_rows()
    out = np.empty((5, 3), np.float32)
    segment.read_into(out, np.arange(5), np.arange(5))
    assert (out == rows.features).all()
    assert (segment.digests == rows.digests).all()
    assert segment.views.tolist() == [0, 0, 1, 0, 65535]
    assert segment.status.tolist() == [0, 0, 0, Reason.TRUNCATED, 0]
    assert segment.recorded == {"featstore": "golden"}
