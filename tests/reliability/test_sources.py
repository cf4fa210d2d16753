"""Images that move under a run, clocks that step, and names and folders that few people have."""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

import featstore
from featstore import scan as scan_module
from featstore.decode import decode
from featstore.records import Digests, Rejected
from featstore.store import Store, verify
from tests.commands import good, run
from tests.pictures import png
from tests.reliability.campaign import SMALL, Figures, amount
from tests.stubs import Bases, StubRuntime

_LATER = 2.1
"""Seconds after which a file's times are trusted."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """96 pictures in two classes."""
    for seed in range(96):
        folder = tmp_path / "data" / ("cats", "dogs")[seed % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{seed:03}.png").write_bytes(png(seed, 24))
    return tmp_path / "data"


_COUNT = 400
"""More pictures than a run reads before its first batch is done: 128 ahead, and two batches that are under way."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, float]]:
    """Folders of ``_COUNT`` pictures in two classes, and when each was made; ten at a time, to wait for them once."""

    def make() -> Iterator[tuple[Path, float]]:
        pictures = {f"{('cats', 'dogs')[seed % 2]}/{seed:03}.png": png(seed, 24) for seed in range(_COUNT)}
        while True:
            ten = [tmp_path_factory.mktemp("old") for _ in range(10)]
            for folder in ten:
                for name in ("cats", "dogs"):
                    (folder / name).mkdir()
                for name, content in pictures.items():
                    (folder / name).write_bytes(content)
            made = time.time()
            yield from ((folder, made) for folder in ten)

    return make()


@pytest.fixture
def old(folders: Iterator[tuple[Path, float]]) -> Path:
    """``_COUNT`` pictures in two classes, of an age at which their times are trusted."""
    folder, made = next(folders)
    time.sleep(max(0.0, made + _LATER - time.time()))
    return folder


def expected(content: bytes, store: Path) -> bytes | None:
    """What the stub base makes of this content: the bytes of a row, None if it is no picture."""
    [namespace] = Store.open(store).namespaces()
    try:
        pixels = decode(content, [namespace.spec.pixels])
    except Rejected:
        return None
    return _compute(StubRuntime(_Averaged()), np.stack(pixels))[0].tobytes()  # type: ignore[arg-type]


_compute = StubRuntime.__call__


class _Averaged:
    """What the stub looks at of a graph."""

    pooling = "avg"


def digests_of(contents: Iterable[bytes]) -> Digests:
    """uint8 (N, 32)."""
    found = b"".join(hashlib.sha256(content).digest() for content in contents)
    return np.frombuffer(found, np.uint8).reshape(-1, 32)


def status_of(store: Path, contents: Mapping[Path, bytes]) -> dict[Path, int]:
    """What the store has for the content of each file: -1 nothing, 0 features, above 0 a reject."""
    [namespace] = Store.open(store).namespaces()
    return dict(zip(contents, namespace.snapshot().lookup(digests_of(contents.values())).tolist(), strict=True))


def check_rows(store: Path, contents: list[bytes]) -> int:
    """Every row in the store is that of its content, of which all are among ``contents``; how many there are."""
    [namespace] = Store.open(store).namespaces()
    held = namespace.snapshot()
    digests = digests_of(contents)
    status = held.lookup(digests)
    assert held.rows == int((status >= 0).sum()), "a row of an image that never was"
    for content, digest, one in zip(contents, digests, status, strict=True):
        if one >= 0:
            wanted = expected(content, store)
            assert (one == 0) == (wanted is not None)
            if wanted is not None:
                assert held.read(digest.reshape(1, -1))[0].tobytes() == wanted
    return int((status >= 0).sum())


def test_a_manifest_reads_outside_of_its_folder_only_with_outside(data: Path, tmp_path: Path, bases: Bases) -> None:
    manifest = tmp_path / "lists" / "list.csv"
    manifest.parent.mkdir()
    rows = [f"../data/{file.relative_to(data)},{file.parent.name}" for file in sorted(data.rglob("*.png"))]
    manifest.write_text("\n".join(["path,label", *rows]))
    refused = run("extract", manifest, *SMALL, "--store", tmp_path / "store")
    assert refused.code == 2
    assert "is outside of the manifest's folder" in refused.message
    assert "pass --outside" in refused.message
    assert not (tmp_path / "store").exists()
    found = good("extract", manifest, "--outside", *SMALL, "--store", tmp_path / "store", "--json").json
    assert (found["images"], found["specs"][0]["computed"]) == (96, 96)


