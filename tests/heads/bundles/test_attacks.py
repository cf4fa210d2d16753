"""What somebody may do to a bundle, or hand over as one: each is one message, and no code of theirs ever runs."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore.errors import DamageError, InputError
from featstore.weights import resolve
from heads.bundles.bundle import CARD_FILE, HEAD_FILE, JUDGED_FILE, MOST_BYTES, ROWS_FILE, read_bundle
from heads.bundles.card import MOST_PARTS, Card, FileEntry, HeadFile, _checksum, _text, card_to_bytes
from heads.bundles.images import FittedImages
from heads.kinds.dense import DenseHead
from heads.kinds.head import Head
from heads.kinds.kernel import KernelHead
from heads.kinds.linear import LinearHead
from heads.kinds.neighbours import NeighboursHead
from tests.heads.bundles.make import DIGESTS, write_bundle
from tests.memory import mib_taken_by
from tests.npy_files import NONSENSE, claiming, npy, npz_of
from tests.reliability.campaign import amount

FLOATS = np.random.default_rng(0).normal(size=(3, 8))
SINGLES = FLOATS.astype(np.float32)
ONES = np.ones(8)

HEADS: dict[str, Head] = {
    "linear": LinearHead(FLOATS, FLOATS[:, 0]),
    "dense": DenseHead((SINGLES.T.copy(), SINGLES[:, :3].copy()), (SINGLES[:, 0].copy(), SINGLES[:, 1].copy())),
    "kernel": KernelHead(SINGLES, FLOATS[0], ONES, FLOATS[:, :3].copy(), FLOATS[:, 0].copy(), 0.1),
    "neighbours": NeighboursHead(SINGLES, np.arange(3), FLOATS[0], ONES, np.ones(3), k=2, by_distance=True),
}

OTHER = FittedImages.of(DIGESTS[:1], np.array([2]))


class Payload:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path(os.environ["PAYLOAD"]),)


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that a payload makes where it runs; a test proves first that it does."""
    path = tmp_path / "ran"
    monkeypatch.setenv("PAYLOAD", str(path))
    pickle.loads(pickle.dumps(Payload()))
    assert path.exists()
    path.unlink()
    return path


@pytest.fixture(params=HEADS)
def path(request: pytest.FixtureRequest, bundles: Path, card: Card) -> Path:
    """A sound bundle of each kind of head."""
    return write_bundle(bundles, card, HEADS[request.param])


def resealed(path: Path, name: str, data: bytes) -> None:
    """Put ``data`` in place of a file and make every checksum right again, as a malicious maker can."""
    (path / name).write_bytes(data)
    content = json.loads((path / CARD_FILE).read_bytes())
    bundle_card = _card_of(path)
    files = {file: FileEntry.of((path / file).read_bytes()) for file in (HEAD_FILE, ROWS_FILE, JUDGED_FILE)}
    how = HeadFile(content["head"]["format"], content["head"]["config"])
    (path / CARD_FILE).write_bytes(card_to_bytes(bundle_card, how, files))


def _card_of(path: Path) -> Card:
    from heads.bundles.card import card_from_bytes

    return card_from_bytes((path / CARD_FILE).read_bytes(), path)[0]


@pytest.mark.parametrize("file", [HEAD_FILE, ROWS_FILE, JUDGED_FILE, CARD_FILE])
def test_any_changed_byte_of_any_file_is_refused(file: str, path: Path) -> None:
    data = (path / file).read_bytes()
    step = 7 if file == CARD_FILE else amount(7, 1)  # others in test_card and test_bundle
    for place in range(0, len(data), step):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        (path / file).write_bytes(changed)
        with pytest.raises((DamageError, InputError)):
            read_bundle(path)
    (path / file).write_bytes(data)
    read_bundle(path)


@pytest.mark.parametrize("file", [HEAD_FILE, ROWS_FILE, JUDGED_FILE])
def test_files_of_two_bundles_do_not_mix(file: str, path: Path, card: Card, tmp_path: Path) -> None:
    other = write_bundle(tmp_path / "other", card, LinearHead(FLOATS + 1, FLOATS[:, 0]), OTHER, seed=1)
    shutil.copyfile(other / file, path / file)
    with pytest.raises(DamageError, match="changed after it was written"):
        read_bundle(path)


