from __future__ import annotations

import errno
import io
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featstore.errors import DamageError, FeatstoreError, InputError, NoSpaceError, StorageError
from heads.bundles.arrays import ArrayFile
from heads.bundles.bundle import CARD_FILE, HEAD_FILE, JUDGED_FILE, MOST_BYTES, ROWS_FILE, read_bundle
from heads.bundles.card import Card, FileEntry, HeadFile, card_to_bytes
from heads.kinds.linear import LinearHead
from heads.kinds.neighbours import NeighboursHead
from tests.heads.bundles.make import DIGESTS, FITTED, judged_of, write_bundle

LINEAR = HeadFile("linear", {})


def forged(folder: Path, card: Card, data: bytes, how: HeadFile = LINEAR) -> Path:
    """A bundle whose checksums are right and whose head is ``data``: what a malicious maker could write."""
    folder.mkdir()
    files = {HEAD_FILE: data, ROWS_FILE: npz(**FITTED.to_arrays()), JUDGED_FILE: npz(**judged_of(card).to_arrays())}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    entries = {name: FileEntry.of(content) for name, content in files.items()}
    (folder / CARD_FILE).write_bytes(card_to_bytes(card, how, entries))
    return folder


def npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def test_a_bundle_comes_back_bit_for_bit(bundles: Path, card: Card, head: LinearHead) -> None:
    bundle = read_bundle(write_bundle(bundles, card, head))
    assert bundle.card == card
    assert (bundle.head.weights == head.weights).all()
    assert (bundle.head.bias == head.bias).all()
    X = np.random.default_rng(0).normal(size=(9, 8)).astype(np.float32)
    assert (bundle.head.logits(X) == head.logits(X)).all()
    assert (bundle.probabilities(X) == card.calibration.probabilities(head.logits(X))).all()
    assert (bundle.fitted.digests == DIGESTS).all()
    assert bundle.fitted.labels.tolist() == [1, 0]
    for name, array in judged_of(card).to_arrays().items():
        assert np.array_equal(getattr(bundle.judged, name), array)


def test_a_bundle_is_named_after_what_is_in_it(bundles: Path, card: Card, head: LinearHead) -> None:
    path = write_bundle(bundles, card, head)
    assert path.name.startswith("vgg16-avg-logreg-")
    assert sorted(file.name for file in path.iterdir()) == [CARD_FILE, HEAD_FILE, JUDGED_FILE, ROWS_FILE]
    odd = replace(card, origins=(replace(card.origins[0], backbone="../my base<1>.keras"),))
    assert write_bundle(bundles, odd, head).name.startswith("my_base_1_-avg-logreg-")


def test_writing_an_equal_bundle_again_changes_nothing(bundles: Path, card: Card, head: LinearHead) -> None:
    path = write_bundle(bundles, card, head)
    before = {file: file.stat().st_mtime_ns for file in path.iterdir()}
    assert write_bundle(bundles, card, head) == path
    assert {file: file.stat().st_mtime_ns for file in path.iterdir()} == before
    assert write_bundle(bundles, replace(card, seed=8), head) != path
    assert len(list(bundles.iterdir())) == 2


@pytest.mark.parametrize("file", [HEAD_FILE, ROWS_FILE, JUDGED_FILE])
def test_a_change_of_any_byte_of_a_file_is_damage(file: str, bundles: Path, card: Card, head: LinearHead) -> None:
    path = write_bundle(bundles, card, head)
    data = (path / file).read_bytes()
    for place in range(len(data)):
        (path / file).write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        with pytest.raises(DamageError, match="changed after it was written"):
            read_bundle(path)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b""])
def test_a_head_of_another_length_is_damage(change, bundles: Path, card: Card, head: LinearHead) -> None:
    path = write_bundle(bundles, card, head)
    (path / HEAD_FILE).write_bytes(change((path / HEAD_FILE).read_bytes()))
    with pytest.raises(DamageError):
        read_bundle(path)