def _vanish(path: Path) -> None:
    path.unlink()


def _change(path: Path) -> None:
    path.write_bytes(png(10_000 + int(path.stem), 24))


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _become_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _become_a_link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


@pytest.mark.parametrize(
    "move", [_vanish, _change, _grow, _shrink, _become_a_folder, _become_a_pipe, _become_a_link_to_itself]
)
def test_images_may_move_during_a_run(
    move: Callable[[Path], None], old: Path, tmp_path: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, before = tmp_path / "store", {file: file.read_bytes() for file in sorted(old.rglob("*.png"))}
    moved = [*before][1::3]
    waiting, real = moved.copy(), StubRuntime.__call__

    def meanwhile(self: StubRuntime, images: np.ndarray) -> np.ndarray:
        while waiting:
            move(waiting.pop())
        return real(self, images)

    monkeypatch.setattr(StubRuntime, "__call__", meanwhile)
    first = good("extract", old, *SMALL, "--store", store, "--json").json
    after = {file: file.read_bytes() for file in before if file.is_file()}
    contents = list(dict.fromkeys([*before.values(), *after.values()]))
    check_rows(store, contents)
    as_before, as_after = status_of(store, before), status_of(store, after)
    unreadable = {old / one["path"] for one in first["rejects"] if one["reason"] == "unreadable"}
    met = {file for file in moved if as_after.get(file, -1) >= 0 or file in unreadable}
    assert {file for file in before if as_before[file] == -1} == met, (
        "each image is read once, before or after it moved"
    )
    assert unreadable == met - {*after}
    assert 0 < len(met) < len(moved)
    again = good("extract", old, *SMALL, "--store", store, "--json").json
    check_rows(store, contents)
    new = [content for file, content in after.items() if as_after[file] == -1]
    decodable = sum(expected(content, store) is not None for content in new)
    [spec] = again["specs"]
    assert (spec["hits"], spec["computed"]) == ([*as_after.values()].count(0), decodable)
    assert min(status_of(store, after).values()) >= 0
    assert verify(Store.open(store), read_data=True).sound


@pytest.mark.parametrize("keep_mtime", [False, True])
def test_other_content_under_the_same_name_and_size_is_noticed(
    keep_mtime: bool, old: Path, tmp_path: Path, bases: Bases
) -> None:
    store, file = tmp_path / "store", old / "cats" / "000.png"
    good("extract", old, *SMALL, "--store", store)
    times, other = file.stat(), bytearray(png(5000, 24))
    other = other[: times.st_size].ljust(times.st_size, b"\0")  # what follows a PNG's end is not looked at
    file.write_bytes(other)
    if keep_mtime:
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert file.stat().st_size == times.st_size
    [spec] = good("extract", old, *SMALL, "--store", store, "--json").json["specs"]
    assert (spec["hits"], spec["computed"], spec["rejected"]) == (_COUNT - 1, 1, 0)


def test_a_change_that_no_time_tells_of_is_found_by_rehash(
    old: Path, tmp_path: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, file = tmp_path / "store", old / "cats" / "000.png"
    good("extract", old, *SMALL, "--store", store)
    stamp = scan_module._checked_stamp
    dataset = featstore.open_dataset(old)
    before = {path: stamp(dataset, path) for path in dataset.paths}
    file.write_bytes(png(5000, 24))
    monkeypatch.setattr(scan_module, "_checked_stamp", lambda dataset, path: before[path])
    assert good("extract", old, *SMALL, "--store", store, "--json").json["specs"][0]["computed"] == 0
    assert good("extract", old, *SMALL, "--store", store, "--rehash", "--json").json["specs"][0]["computed"] == 1


@pytest.mark.parametrize("when", [0, 1, 2**31, 4_102_444_800, 16_725_225_600])
def test_files_of_any_time_are_extracted(when: int, data: Path, tmp_path: Path, bases: Bases) -> None:
    for file in data.rglob("*.png"):
        os.utime(file, (when, when))
    store = tmp_path / "store"
    assert good("extract", data, *SMALL, "--store", store, "--json").json["specs"][0]["computed"] == 96
    file = data / "cats" / "000.png"
    file.write_bytes(png(5000, 24))
    os.utime(file, (when, when))
    assert good("extract", data, *SMALL, "--store", store, "--json").json["specs"][0]["computed"] == 1


@pytest.mark.parametrize("step", [-(10**7), -3.0, 3.0, 10**9])
def test_a_clock_that_steps_costs_no_row_and_hides_no_change(
    step: float, data: Path, tmp_path: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, real, shift = tmp_path / "store", time.time_ns, 0
    monkeypatch.setattr(time, "time_ns", lambda: real() + shift)
    good("extract", data, *SMALL, "--store", store)
    shift = int(step * 10**9)
    file = data / "cats" / "000.png"
    file.write_bytes(png(5000, 24))
    assert good("extract", data, *SMALL, "--store", store, "--json").json["specs"][0]["computed"] == 1
    shift = 0
    found = good("extract", data, *SMALL, "--store", store, "--json").json["specs"][0]
    assert (found["hits"], found["computed"]) == (96, 0)


@pytest.mark.parametrize("step", [-(10**7), -3.0, 3.0, 10**7])
def test_a_clock_that_steps_during_a_run_costs_no_row(
    step: float, data: Path, tmp_path: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, shifts = time.time_ns, itertools.cycle([0, int(step * 10**9)])  # back and forth, at every look
    store, looks = tmp_path / "store", []

    def stepping() -> int:
        looks.append(next(shifts))
        return real() + looks[-1]

    monkeypatch.setattr(time, "time_ns", stepping)
    monkeypatch.setattr(time, "time", lambda: stepping() / 10**9)
    first = good("extract", data, *SMALL, "--store", store, "--json").json["specs"][0]
    again = good("extract", data, *SMALL, "--store", store, "--json").json["specs"][0]
    assert (first["computed"], again["hits"], again["computed"]) == (96, 96, 0)
    assert {*looks} == {0, int(step * 10**9)}, "the clock did not step during the runs"
    assert good("store", "verify", "--read-data", "--store", store).code == 0


def test_a_folder_of_very_many_files_is_read_to_its_end(tmp_path: Path, bases: Bases, figures: Figures) -> None:
    count, folder = amount(3000, 100_000), tmp_path / "data" / "cats"
    folder.mkdir(parents=True)
    (tmp_path / "data" / "dogs").mkdir()
    (tmp_path / "data" / "dogs" / "one.png").write_bytes(png(-1 % 2**32, 24))
    files = [png(seed, 24) for seed in range(64)]
    for number in range(count):
        with open(folder / f"{number}.png", "wb") as file:
            file.write(files[number % 64])
    found = good("extract", tmp_path / "data", *SMALL, "--store", tmp_path / "store", "--json").json
    assert (found["images"], found["specs"][0]["computed"]) == (count + 1, 65)
    figures.keep("files in one folder", files=count)


@pytest.mark.parametrize(
    "name",
    [b"x" * 251 + b".png", b"a\nb.png", b"\xff\xfe.png", "é".encode("latin-1") + b".png", b" .png", b"-rf.png",
     b"a\tb\rc.png", "‮gnp.png".encode(), b"\x1b[31m.png", b"%s{}$(x).png"],
)  # fmt: skip
def test_any_name_is_extracted_and_can_be_told(name: bytes, data: Path, tmp_path: Path, bases: Bases) -> None:
    good_one, bad = (os.fsencode(data / part) + b"/" + name for part in ("cats", "dogs"))
    with open(good_one, "wb") as file:
        file.write(png(7000, 24))
    with open(bad, "wb") as file:
        file.write(png(7001, 24)[:60])
    store = tmp_path / "store"
    found = good("extract", data, *SMALL, "--store", store, "--json").json
    assert (found["images"], found["specs"][0]["computed"], found["specs"][0]["rejected"]) == (98, 97, 1)
    human = good("extract", data, *SMALL, "--store", store)
    for text in (human.out, human.err):
        assert "\x1b[31m" not in text
    assert featstore.load_tables(data, "vgg16", store=store, image_size=32)["train"].ids