@pytest.mark.parametrize("file", [HEAD_FILE, ROWS_FILE, JUDGED_FILE])
def test_a_pickle_with_right_checksums_is_refused_and_never_runs(file: str, path: Path, mark: Path) -> None:
    with np.load(path / file) as archive:
        arrays = dict(archive)
    first = next(iter(arrays))
    for name in (first, "another"):  # in place of an array, and beside them
        out = io.BytesIO()
        np.savez(out, **{**arrays, name: np.array([Payload()], object)})
        resealed(path, file, out.getvalue())
        with pytest.raises(InputError, match="cannot be read"):
            read_bundle(path)
    resealed(path, file, pickle.dumps(Payload()))
    with pytest.raises(InputError, match="cannot be read"):
        read_bundle(path)
    assert not mark.exists()


def test_files_beside_the_bundles_own_are_never_opened(path: Path, mark: Path) -> None:
    for name in ("head.pkl", "model.joblib", "__init__.py", "conftest.py"):
        (path / name).write_bytes(pickle.dumps(Payload()))
    read_bundle(path)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["head.pkl", "../head.npz", "/etc/passwd", "model.keras"])
def test_a_card_that_names_another_file_is_refused(name: str, path: Path, mark: Path) -> None:
    content = json.loads((path / CARD_FILE).read_bytes())
    files = {file: FileEntry(**entry) for file, entry in content["files"].items()}
    how = HeadFile(content["head"]["format"], content["head"]["config"])
    payload = pickle.dumps(Payload())
    (path / "head.pkl").write_bytes(payload)
    (path / CARD_FILE).write_bytes(card_to_bytes(_card_of(path), how, {**files, name: FileEntry.of(payload)}))
    with pytest.raises(InputError, match="not known here"):
        read_bundle(path)
    assert not mark.exists()


@pytest.mark.parametrize("version", [0, 2, 4, 99, "3", None])
def test_another_version_is_refused_even_with_a_right_checksum(version: object, path: Path) -> None:
    content = json.loads((path / CARD_FILE).read_bytes()) | {"version": version}
    del content["sha256"]
    (path / CARD_FILE).write_bytes(_text({**content, "sha256": _checksum(content)}))
    with pytest.raises(InputError, match="another version of featstore"):
        read_bundle(path)


def lambda_model(path: Path, mark: Path) -> bytes:
    """A ``.keras`` file whose Lambda touches ``mark``, and proof that its code runs once Keras is told to trust it."""
    from featstore.weights.keras_io import float32_policy, import_keras

    keras = import_keras()

    with float32_policy():
        given = keras.Input((8, 8, 3))
        payload = keras.layers.Lambda(lambda x: (open(__import__("os").environ["PAYLOAD"], "w").close(), x)[1])
        keras.Model(given, payload(given)).save(path)
        mark.unlink(missing_ok=True)
        keras.saving.load_model(path, safe_mode=False)
    assert mark.exists()
    mark.unlink()
    return path.read_bytes()


def test_a_keras_file_with_a_lambda_is_refused_as_a_head_and_as_a_base(
    bundles: Path, card: Card, mark: Path, tmp_path: Path
) -> None:
    path = write_bundle(bundles, card, HEADS["dense"])
    model = tmp_path / "model.keras"
    data = lambda_model(model, mark)
    for file in (HEAD_FILE, ROWS_FILE, JUDGED_FILE):
        sound = (path / file).read_bytes()
        resealed(path, file, data)
        with pytest.raises(InputError, match="cannot be read"):
            read_bundle(path)
        resealed(path, file, sound)
    with pytest.raises(InputError, match="code of its own"):
        resolve(str(model))
    assert not mark.exists()