def test_a_missing_head_is_damage(bundles: Path, card: Card, head: LinearHead) -> None:
    path = write_bundle(bundles, card, head)
    (path / HEAD_FILE).unlink()
    with pytest.raises(DamageError, match="missing"):
        read_bundle(path)


def test_a_pipe_in_place_of_the_head_does_not_hang(bundles: Path, card: Card, head: LinearHead) -> None:
    path = write_bundle(bundles, card, head)
    (path / HEAD_FILE).unlink()
    os.mkfifo(path / HEAD_FILE)
    with pytest.raises(DamageError, match="missing"):
        read_bundle(path)


def test_what_is_no_bundle_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, received in ((tmp_path, "a folder without"), (tmp_path / "file", "a file"), (tmp_path / "no", "nothing")):
        with pytest.raises(InputError, match="not a bundle") as caught:
            read_bundle(path)
        assert received in str(caught.value.received)


def test_a_card_of_too_many_parts_is_never_written(bundles: Path, card: Card, head: LinearHead) -> None:
    with pytest.raises(InputError, match="too many parts"):
        write_bundle(bundles, replace(card, snapshot=("ab",) * 250_000), head)
    assert not bundles.exists()


def test_a_disk_that_fails_is_not_the_fault_of_the_bundle(
    bundles: Path, card: Card, head: LinearHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_bundle(bundles, card, head)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(ArrayFile, "read", fail)
    with pytest.raises(StorageError, match="cannot read a bundle"):
        read_bundle(path)


class Payload:
    def __reduce__(self):
        return Path.touch, (Path(os.environ["PAYLOAD"]),)


def test_a_pickled_payload_never_runs(tmp_path: Path, card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYLOAD", str(tmp_path / "ran"))
    objects = np.array([Payload()], object)
    out = io.BytesIO()
    np.savez(out, weights=objects, bias=np.zeros(3))
    for number, data in enumerate((out.getvalue(), pickle.dumps(Payload()))):
        with pytest.raises(InputError, match="cannot be read"):
            read_bundle(forged(tmp_path / str(number), card, data))
    assert not (tmp_path / "ran").exists()


def test_an_archive_that_unpacks_to_more_than_itself_is_refused(tmp_path: Path, card: Card) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights.npy", bytes(10_000_000))
    with pytest.raises(InputError, match="cannot be read") as caught:
        read_bundle(forged(tmp_path / "bomb", card, out.getvalue()))
    assert "compressed" in str(caught.value.received)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a zip",
        npz(weights=np.zeros((3, 8))),
        npz(weights=np.zeros((3, 8), np.float32), bias=np.zeros(3)),
        npz(weights=np.zeros((3, 8)), bias=np.zeros(2)),
        npz(weights=np.full((3, 8), np.nan), bias=np.zeros(3)),
        npz(weights=np.zeros((2, 8)), bias=np.zeros(2)),
        npz(weights=np.zeros(()), bias=np.zeros(3)),
    ],
    ids=["empty", "no zip", "an array missing", "float32", "bias", "nan", "classes", "scalar"],
)
def test_a_well_sealed_head_of_nonsense_is_one_message(tmp_path: Path, card: Card, data: bytes) -> None:
    with pytest.raises(InputError):
        read_bundle(forged(tmp_path / "forged", card, data))


def test_files_outside_of_the_bundle_are_never_asked_for(tmp_path: Path, card: Card) -> None:
    path = forged(tmp_path / "forged", card, b"")
    (path / CARD_FILE).write_bytes(card_to_bytes(card, LINEAR, {"../../etc/passwd": FileEntry.of(b"")}))
    with pytest.raises(InputError, match="not known here"):
        read_bundle(path)


