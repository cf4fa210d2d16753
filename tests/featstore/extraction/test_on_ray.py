"""Extraction on a Ray cluster, here of two nodes with a core each on this machine: the same rows, come what may."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featstore
from featstore import ExtractOptions, Request, Store
from featstore.errors import DamageError, InputError, NoSpaceError
from featstore.extraction import engine_named, on_ray
from featstore.extraction.engine import Tally, Work
from featstore.extraction.missing import Missing
from featstore.job import resolve_jobs
from featstore.scan import digest_all
from featstore.store import verify
from tests.commands import ROOT, run
from tests.pictures import class_folders, png
from tests.stubs import Bases
from tests.waiting import until

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

SMALL = Request("mobilenetv2", weights="random:7", image_size=32)
_LINES = ("--backbone", "mobilenetv2", "--weights", "random:7", "--image-size", "32")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster; its processes go with the tests of this file."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 2**28})
    running.add_node(num_cpus=1, object_store_memory=2**28)
    yield running.address
    ray.shutdown()
    running.shutdown()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """252 pictures, one of them twice and one of them broken."""
    folder = class_folders(tmp_path / "photos", count=42)
    first = next((folder / "train" / "cats").iterdir())
    shutil.copyfile(first, first.with_name("copy.png"))
    first.with_name("broken.png").write_bytes(png(1)[:70])
    return folder


def rows_of(data: Path, request: Request, store: Path) -> np.ndarray:
    """The features of every image that has some, by their place in the dataset."""
    tables = featstore.load_tables(data, request, store=store)
    return np.concatenate([table.X for _, table in sorted(tables.items())])


def counts(done: featstore.Extraction) -> list[tuple[int, int, int]]:
    return [(spec.hits, spec.computed, spec.rejected) for spec in done.report.specs]


def actors() -> list[int]:
    """The processes of Ray's actors that compute."""
    told = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [int(line.split()[0]) for line in told if "ray::" in line and "_Computer" in line]


def start(*words: object) -> subprocess.Popen[bytes]:
    """``featstore WORDS`` in a process of its own."""
    return subprocess.Popen([sys.executable, "-c", "from cli import app; app()", *map(str, words)], cwd=ROOT)


def test_the_rows_are_those_of_the_local_engine_to_the_bit(cluster: str, photos: Path, tmp_path: Path) -> None:
    requests = [SMALL, replace(SMALL, pooling="map"), replace(SMALL, image_size=40, views=2, augment="flip")]
    here = featstore.extract(photos, requests, store=tmp_path / "here")
    there = featstore.extract(photos, requests, store=tmp_path / "there", engine="ray", address=cluster)
    assert [r.path for r in there.report.rejects] == [r.path for r in here.report.rejects] != []
    assert (there.digests == here.digests).all()
    assert (there.reasons == here.reasons).all()
    for (hits, computed, rejected), (h, c, r) in zip(counts(there), counts(here), strict=True):
        assert (hits + computed, rejected) == (h + c, r)
        assert c <= computed <= c + 2, "a copy may be computed by two actors"
    for request in requests:
        ours, theirs = (rows_of(photos, request, tmp_path / name) for name in ("here", "there"))
        assert ours.tobytes() == theirs.tobytes()
    assert verify(Store.open(tmp_path / "there"), read_data=True).sound


