"""What must hold when a run is killed, interrupted, forbidden to write, out of space or offline: a real base, small."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import featstore
from featstore import Request, Table, rates
from featstore.extraction import write_ledger
from featstore.extraction.report import RejectedImage
from featstore.records import Reason, Stamp
from featstore.scan import StatCache
from featstore.spec import Spec
from tests.commands import Done, finish, good, run, segments, spawn, start, wait_for
from tests.pictures import class_folders, png
from tests.reliability.campaign import takes_long
from tests.stubs import Bases

SPEC = ("--weights", "random:0", "--image-size", "32", "--precision", "float32")
REQUEST = Request("vgg16", weights="random:0", image_size=32, precision="float32")
ROWS = 3 * 2 * 167


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Caches of weights and graphs for this file alone: random weights have no place in the user's."""
    folder = tmp_path_factory.mktemp("cache")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def private_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,002 different pictures."""
    return class_folders(tmp_path_factory.mktemp("faults") / "photos", count=167)


@pytest.fixture(scope="module")
def reference(photos: Path, cache: Path) -> dict[str, Table]:
    """The tables of a run that nothing disturbed."""
    store = photos.parent / "undisturbed"
    done = spawn("extract", photos, *SPEC, "--store", store, "--json", env={"XDG_CACHE_HOME": cache})
    assert done.code == 0, done.err
    assert done.json["specs"][0]["computed"] == ROWS
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        return dict(featstore.load_tables(photos, REQUEST, store=store))


def command(photos: Path, store: Path) -> tuple[object, ...]:
    return ("extract", photos, *SPEC, "--store", store, "--json")


def rows(store: Path) -> int:
    return sum(namespace["rows"] for namespace in good("store", "ls", "--store", store, "--json").json["namespaces"])


def assert_equal(found: dict[str, Table], expected: dict[str, Table]) -> None:
    """The same images with the same features, every bit of them."""
    assert found.keys() == expected.keys()
    for split, table in expected.items():
        assert found[split].ids == table.ids
        assert np.array_equal(found[split].y, table.y)
        assert found[split].X.tobytes() == table.X.tobytes()


def assert_whole(photos: Path, store: Path, expected: dict[str, Table]) -> None:
    """The store is sound, holds every row once, and gives the undisturbed run's table."""
    verified = good("store", "verify", "--read-data", "--store", store, "--json").json
    assert (verified["sound"], verified["rows"]) == (True, ROWS)
    assert_equal(dict(featstore.load_tables(photos, REQUEST, store=store)), expected)


# ---- kill and interrupt ----------------------------------------------------------------------------------------------


@takes_long
def test_killed_again_and_again_a_run_ends_with_the_same_table(
    photos: Path, tmp_path: Path, reference: dict[str, Table]
) -> None:
    store, kept = tmp_path / "store", [0]
    for attempt in range(3):
        process = start(*command(photos, store))
        assert wait_for(process, store, segments(store) + 1), "the run ended before it was killed"
        time.sleep(random.uniform(0, 0.5) if attempt else 0)
        process.kill()
        assert finish(process).code == -signal.SIGKILL
        assert good("store", "verify", "--read-data", "--store", store, "--json").json["sound"]
        kept.append(rows(store))
        assert kept[-1] > kept[-2], "committed rows were lost"
    (store / "tmp" / "1-leftover").write_bytes(b"half a segment")
    (store / "scan").mkdir(exist_ok=True)
    (store / "scan" / f".{'0' * 64}.npz.0123abcd").write_bytes(b"half a cache")
    [spec] = spawn(*command(photos, store)).json["specs"]
    assert (spec["hits"], spec["computed"], spec["rejected"]) == (kept[-1], ROWS - kept[-1], 0)
    assert_whole(photos, store, reference)


def test_killed_before_the_first_commit_nothing_is_lost_or_in_the_way(
    photos: Path, tmp_path: Path, reference: dict[str, Table]
) -> None:
    store = tmp_path / "store"
    process = start(*command(photos, store))
    while process.poll() is None and not (store / "FORMAT").exists():
        time.sleep(0.002)
    process.kill()
    assert finish(process).code == -signal.SIGKILL
    assert rows(store) == 0
    assert spawn(*command(photos, store)).json["specs"][0]["computed"] == ROWS
    assert_whole(photos, store, reference)


def test_two_runs_at_once_are_not_in_each_others_way(photos: Path, tmp_path: Path, reference: dict[str, Table]) -> None:
    store = tmp_path / "store"
    both = [start(*command(photos, store)) for _ in range(2)]
    assert [finish(process).code for process in both] == [0, 0]
    assert_equal(dict(featstore.load_tables(photos, REQUEST, store=store)), reference)
    assert good("store", "verify", "--read-data", "--store", store, "--json").json["sound"]