def test_another_spec_is_refused_by_its_fields(bundles: Path, card: Card, head: LinearHead, spec) -> None:
    bundle = read_bundle(write_bundle(bundles, card, head))
    bundle.check_specs((spec,))
    with pytest.raises(InputError, match="not of the kind") as caught:
        bundle.check_specs((spec.but(weights="1" * 64, resize="nearest"),))
    assert caught.value.expected == f"weights = {'0' * 64}, resize = bilinear"
    assert "resize = nearest" in str(caught.value.received)
    with pytest.raises(InputError, match="not of the kind") as caught:
        bundle.check_specs((spec, spec))
    assert caught.value.received == "2 backbones"


@pytest.mark.parametrize("call", ["mkdir", "open", "rename"])
def test_a_full_disk_leaves_nothing_behind(
    call: str, bundles: Path, card: Card, head: LinearHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles.mkdir()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, call, full)
        with pytest.raises(NoSpaceError, match="cannot write a bundle"):
            write_bundle(bundles, card, head)
    assert list(bundles.iterdir()) == []
    assert read_bundle(write_bundle(bundles, card, head)).card == card


def test_a_bundle_written_by_another_process_meanwhile_is_used(
    bundles: Path, card: Card, head: LinearHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def lose_the_race(path: Path, target: Path) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", rename)
            write_bundle(bundles, card, head)
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    monkeypatch.setattr(Path, "rename", lose_the_race)
    path = write_bundle(bundles, card, head)
    assert [entry.name for entry in bundles.iterdir()] == [path.name]


def test_a_damaged_bundle_is_not_passed_off_as_the_new_one(bundles: Path, card: Card, head: LinearHead) -> None:
    path = write_bundle(bundles, card, head)
    (path / HEAD_FILE).write_bytes(b"")
    with pytest.raises(FeatstoreError):
        write_bundle(bundles, card, head)


def test_every_kind_of_head_comes_back(bundles: Path, card: Card) -> None:
    random = np.random.default_rng(0)
    rows, labels = random.normal(size=(6, 8)).astype(np.float32), np.arange(6) % 3
    head = NeighboursHead(rows, labels, np.zeros(8), np.ones(8), np.ones(6), k=2, by_distance=True)
    again = read_bundle(write_bundle(bundles, card, head)).head
    X = random.normal(size=(5, 8)).astype(np.float32)
    np.testing.assert_array_equal(again.logits(X), head.logits(X))


def test_a_format_or_settings_that_are_not_known_are_refused(tmp_path: Path, card: Card) -> None:
    data = npz(weights=np.zeros((3, 8)), bias=np.zeros(3))
    for number, how in enumerate((HeadFile("pickle", {}), HeadFile("linear", {"trust": True}))):
        with pytest.raises(InputError):
            read_bundle(forged(tmp_path / str(number), card, data, how))


def test_a_keras_model_in_place_of_the_head_is_never_loaded(tmp_path: Path, card: Card) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:  # what a .keras file is: a zip whose config may name a Lambda
        archive.writestr("config.json", '{"class_name": "Lambda", "config": {"function": "os.system"}}')
    with pytest.raises(InputError, match="cannot be read"):
        read_bundle(forged(tmp_path / "keras", card, out.getvalue()))


@pytest.mark.parametrize("file", [CARD_FILE, HEAD_FILE, ROWS_FILE, JUDGED_FILE])
def test_a_file_too_large_to_be_read_again_is_never_written(
    file: str, bundles: Path, card: Card, head: LinearHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(MOST_BYTES, file, {CARD_FILE: 1000}.get(file, 2**16))
        with pytest.raises(InputError, match="too large for a bundle"):
            write_bundle(bundles, card, head)
    assert not bundles.exists()
    path = write_bundle(bundles, card, head)
    patched = (path / file).stat().st_size - 1
    monkeypatch.setitem(MOST_BYTES, file, patched)
    with pytest.raises(InputError, match="too large") as caught:
        read_bundle(path)
    assert caught.value.expected == f"at most {patched} bytes"