def test_a_bundle_whose_base_has_a_lambda_is_never_exported(
    card: Card, bundles: Path, mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from heads.bundles.card import Origin
    from heads.export.files import export_bundle

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lambda_model(tmp_path / "model.keras", mark)
    trap = replace(card, origins=(Origin(str(tmp_path / "model.keras")),))
    bundle = write_bundle(bundles, trap, HEADS["linear"])
    with pytest.raises(InputError, match="code of its own"):
        export_bundle(bundle, str(tmp_path / "out.keras"))
    assert not mark.exists()
    assert not (tmp_path / "out.keras").exists()


def test_a_head_that_is_a_link_to_a_device_does_not_hang(path: Path) -> None:
    (path / HEAD_FILE).unlink()
    (path / HEAD_FILE).symlink_to("/dev/zero")
    with pytest.raises(DamageError, match="missing"):
        read_bundle(path)


def test_an_archive_with_a_name_that_leaves_the_folder_writes_nothing(path: Path, tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("../../escaped.npy", b"\x93NUMPY")
    resealed(path, HEAD_FILE, out.getvalue())
    with pytest.raises(InputError):
        read_bundle(path)
    assert not list(tmp_path.rglob("escaped*"))


@pytest.mark.parametrize("file", [HEAD_FILE, ROWS_FILE, JUDGED_FILE])
def test_plain_bytes_in_place_of_an_array_are_one_message(file: str, path: Path) -> None:
    """NumPy hands a member of the archive that is no array over as bytes."""
    with np.load(path / file) as found:
        names = found.files
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(f"{name}.npy", b"no array")
    resealed(path, file, out.getvalue())
    with pytest.raises(InputError, match="cannot be read"):
        read_bundle(path)


def test_a_file_of_another_size_than_its_card_says_is_not_read(bundles: Path, card: Card) -> None:
    path = write_bundle(bundles, card, HEADS["linear"])
    with (path / HEAD_FILE).open("ab") as file:
        file.truncate(3 * 2**30)
    assert mib_taken_by(_READING, _READ, path) < 64
    with pytest.raises(DamageError, match="changed after it was written"):
        read_bundle(path)


@pytest.mark.parametrize("file", [HEAD_FILE, ROWS_FILE, JUDGED_FILE])
@pytest.mark.parametrize("shape", [(2**27,), (2**50,), (2**40, 2**40), (-1,)])
def test_an_array_that_claims_to_be_huge_is_refused(file: str, shape: tuple[int, ...], path: Path) -> None:
    with np.load(path / file) as found:
        names = found.files
    resealed(path, file, npz_of(npy(claiming(shape)), *names))
    with pytest.raises(InputError, match="cannot be read"):
        read_bundle(path)


def test_nor_does_one_that_might_just_be_so_large(bundles: Path, card: Card) -> None:
    path = write_bundle(bundles, card, HEADS["linear"])
    resealed(path, HEAD_FILE, npz_of(npy(claiming((2**27,))), "weights", "bias"))
    assert mib_taken_by(_READING, _READ, path) < 64


LARGE = np.zeros(2**25)  # 256 MiB
LARGE_HEADS: dict[str, dict[str, np.ndarray]] = {
    "as many features as nobody asked for": {"weights": LARGE.reshape(4, -1), "bias": LARGE[:4]},
    "as many classes": {"weights": LARGE.reshape(-1, 8), "bias": LARGE[: 2**22]},
    "another type": {"weights": LARGE.view(np.int64).reshape(4, -1), "bias": LARGE[:4]},
    "an array more": {"weights": LARGE[:24].reshape(3, 8), "bias": LARGE[:3], "more": LARGE},
    "another name": {"weights": LARGE, "biases": LARGE[:3]},
}


@pytest.mark.parametrize("arrays", LARGE_HEADS.values(), ids=LARGE_HEADS)
def test_a_large_head_that_is_not_the_cards_is_refused_unread(
    arrays: dict[str, np.ndarray], bundles: Path, card: Card
) -> None:
    path = write_bundle(bundles, card, HEADS["linear"])
    np.savez(path / HEAD_FILE, **arrays)
    resealed(path, HEAD_FILE, (path / HEAD_FILE).read_bytes())
    assert mib_taken_by(_READING, _READ, path) < 32


@pytest.mark.parametrize(("file", "name"), [(ROWS_FILE, "digests"), (ROWS_FILE, "labels"), (JUDGED_FILE, "said")])
def test_nor_are_large_images(file: str, name: str, bundles: Path, card: Card) -> None:
    path = write_bundle(bundles, card, HEADS["linear"])
    with np.load(path / file) as found:
        arrays = {**found, name: LARGE[: 2**24].view(found[name].dtype)}  # within what the file may have
    np.savez(path / file, **arrays)
    resealed(path, file, (path / file).read_bytes())
    assert mib_taken_by(_READING, _READ, path) < 32


CARDS: dict[str, tuple[Callable[[int], bytes], int]] = {
    "lists": (lambda size: b"[" + b"[]," * (size // 3) + b"0]", 64),
    "objects": (lambda size: b"[" + b"{}," * (size // 3) + b"0]", 64),
    "words": (lambda size: b"[" + b'"ab",' * (size // 5) + b"0]", 64),
    "names": (lambda size: b"{" + b"".join(b'"%06x":0,' % one for one in range(size // 11)) + b'"":0}', 64),
    "depth": (lambda size: b"[" * size, 64),
    "numbers": (lambda size: b"[" + b"257," * (size // 4) + b"0]", 320),
}


@pytest.mark.parametrize(("text", "most"), CARDS.values(), ids=CARDS)
def test_a_card_as_large_as_it_may_be_takes_little_memory(
    text: Callable[[int], bytes], most: int, bundles: Path, card: Card
) -> None:
    path = write_bundle(bundles, card, HEADS["linear"])
    (path / CARD_FILE).write_bytes(text(MOST_BYTES[CARD_FILE] - 16))
    assert mib_taken_by(_READING, _READ, path) < most


def test_a_card_of_a_thousand_classes_may_be_so_large(card: Card) -> None:
    """Nearly all of it is numbers of two square matrices; a smaller one tells, in a tenth of the time."""
    count = 250
    one = card.held_out
    confusion = 20 * np.eye(count, dtype=int)
    per_class = tuple(replace(one.per_class[0], name=f"n{number:08}") for number in range(count))
    metrics = replace(one, n=20 * count, confusion=tuple(map(tuple, confusion.tolist())), per_class=per_class)
    names = tuple(entry.name for entry in per_class)
    text = card_to_bytes(replace(card, classes=names, held_out=metrics, test=metrics), HeadFile("linear", {}), {})
    assert len(text) * (1000 / count) ** 2 < MOST_BYTES[CARD_FILE]
    assert sum(map(text.count, (b"[", b"{", b'"'))) * 1000 / count < MOST_PARTS / 4


@pytest.mark.parametrize("size", [[20_000, 20_000], [2049, 32], [1, 10**30], [0, 32], [32], [32.5, 32]])
def test_a_card_whose_pictures_would_not_fit_into_memory_is_refused(size: list[Any], path: Path) -> None:
    content = json.loads((path / CARD_FILE).read_bytes())
    block = content["features"][0]
    block["spec"]["image_size"] = size
    canonical = json.dumps(block["spec"], sort_keys=True, separators=(",", ":"))
    block["fingerprint"] = hashlib.sha256(canonical.encode()).hexdigest()
    del content["sha256"]
    (path / CARD_FILE).write_bytes(_text({**content, "sha256": _checksum(content)}))
    with pytest.raises(InputError, match="cannot be understood") as caught:
        read_bundle(path)
    assert "from 1 to 2048" in str(caught.value)


def test_two_arrays_of_one_name_are_refused(path: Path) -> None:
    data = (path / HEAD_FILE).read_bytes()
    out = io.BytesIO(data)
    with zipfile.ZipFile(out, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(archive.namelist()[0], b"")
    resealed(path, HEAD_FILE, out.getvalue())
    with pytest.raises(InputError, match="cannot be read"):
        read_bundle(path)


_READING = "import sys\nfrom pathlib import Path\nfrom heads.bundles.bundle import read_bundle"
_READ = """
try:
    read_bundle(Path(sys.argv[1]))
except Exception:
    pass
else:
    sys.exit("it was read")
"""


@pytest.mark.parametrize("header", NONSENSE)
@pytest.mark.filterwarnings("ignore:Reading `.npy`")
def test_a_header_of_nonsense_is_one_message(header: str, bundles: Path, card: Card) -> None:
    path = write_bundle(bundles, card, HEADS["linear"])
    resealed(path, HEAD_FILE, npz_of(npy(header), "weights", "bias"))
    with pytest.raises(InputError, match="cannot be read"):
        read_bundle(path)


DAMAGED_IMAGES = {
    "no digests": (ROWS_FILE, {"digests": np.zeros((2, 31), np.uint8)}),
    "a label too many": (ROWS_FILE, {"labels": np.zeros(3, np.int32)}),
    "a label that is no class": (ROWS_FILE, {"labels": np.array([0, 3], np.int32)}),
    "a label below none": (ROWS_FILE, {"labels": np.array([0, -1], np.int32)}),
    "another type": (ROWS_FILE, {"labels": np.array([0, 1], np.int64)}),
    "an array more": (ROWS_FILE, {"more": np.zeros(2)}),
    "fewer than were judged": (JUDGED_FILE, {"said": np.zeros(29, np.int32)}),
    "a chance above one": (JUDGED_FILE, {"confidence": np.full(30, 1.5, np.float32)}),
    "no chance": (JUDGED_FILE, {"of_truth": np.full(30, np.nan, np.float32)}),
}


@pytest.mark.parametrize(("file", "arrays"), DAMAGED_IMAGES.values(), ids=DAMAGED_IMAGES)
def test_images_that_cannot_be_are_refused(file: str, arrays: dict[str, np.ndarray], path: Path) -> None:
    with np.load(path / file) as archive:
        whole = {**archive, **arrays}
    out = io.BytesIO()
    np.savez(out, **whole)
    resealed(path, file, out.getvalue())
    with pytest.raises(InputError, match="images of this bundle cannot be read"):
        read_bundle(path)