def test_what_is_in_the_store_is_not_computed_and_not_shipped(
    cluster: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped: list[int] = []
    real = on_ray._blocks
    monkeypatch.setattr(on_ray, "_blocks", lambda work, actors: shipped.append(len(work.todo)) or real(work, actors))
    monkeypatch.setattr("featstore.scan.RACY_NS", 0)
    for _ in range(2):
        done = featstore.extract(photos, SMALL, store=tmp_path / "store", engine="ray", address=cluster)
    assert counts(done) == [(253, 0, 1)]
    file = next((photos / "train" / "dogs").iterdir())
    file.write_bytes(png(4000))
    done = featstore.extract(photos, SMALL, store=tmp_path / "store", engine="ray", address=cluster)
    assert counts(done) == [(252, 1, 1)]
    assert shipped == [254, 1]


def test_a_worker_that_is_killed_costs_no_row(cluster: str, tmp_path: Path) -> None:
    photos = class_folders(tmp_path / "many", count=160)
    store = tmp_path / "store"
    words = ("extract", photos, *_LINES, "--store", store, "--engine", "ray", "--address", cluster)
    process = start(*words)
    until(lambda: bool([*store.glob("ns/*/seg/*.h5")]))
    victims = actors()
    os.kill(victims[0], signal.SIGKILL)
    assert process.wait(120) == 0
    assert victims
    done = featstore.extract(photos, SMALL, store=store)
    assert counts(done) == [(960, 0, 0)]
    assert verify(Store.open(store), read_data=True).sound


def test_a_run_that_is_killed_is_gone_on_with(cluster: str, tmp_path: Path) -> None:
    photos = class_folders(tmp_path / "many", count=160)
    store = tmp_path / "store"
    words = ("extract", photos, *_LINES, "--store", store, "--engine", "ray", "--address", cluster)
    process = start(*words)
    until(lambda: bool([*store.glob("ns/*/seg/*.h5")]))
    process.kill()
    process.wait()
    until(lambda: not actors(), 120)
    held = sum(len(namespace.snapshot()) for namespace in Store.open(store).namespaces())
    assert 0 < held < 960
    done = featstore.extract(photos, SMALL, store=store, engine="ray", address=cluster)
    assert counts(done)[0][0] >= held
    assert sum(counts(done)[0]) == 960
    assert verify(Store.open(store), read_data=True).sound


def test_a_broken_image_ends_a_run_that_is_to_fail(cluster: str, photos: Path, tmp_path: Path) -> None:
    options = ExtractOptions(on_error="fail")
    with pytest.raises(DamageError, match="rejected, and --on-error is fail"):
        featstore.extract(photos, SMALL, store=tmp_path / "store", options=options, engine="ray", address=cluster)


def test_a_zip_is_read_by_all_workers(cluster: str, photos: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "photos"), "zip", photos)
    done = featstore.extract(tmp_path / "photos.zip", SMALL, store=tmp_path / "store", engine="ray", address=cluster)
    assert sum(counts(done)[0]) == 254
    assert counts(featstore.extract(photos, SMALL, store=tmp_path / "store")) == [(253, 0, 1)]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nobody", "ray://127.0.0.1:10001"])
def test_an_address_where_no_cluster_is_is_told(photos: Path, tmp_path: Path, address: str) -> None:
    pytest.importorskip("ray")
    done = run("extract", photos, *_LINES, "--store", tmp_path / "s", "--engine", "ray", "--address", address)
    assert done.code == 2
    assert "there is no Ray cluster" in done.message


