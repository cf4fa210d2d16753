"""Archives of arrays, as they may be and as they may not."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from heads.bundles.arrays import FITTED, MOST_ARRAYS, ArrayFile, Layout, head_layout
from tests.npy_files import claiming, npy, npz_of

PAIR: Layout = {"a": ("float64", "K", "D"), "b": ("int32", "D", 3)}


def file_of(**arrays: np.ndarray) -> io.BytesIO:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back_bit_for_bit(order: str) -> None:
    random = np.random.default_rng(0)
    arrays = {"a": np.asarray(random.normal(size=(4, 5)), order=order), "b": np.ones((5, 3), np.int32)}
    found = ArrayFile(file_of(**arrays)).read(PAIR, {"K": 4})
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], array) for name, array in arrays.items())
    assert all(found[name].dtype == array.dtype for name, array in arrays.items())


def test_no_image_at_all_is_read() -> None:
    found = ArrayFile(file_of(digests=np.zeros((0, 32), np.uint8), labels=np.zeros(0, np.int32))).read(FITTED, {})
    assert found["digests"].shape == (0, 32)


A, B = np.zeros((4, 5)), np.zeros((5, 3), np.int32)
WRONG = {
    "a known side": ({"a": A[:3], "b": B}, r"a is float64 \(3, 5\), expected float64 \(K, D\) with"),
    "a side of both": ({"a": A, "b": np.zeros((6, 3), np.int32)}, r"b is int32 \(6, 3\), expected int32 \(D, 3\) with"),
    "a number": ({"a": A, "b": np.zeros((5, 4), np.int32)}, r"b is int32 \(5, 4\)"),
    "the type": ({"a": A.astype(np.float32), "b": B}, r"a is float32"),
    "the order of bytes": ({"a": A.astype(">f8"), "b": B}, r"a is >f8"),
    "dimensions": ({"a": A[None], "b": B}, r"a is float64 \(1, 4, 5\)"),
    "one too many": ({"a": A, "b": B, "c": B}, r"a\.npy, b\.npy, c\.npy, expected a, b"),
    "one too few": ({"a": A}, r"a\.npy, expected a, b"),
}


@pytest.mark.parametrize(("arrays", "said"), WRONG.values(), ids=WRONG)
def test_what_is_not_in_the_layout_is_named(arrays: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ArrayFile(file_of(**arrays)).read(PAIR, {"K": 4})


@pytest.mark.parametrize("shape", [(2**40,), (7,), (-8,)])
def test_bytes_that_a_header_claims_must_be_there(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="but has 64 bytes"):
        ArrayFile(io.BytesIO(npz_of(npy(claiming(shape)), "a"))).read({"a": ("float64", "N")}, {})


def test_an_archive_has_no_more_entries_nor_bytes_in_them_than_it_may() -> None:
    names = [str(number) for number in range(MOST_ARRAYS)]
    assert len(ArrayFile(io.BytesIO(npz_of(b"", *names)))) == MOST_ARRAYS
    with pytest.raises(ValueError, match="201 entries"):
        ArrayFile(io.BytesIO(npz_of(b"", *names, "more")))
    with pytest.raises(ValueError, match="its directory has"):
        ArrayFile(io.BytesIO(npz_of(b"", "x" * 60_000, "y" * 60_000)))
    data = bytearray(npz_of(b"1234", "a"))
    at = data.index(b"PK\1\2")
    data[at + 20 : at + 28] = b"\0\1\0\0" * 2  # the sizes that the directory tells
    with pytest.raises(ValueError, match="larger than the file"):
        ArrayFile(io.BytesIO(bytes(data)))


def test_a_compressed_entry_is_refused() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(1000))
    with pytest.raises(ValueError, match="compressed"):
        ArrayFile(out)


def test_the_layers_of_a_dense_head_fit_together() -> None:
    assert head_layout("dense", 6) == {
        "weights_0": ("float32", "D", "H1"),
        "weights_1": ("float32", "H1", "H2"),
        "weights_2": ("float32", "H2", "K"),
        "biases_0": ("float32", "H1"),
        "biases_1": ("float32", "H2"),
        "biases_2": ("float32", "K"),
    }
    assert head_layout("dense", 2) == head_layout("dense", 0)