def test_a_store_that_another_process_makes_meanwhile_is_not_taken_for_a_foreign_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def late(path: str) -> object:
        monkeypatch.undo()
        featstore.Store.open(tmp_path / "store", create=True)
        return scandir(path)

    monkeypatch.setattr("os.scandir", late)
    assert featstore.Store.open(tmp_path / "store").exists


def test_ctrl_c_keeps_what_was_computed_and_says_how_much(
    photos: Path, tmp_path: Path, reference: dict[str, Table]
) -> None:
    store = tmp_path / "store"
    process = start(*command(photos, store))
    assert wait_for(process, store, 1)
    time.sleep(0.4)  # some rows of the next segment are computed and not committed yet
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.code == 130
    match = re.match(r"interrupted: (\d+) new rows are kept in the store\n", done.message)
    assert match, done.message
    assert "run the same command again" in done.message
    kept = rows(store)
    assert 192 <= kept < ROWS
    assert int(match[1]) in (kept, kept - 1), "at worst the row at hand was not counted"
    assert spawn(*command(photos, store)).json["specs"][0]["computed"] == ROWS - kept
    assert_whole(photos, store, reference)


def test_ctrl_c_before_anything_is_computed_exits_with_130_too(photos: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    process = start(*command(photos, store))
    while process.poll() is None and not (store / "FORMAT").exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.code == 130
    assert done.message.startswith("interrupted")


def _kept_rate(store: featstore.Store, place: Path) -> None:
    rates.record("a job", store, 5.0)  # type: ignore[arg-type] # only its key counts


def _kept_ledger(store: featstore.Store, place: Path) -> None:
    dataset = featstore.open_dataset(place)
    write_ledger([RejectedImage("a.png", "00" * 32, Reason.TRUNCATED)], None, store, dataset)


def _kept_scan(store: featstore.Store, place: Path) -> None:
    cache = StatCache.load(store.scan_folder, str(place))
    cache.put("a.png", Stamp(1, 1, 1, 1), bytes(32))
    cache.save()


def _kept_check(store: featstore.Store, place: Path) -> None:
    checked = store.checked("0" * 64)
    checked.put("a", (1, 1, 1, 1), time.time_ns())
    checked.save(["a"])


@pytest.mark.parametrize("keep", [_kept_rate, _kept_ledger, _kept_scan, _kept_check])
def test_what_a_kill_leaves_of_derived_files_is_swept_a_day_later(
    keep: Callable[[featstore.Store, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    few = class_folders(tmp_path / "few", count=1)
    store = featstore.Store.open(tmp_path / "store", create=True)
    monkeypatch.setattr(rates, "_key", str)
    with monkeypatch.context() as patch:
        for call in ("replace", "unlink"):
            patch.setattr(os, call, killed)
        with pytest.raises(Killed):
            keep(store, few)
    [left] = [file for file in store.path.rglob("*") if file.is_file() and file.name != "FORMAT"]
    namespace = store.namespace(Spec("vgg16", "ab" * 32, "block5_pool", (150, 150)))
    namespace.writer({})
    assert left.exists(), "it could be one that another process is writing just now"
    os.utime(left, (time.time() - 90_000,) * 2)
    namespace.writer({})
    assert not left.exists()
    keep(store, few)
    assert not store.leftovers()


# ---- a store that cannot be written ----------------------------------------------------------------------------------


def mount(*arguments: object) -> None:
    """``mount ARGUMENTS``; the test is skipped where that is not permitted."""
    if os.name != "posix" or not shutil.which("mount"):
        pytest.skip("no mount command here")
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """``mounted(size)`` mounts an empty file system of that many bytes, ``mounted(folder)`` a read-only view."""
    places: list[Path] = []

    def make(what: int | Path) -> Path:
        place = tmp_path / f"mounted-{len(places)}"
        place.mkdir()
        if isinstance(what, Path):
            mount("--bind", what, place)
            places.append(place)
            mount("-o", "remount,ro,bind", place)
        else:
            mount("-t", "tmpfs", "-o", f"size={what}", "featstore-test", place)
            places.append(place)
        return place

    yield make
    for place in reversed(places):
        subprocess.run(["umount", "-l", place], check=True)


def test_a_read_only_store_is_read_like_any_other(
    photos: Path, reference: dict[str, Table], mounted: Callable[..., Path]
) -> None:
    store = mounted(photos.parent / "undisturbed")
    done = spawn(*command(photos, store))
    assert done.code == 0, done.err
    assert (done.json["specs"][0]["hits"], done.json["specs"][0]["computed"]) == (ROWS, 0)
    assert done.loaded == ()
    assert_whole(photos, store, reference)
    [spec] = good("plan", photos, *SPEC, "--store", store, "--json").json["specs"]
    assert (spec["hits"], spec["to_compute"]) == (ROWS, 0)


def test_a_new_row_for_a_read_only_store_is_refused_before_a_base_is_loaded(
    photos: Path, reference: dict[str, Table], mounted: Callable[..., Path]
) -> None:
    store = mounted(photos.parent / "undisturbed")
    before = sorted(store.rglob("*"))
    done = spawn(*command(photos, store), "--resize", "nearest")
    assert done.code == 3
    assert str(store) in done.message
    assert "to do:" in done.message
    assert done.loaded == (), "a base was loaded for rows that cannot be kept"
    assert sorted(store.rglob("*")) == before


def test_a_store_in_a_read_only_place_cannot_be_made(
    photos: Path, tmp_path: Path, mounted: Callable[..., Path]
) -> None:
    (tmp_path / "place").mkdir()
    place = mounted(tmp_path / "place")
    done = spawn(*command(photos, place / "store"))
    assert done.code == 3
    assert str(place) in done.message
    assert done.loaded == ()


def test_heads_are_trained_and_used_on_a_read_only_store(
    tmp_path: Path, bases: Bases, mounted: Callable[..., Path]
) -> None:
    few = class_folders(tmp_path / "few")
    train = ("train", few, "--head", "logreg", "--out", tmp_path / "bundles", "--json")
    [before] = good(*train, "--store", tmp_path / "store").json["results"]
    store = mounted(tmp_path / "store")
    [after] = good(*train, "--store", store).json["results"]
    assert (after["bundle"], len(bases.opened)) == (before["bundle"], 1)
    new = tmp_path / "new.png"
    new.write_bytes(png(seed=99))
    paths = (few / "test" / "cats" / "0.png", new)
    predictions = good("predict", after["bundle"], *paths, "--store", store, "--json").json["predictions"]
    assert [prediction["from_cache"] for prediction in predictions] == [True, False]
    assert all(prediction["label"] for prediction in predictions)
    assert good("store", "verify", "--read-data", "--store", store, "--json").json["rows"] == 36


def test_a_bundle_for_a_read_only_place_exits_with_3(
    tmp_path: Path, bases: Bases, mounted: Callable[..., Path]
) -> None:
    few = class_folders(tmp_path / "few")
    (tmp_path / "place").mkdir()
    place = mounted(tmp_path / "place")
    done = run("train", few, "--head", "logreg", "--out", place / "bundles")
    assert done.code == 3
    assert str(place) in done.message
    assert not bases.opened  # said before the work, not after it
    good("extract", few)
    done = run("store", "export", few, "--to", place / "features.h5")
    assert done.code == 3
    assert "features.h5" in done.message


# ---- a full disk -----------------------------------------------------------------------------------------------------


def fill(place: Path) -> None:
    with suppress(OSError), open(place / "filler", "wb", buffering=0) as filler:
        while True:
            filler.write(b"\1" * 512)


def assert_no_space(done: Done, store: Path) -> None:
    assert done.code == 4, done.err
    assert "No space left" in done.message
    assert "run the same command again" in done.message
    assert str(store) in done.message


def test_a_full_disk_stops_a_run_that_goes_on_once_there_is_space(
    photos: Path, reference: dict[str, Table], mounted: Callable[..., Path]
) -> None:
    place = mounted(1_500_000)  # three segments of 192 rows, and some
    store = place / "store"
    assert_no_space(spawn(*command(photos, store)), store)
    assert rows(store) == 576
    assert list((store / "tmp").iterdir()) == []
    assert good("store", "verify", "--read-data", "--store", store, "--json").json["sound"]
    assert_no_space(spawn(*command(photos, store)), store)
    assert rows(store) == 576
    mount("-o", "remount,size=8000000", place)
    [spec] = spawn(*command(photos, store)).json["specs"]
    assert (spec["hits"], spec["computed"]) == (576, ROWS - 576)
    assert_whole(photos, store, reference)


def test_on_a_disk_without_a_free_byte_rows_are_read_and_new_ones_refused_at_once(
    tmp_path: Path, bases: Bases, mounted: Callable[..., Path]
) -> None:
    few = class_folders(tmp_path / "few")
    place = mounted(200_000)
    store = place / "store"
    [result] = good("train", few, "--head", "logreg", "--out", tmp_path / "bundles", "--store", store, "--json").json[
        "results"
    ]
    fill(place)
    assert good("extract", few, "--store", store, "--json").json["specs"][0]["hits"] == 36
    assert_no_space(run("extract", few, "--store", store, "--image-size", "64"), store)
    assert len(bases.opened) == 1, "a base was opened for rows that cannot be kept"
    new = tmp_path / "new.png"
    new.write_bytes(png(seed=99))
    [prediction] = good("predict", result["bundle"], new, "--store", store, "--json").json["predictions"]
    assert prediction["label"]
    done = run("store", "export", few, "--store", store, "--to", place / "features.h5")
    assert done.code == 4
    assert not list(place.glob("*features*")), "half an export was left"
    assert good("store", "verify", "--read-data", "--store", store, "--json").json["sound"]


def test_on_a_disk_without_a_free_byte_what_nobody_wants_is_collected(
    tmp_path: Path, bases: Bases, mounted: Callable[..., Path]
) -> None:
    few, more = class_folders(tmp_path / "few"), class_folders(tmp_path / "more", count=12)  # these and 36 others
    place = mounted(200_000)
    store = place / "store"
    for data in (few, more):
        good("extract", data, "--store", store)
    assert rows(store) == 72
    fill(place)
    assert_no_space(run("extract", few, "--store", store, "--image-size", "64"), store)
    collected = good("store", "gc", "--keep", few, "--store", store, "--json").json
    assert collected["rows"] == 36
    assert rows(store) == 36
    assert good("extract", few, "--store", store, "--json").json["specs"][0]["hits"] == 36


# ---- a store of somebody who means harm ------------------------------------------------------------------------------

LOOK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
from pathlib import Path
from featstore import machine, rates, scan
from featstore.errors import InputError
from featstore.spec import Spec
from featstore.store import Store

rates._key = str
foreign, store = Path(sys.argv[1]), Store.open(sys.argv[2])
try:
    Store.open(foreign)
    sys.exit("it was opened")
except InputError as error:
    assert "not a featstore store" in error.what
[fingerprint] = store.fingerprints()
assert store.read_spec(fingerprint) is None
assert not store.checked(fingerprint).holds("a", (1, 1, 1, 1))
assert not rates.is_measured("a job", store)
assert scan.known_files(store.scan_folder) == {}
assert len(scan.lost_caches(store.scan_folder)) == 1
scan.StatCache.load(store.scan_folder, "/data")
store.namespace(Spec("vgg16", "ab" * 32, "block5_pool", (150, 150))).writer({})
assert store.read_spec(fingerprint) is not None
print(machine.peak_memory())
"""


def _sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(2**33)


@pytest.mark.parametrize("harm", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), _sparse])
def test_no_file_of_a_store_makes_its_reader_wait_or_grow(harm: Callable[[Path], None], tmp_path: Path) -> None:
    spec = Spec("vgg16", "ab" * 32, "block5_pool", (150, 150))
    foreign, store = (featstore.Store.open(tmp_path / name, create=True) for name in ("foreign", "store"))
    store.namespace(spec).writer({})
    store.scan_folder.mkdir()
    cache = hashlib.sha256(b"/data").hexdigest()
    for file in (
        foreign.path / "FORMAT",
        store.path / "ns" / spec.fingerprint / "spec.json",
        *(store.scan_folder / name for name in (f"{spec.fingerprint}.checked.json", "rates.json", f"{cache}.npz")),
    ):
        file.unlink(missing_ok=True)
        harm(file)
    done = subprocess.run(
        [sys.executable, "-c", LOOK, foreign.path, store.path], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2**29  # 512 MiB, most of them numpy's and what it loads


# ---- no network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [("extract", "PHOTOS"), ("train", "PHOTOS"), ("weights", "pull", "vgg16")], ids=" ".join
)
def test_offline_without_weights_there_is_one_message_and_nothing_is_written(
    words: tuple[str, ...], photos: Path, tmp_path: Path
) -> None:
    folders = {name: tmp_path / name for name in ("XDG_CACHE_HOME", "KERAS_HOME", "HOME", "TMPDIR")}
    for folder in folders.values():
        folder.mkdir()
    store = tmp_path / "store"
    env = {**folders, "FEATSTORE_OFFLINE": "1", "FEATSTORE_HOME": store}
    before = sorted(tmp_path.rglob("*"))
    done = spawn(*(photos if word == "PHOTOS" else word for word in words), env=env)
    assert done.code == 2
    assert "the ImageNet weights of vgg16 cannot be had" in done.message
    for told in ("FEATSTORE_OFFLINE", str(folders["KERAS_HOME"]), str(folders["XDG_CACHE_HOME"]), "https://"):
        assert told in done.message
    assert sorted(tmp_path.rglob("*")) == before
