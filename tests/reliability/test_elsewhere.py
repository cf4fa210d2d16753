"""Images and a store on object storage, of a real server: kills, two writers, connections that break or are slow."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from featstore import Request, extract
from featstore.dataset import open_dataset
from featstore.records import Reason
from featstore.scan import digest_all
from featstore.store import Store, verify
from tests.buckets import connected, slowly, way
from tests.commands import Done, finish, spawn
from tests.reliability.campaign import SMALL, Figures, amount, has_lines, start_program, takes_long
from tests.waiting import until

_PICTURES = 256
_WORDS = ("-b", "vgg16", *SMALL)


@pytest.fixture
def photos(s3: str, pictures: Callable[[int], Path]) -> str:
    """Pictures of two classes below a URL."""
    connected(s3).put(str(pictures(_PICTURES)), f"{s3}/photos", recursive=True)
    return f"{s3}/photos"


def featstore(*words: object, env: Mapping[str, object] | None = None) -> Done:
    """One command to its end."""
    return finish(start_program(*words, env=env))


def machine(place: Path) -> dict[str, object]:
    """The environment of a machine of its own, which has no copies yet."""
    return {"FEATSTORE_MIRRORS": place}


def features(store: str, data: str | Path) -> dict[bytes, bytes]:
    """Digest → row of all images."""
    [space] = Store.open(store).namespaces()
    digests = digest_all(open_dataset(data), None).values
    rows = space.snapshot().read(digests)
    return {digest.tobytes(): row.tobytes() for digest, row in zip(digests, rows, strict=True)}


def expected(pictures: Callable[[int], Path], place: Path) -> dict[bytes, bytes]:
    """What one run over the same pictures on a disk makes."""
    done = featstore("extract", pictures(_PICTURES), *_WORDS, "--store", place)
    assert done.code == 0, done.err
    return features(str(place), pictures(_PICTURES))


def reported(done: Done) -> Sequence[int]:
    """Hits and computed rows of the only base."""
    assert done.code == 0, done.err
    [spec] = done.json["specs"]
    return spec["hits"], spec["computed"]


def segments(s3: str) -> int:
    """How many the store there holds."""
    return sum(name.endswith(".h5") for name in connected(s3).find(f"{s3}/store/ns"))


def test_a_run_that_is_killed_goes_on_and_another_machine_verifies_and_trains(
    photos: str, s3: str, pictures: Callable[[int], Path], tmp_path: Path, figures: Figures
) -> None:
    random.seed(0)
    store, kills = f"{s3}/store", 0
    words = ("extract", photos, *_WORDS, "--store", store)
    rows = 0
    while kills < amount(1, 40):
        before = segments(s3)
        process = start_program(*words, env={"BASE_SECONDS": 0.2, "ROWS": 32})
        began = time.monotonic()
        while process.poll() is None and segments(s3) == before:
            assert time.monotonic() < began + 120, "nothing is ever committed"
            time.sleep(random.uniform(0.05, 0.2))
        if process.poll() is not None:
            connected(s3).rm(f"{s3}/store", recursive=True)
            rows = 0
            finish(process)
            continue
        process.kill()
        finish(process)
        kills += 1
        opened = Store.open(store)
        assert verify(opened).sound
        held = sum(space.snapshot().rows for space in opened.namespaces())
        assert held >= rows
        rows = held
        if held == _PICTURES:
            connected(s3).rm(f"{s3}/store", recursive=True)
            rows = 0
    hits, computed = reported(featstore(*words, "--json"))
    assert (hits, hits + computed) == (rows, _PICTURES)
    assert reported(featstore(*words, "--json", env=machine(tmp_path / "second"))) == (_PICTURES, 0)
    assert features(store, photos) == expected(pictures, tmp_path / "disk")
    checked = featstore("store", "verify", "--read-data", "--store", store, env=machine(tmp_path / "third"))
    assert checked.code == 0, checked.err
    out = tmp_path / "bundles"
    trained = featstore(
        *("train", photos, *_WORDS, "--store", store, "--head", "logreg", "--out", out),
        env=machine(tmp_path / "fourth"),
    )
    assert trained.code == 0, trained.err
    assert len(list(out.iterdir())) == 1
    figures.keep("kills of an extraction from and to object storage", kills=kills)


@takes_long
def test_two_machines_at_once_make_the_union_and_one_that_is_killed_costs_nothing(
    photos: str, s3: str, pictures: Callable[[int], Path], tmp_path: Path, figures: Figures
) -> None:
    random.seed(1)
    right, rounds = expected(pictures, tmp_path / "disk"), amount(1, 10)
    for number in range(rounds):
        words = ("extract", photos, *_WORDS, "--store", f"{s3}/store-{number}")
        reported = tmp_path / f"reported-{number}"
        pair = [
            start_program(*words, env={**machine(tmp_path / f"{number}-{at}"), "BASE_SECONDS": 0.5, "ROWS": 32, **more})
            for at, more in enumerate(({"REPORTED": reported}, {}))
        ]
        until(partial(has_lines, reported))  # of its first commit
        time.sleep(random.uniform(0, 1))
        pair[0].kill()
        assert finish(pair[0]).code == -signal.SIGKILL
        assert finish(pair[1]).code == 0
        assert features(f"{s3}/store-{number}", photos) == right
        assert verify(Store.open(f"{s3}/store-{number}"), read_data=True).sound
    figures.keep("two machines on one bucket, one killed", rounds=rounds)


@takes_long
@pytest.mark.parametrize("kind", ["breaks", "is slow"])
def test_over_a_connection_that_breaks_or_is_slow_the_rows_are_the_same(
    kind: str, photos: str, s3: str, s3_port: int, pictures: Callable[[int], Path], tmp_path: Path, figures: Figures
) -> None:
    pieces, broken = 0, 0

    def breaks(_: int, piece: bytes) -> bytes | None:
        nonlocal pieces, broken
        pieces += 1
        if pieces % 37:
            return piece
        broken += 1
        return None

    words = ("extract", photos, *_WORDS, "--store", f"{s3}/store")
    with way(s3_port, breaks if kind == "breaks" else slowly(0.01)) as port:
        done = featstore(*words, env={"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"})
    assert done.code == 0, done.err
    assert features(f"{s3}/store", photos) == expected(pictures, tmp_path / "disk")
    assert kind != "breaks" or broken >= 10
    figures.keep(f"an extraction over a connection that {kind}", broken=broken)


@takes_long
def test_a_server_that_goes_away_ends_the_run_with_one_sentence_and_nothing_is_lost(
    photos: str, s3: str, s3_port: int, tmp_path: Path
) -> None:
    words, gone = ("extract", photos, *_WORDS, "--store", f"{s3}/store"), False

    def treat(_: int, piece: bytes) -> bytes | None:
        return None if gone else piece

    with way(s3_port, treat) as port:
        process = start_program(
            *words, env={"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "BASE_SECONDS": 0.1, "ROWS": 32}
        )
        while process.poll() is None and len(connected(s3).find(f"{s3}/store/ns")) <= 1:
            time.sleep(0.1)
        gone = True
        done = finish(process)
    assert done.code == 1
    assert "Traceback" not in done.err
    assert "committed so far is kept" in done.err
    held = Store.open(f"{s3}/store").namespaces()[0].snapshot().rows
    assert 0 < held < _PICTURES
    assert reported(featstore(*words, "--json")) == (held, _PICTURES - held)
    np.testing.assert_equal(verify(Store.open(f"{s3}/store"), read_data=True).rows, _PICTURES)


@takes_long
def test_the_nodes_of_a_cluster_read_and_write_there(photos: str, s3: str, figures: Figures, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    base = ("-b", "mobilenetv2", "--weights", "random:7", "--image-size", "32")
    ray = ("--engine", "ray", "--address", "local", "--json")
    assert reported(spawn("extract", photos, *base, "--store", f"{s3}/ray", *ray)) == (0, _PICTURES)
    assert reported(spawn("extract", photos, *base, "--store", f"{s3}/ray", *ray, env=machine(tmp_path))) == (
        _PICTURES,
        0,
    )
    assert reported(spawn("extract", photos, *base, "--store", f"{s3}/local", "--json")) == (0, _PICTURES)
    assert features(f"{s3}/ray", photos) == features(f"{s3}/local", photos)
    assert not [name for name in connected(s3).find(f"{s3}/ray") if "/tmp/" in name]
    figures.keep("rows of a Ray cluster on object storage, equal to those of one process", rows=_PICTURES)


@takes_long
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_an_object_that_goes_before_a_node_reads_it_is_rejected_as_anywhere(photos: str, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    dataset, request = open_dataset(photos), Request("mobilenetv2", weights="random:7", image_size=32)
    connected(photos).rm_file(f"{photos}/{dataset.paths[0]}")
    done = extract(dataset, request, store=tmp_path / "store", engine="ray", address="local")
    assert [(reject.path, reject.reason) for reject in done.report.rejects] == [(dataset.paths[0], Reason.UNREADABLE)]
    assert done.report.specs[0].computed == _PICTURES - 1