def test_without_ray_the_extra_is_named(photos: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "ray\[data\]"'):
        featstore.extract(photos, engine="ray")


def test_another_engine_is_unknown_and_an_address_alone_means_nothing() -> None:
    with pytest.raises(InputError, match="did you mean"):
        engine_named("rya")
    with pytest.raises(InputError, match="--engine ray"):
        engine_named("local", "head:6379")


# ---- without a cluster -----------------------------------------------------------------------------------------------


def work_on(photos: Path, store: Path, **settings: Any) -> Work:
    opened, dataset = Store.open(store, create=True), featstore.open_dataset(photos)
    jobs = resolve_jobs([Request("vgg16", image_size=32, **settings)], opened, dataset)
    missing = [Missing(job, opened) for job in jobs]
    return Work(dataset, range(len(dataset)), missing, opened, 1, None, [Tally() for _ in jobs])


def plan_of(work: Work) -> on_ray._Plan:
    jobs = tuple(one.job for one in work.missing)
    return on_ray._Plan("a run", jobs, str(work.store.path), on_ray._stamp(work.store), False, 1)


@pytest.mark.parametrize(
    ("cores", "expected"), [([1, 1], (1, 2)), ([8, 8, 0], (8, 2)), ([64, 32], (16, 6)), ([4, 6], (4, 2))]
)
def test_nodes_are_shared_out_in_slices_of_one_size(cores: list[int], expected: tuple[int, int]) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": float(count)}} for count in cores]
    nodes.append({"Alive": False, "Resources": {"CPU": 1.0}})
    assert on_ray._slices(nodes) == expected


def test_a_cluster_without_cores_is_told() -> None:
    with pytest.raises(InputError, match="no node of the cluster offers a CPU"):
        on_ray._slices([{"Alive": True, "Resources": {}}])


@pytest.mark.parametrize(("actors", "views", "size"), [(1, 1, 32), (2, 1, 32), (1, 4, 8)])
def test_blocks_hold_every_image_once_in_order(
    photos: Path, tmp_path: Path, bases: Bases, actors: int, views: int, size: int
) -> None:
    blocks = on_ray._blocks(work_on(photos, tmp_path / "store", views=views), actors)
    assert [index for block in blocks for index in block.indices] == [*range(254)]
    assert {len(block.indices) for block in blocks[:-1]} == {size}
    paths = [path for block in blocks for path in block.dataset.paths]
    assert paths == [*featstore.open_dataset(photos).paths]


def test_a_block_is_read_and_computed_as_by_a_worker(photos: Path, tmp_path: Path, bases: Bases) -> None:
    """The two stages in this process, as Ray calls them."""
    pyarrow = pytest.importorskip("pyarrow")
    import pickle

    work = work_on(photos, tmp_path / "store")
    plan, computer = plan_of(work), on_ray._Computer(plan_of(work))
    indices, seen = {}, []
    for block in on_ray._blocks(work, 1):
        indices[block.number] = block.indices
        table = pyarrow.table({"block": pyarrow.array([pickle.dumps(block)], pyarrow.large_binary())})
        done = computer(on_ray._read(table, plan))
        seen += on_ray._unpack_done(pickle.loads(done["done"][0].as_py()), indices, work.tallies)
        assert len([*work.store.path.glob("ns/*/seg/*.h5")]) == block.number + 1, "a block is one sealed segment"
    assert [image.index for image in seen] == [*range(254)]
    assert [image.digest for image in seen] == [d.tobytes() for d in digest_all(work.dataset, None).values]
    [tally] = work.tallies
    assert (tally.computed, tally.committed, len(tally.rejected)) == (252, 253, 1)


def test_a_node_that_sees_another_store_or_no_images_computes_nothing(
    photos: Path, tmp_path: Path, bases: Bases
) -> None:
    work = work_on(photos, tmp_path / "store")
    with pytest.raises(InputError, match="does not see the store"):
        replace(plan_of(work), store_stamp=1).missing()
    with pytest.raises(InputError, match="does not see the store"):
        replace(plan_of(work), store_path=str(tmp_path / "nothing")).missing()
    shutil.rmtree(photos)
    with pytest.raises(InputError, match="does not see the images"):
        on_ray._check_seen(work.dataset)


def test_what_fails_on_a_worker_is_raised_here_with_its_type() -> None:
    with pytest.raises(NoSpaceError, match="full"):
        [*on_ray._unpack_done(NoSpaceError("full", where="there"), {}, [])]


def test_weights_that_a_node_does_not_have_are_found_anew(tmp_path: Path, photos: Path) -> None:
    opened = Store.open(tmp_path / "store", create=True)
    [job] = resolve_jobs([SMALL], opened, featstore.open_dataset(photos))
    away = replace(job, base=replace(job.base, tensors=tmp_path / "not-here.npz"))
    assert on_ray._job_here(away).base == job.base
