"""Extraction on a Ray cluster, here of two nodes with a core each on this machine: the same rows, come what may."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import featstore
from featstore import ExtractOptions, Request, Store
from featstore.errors import DamageError, InputError, StorageError
from featstore.extraction import engine_named, on_ray, ray_cluster
from featstore.extraction.engine import Work
from featstore.job import resolve_jobs
from featstore.records import Reason
from featstore.scale import INDEX_BYTES_A_ROW
from featstore.scan import digest_all
from featstore.store import verify
from tests.commands import finish, run, segments, start
from tests.featstore.extraction.works import work_on
from tests.pictures import class_folders, png
from tests.reliability.campaign import takes_long
from tests.stubs import Bases
from tests.waiting import until

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

SMALL = Request("mobilenetv2", weights="random:7", image_size=32)
LARGER = replace(SMALL, image_size=128)
_LINES = ("--backbone", "mobilenetv2", "--weights", "random:7", "--image-size")

_START_SECONDS = 240.0
"""In which a run on a cluster has committed something, even on a machine that is busy with other work."""


@pytest.fixture(scope="module")
def running() -> Iterator[Any]:
    """A cluster that this process stays connected to; its processes go with the tests of this file."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    running = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 2**28, "include_dashboard": False}
    )
    running.add_node(num_cpus=1, object_store_memory=2**28)
    with ray_cluster.connected(running.address):
        yield running
    running.shutdown()


@pytest.fixture(scope="module")
def cluster(running: Any) -> str:
    """Its address."""
    return str(running.address)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """960 pictures."""
    return class_folders(tmp_path / "many", count=160)


def rows_of(data: Path, request: Request, store: Path) -> np.ndarray:
    """The features of every image that has some, by their place in the dataset."""
    tables = featstore.load_tables(data, request, store=store)
    return np.concatenate([table.X for _, table in sorted(tables.items())])


def counts(done: featstore.Extraction) -> list[tuple[int, int, int]]:
    return [(spec.hits, spec.computed, spec.rejected) for spec in done.report.specs]


def held(store: Path) -> int:
    """Rows that are in a store."""
    return sum(len(namespace.snapshot()) for namespace in Store.open(store).namespaces())


def actors() -> set[int]:
    """The processes of Ray's actors that compute, of the cluster that this process has started."""
    told = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    lines = [line.split(maxsplit=2) for line in told.splitlines()[1:]]
    parents = {int(process): int(parent) for process, parent, *_ in lines}
    ours = [int(process) for process, _, *words in lines if "ray::" in str(words) and "Computer" in str(words)]
    return {process for process in ours if parents.get(parents[process]) == os.getpid()}  # a worker, Ray's node, we


def begun(photos: Path, store: Path, cluster: str) -> subprocess.Popen[str]:
    """A run in a process of its own that has committed rows, more than before, and goes on."""
    before = segments(store)
    words = ("extract", photos, *_LINES, 128, "--json", "--store", store, "--engine", "ray", "--address", cluster)
    process = start(*words, env={"RAY_DATA_AUTOSCALING_REQUEST_EXPIRE_TIME_S": 3})
    until(lambda: segments(store) > before or process.poll() is not None, _START_SECONDS)
    assert process.poll() is None, finish(process).err
    return process


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
    assert not [*(tmp_path / "there" / "tmp").iterdir()], "the run's token stays"


def test_what_is_in_the_store_is_not_computed_and_not_shipped(
    cluster: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped: list[int] = []
    real = on_ray.parts_of
    monkeypatch.setattr(on_ray, "parts_of", lambda work, actors: shipped.append(len(work.todo)) or real(work, actors))
    monkeypatch.setattr("featstore.scan.RACY_NS", 0)
    featstore.extract(photos, SMALL, store=tmp_path / "store")
    done = featstore.extract(photos, SMALL, store=tmp_path / "store", engine="ray", address=cluster)
    assert counts(done) == [(73, 0, 1)]
    file = next((photos / "train" / "dogs").iterdir())
    file.write_bytes(png(4000))
    done = featstore.extract(photos, SMALL, store=tmp_path / "store", engine="ray", address=cluster)
    assert counts(done) == [(72, 1, 1)]
    assert shipped == [1]


@takes_long
def test_rejects_are_tried_again_only_if_asked(cluster: str, photos: Path, tmp_path: Path) -> None:
    store, dataset = Store.open(tmp_path / "store", create=True), featstore.open_dataset(photos)
    [job] = resolve_jobs([SMALL], store, dataset)
    digest = digest_all(dataset, None).values[-1].tobytes()
    with store.namespace(job.spec).writer({}) as writer:
        writer.reject(digest, 0, Reason.NOT_FINITE)
    assert counts(featstore.extract(photos, SMALL, store=store)) == [(1, 71, 2)]
    options = ExtractOptions(retry_rejected=True)
    again = featstore.extract(photos, SMALL, store=store, options=options, engine="ray", address=cluster)
    assert counts(again) == [(72, 1, 1)]


@takes_long
def test_workers_that_are_killed_while_they_compute_cost_no_row(cluster: str, many: Path, tmp_path: Path) -> None:
    process = begun(many, tmp_path / "store", cluster)
    victims = actors()
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    at_the_kill = held(tmp_path / "store")
    assert victims
    assert at_the_kill < 960
    until(lambda: bool(actors() - victims) or process.poll() is not None)
    assert actors() - victims, "nobody was started in their place"
    done = finish(process, 120)
    assert done.code == 0, done.err
    [spec] = done.json["specs"]
    assert spec["hits"] + spec["computed"] == 960, "what a worker committed and could not tell of is a hit"
    assert "Warning" not in done.err
    assert counts(featstore.extract(many, LARGER, store=tmp_path / "store")) == [(960, 0, 0)]
    assert verify(Store.open(tmp_path / "store"), read_data=True).sound


@pytest.mark.real
@takes_long
def test_rows_of_photographs_are_those_of_the_local_engine_even_if_workers_are_killed(
    cluster: str, photographs: Path, linked_cache: None, tmp_path: Path
) -> None:
    data, stores = photographs / "validation", [tmp_path / name for name in ("here", "there")]
    words, each = ("--image-size", 96, "--json", "--store"), [("--engine", "ray", "--address", cluster), ()]
    process = start("extract", data, *words, stores[1], *each[0])
    until(lambda: segments(stores[1]) > 0 or process.poll() is not None, _START_SECONDS)
    victims = actors()
    assert victims, finish(process).err
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    assert 0 < held(stores[1]) < len(featstore.open_dataset(data)), "the kill came too late"
    until(lambda: bool(actors() - victims) or process.poll() is not None)
    assert actors() - victims, "nobody was started in their place"
    done = finish(process, 300)
    assert done.code == 0, done.err
    here = finish(start("extract", data, *words, stores[0]), 300).json
    [again] = finish(start("extract", data, *words, stores[1], *each[0]), 300).json["specs"]
    assert (again["hits"], again["computed"]) == (here["specs"][0]["computed"], 0)
    request = Request("vgg16", image_size=96, precision=here["specs"][0]["precision"])
    ours, theirs = (rows_of(data, request, store) for store in stores)
    assert ours.tobytes() == theirs.tobytes()


@takes_long
def test_a_node_that_is_lost_costs_no_row_that_was_committed_and_the_same_command_completes_the_run(
    running: Any, many: Path, tmp_path: Path
) -> None:
    """The run itself may go on, if the node had nothing to compute just then."""
    store = tmp_path / "store"
    node = running.add_node(num_cpus=1, object_store_memory=2**28)
    process = begun(many, store, running.address)
    running.remove_node(node, allow_graceful=False)
    at_the_loss = held(store)
    assert at_the_loss < 960, "it was lost too late"
    done = finish(process, 300)
    before = held(store)
    assert before >= at_the_loss > 0
    if done.code == 0:
        assert before == 960
    else:
        assert done.code == 1, done.err
        assert "the cluster did not go on" in done.message
        assert "run the same command again" in done.message
    until(lambda: not actors())
    done_again = featstore.extract(many, LARGER, store=store, engine="ray", address=running.address)
    assert counts(done_again) == [(before, 960 - before, 0)]
    assert verify(Store.open(store), read_data=True).sound


@takes_long
def test_a_run_that_is_stopped_and_then_killed_is_gone_on_with(cluster: str, many: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    stopped = begun(many, store, cluster)
    stopped.send_signal(signal.SIGINT)
    done = finish(stopped, 60)
    assert done.code == 130, done.err
    assert "new rows are kept in the store" in done.message
    killed = begun(many, store, cluster)
    killed.kill()
    finish(killed)
    until(lambda: not actors())
    before = held(store)
    assert 0 < before < 960
    [(hits, computed, _)] = counts(featstore.extract(many, LARGER, store=store, engine="ray", address=cluster))
    assert (hits, computed) == (before, 960 - before)
    assert counts(featstore.extract(many, LARGER, store=store)) == [(960, 0, 0)]
    assert verify(Store.open(store), read_data=True).sound


@takes_long
def test_a_broken_image_ends_a_run_that_is_to_fail(cluster: str, photos: Path, tmp_path: Path) -> None:
    options = ExtractOptions(on_error="fail")
    with pytest.raises(DamageError, match="rejected, and --on-error is fail"):
        featstore.extract(photos, SMALL, store=tmp_path / "store", options=options, engine="ray", address=cluster)


@takes_long
def test_a_zip_is_read_by_all_workers(cluster: str, photos: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "photos"), "zip", photos)
    done = featstore.extract(tmp_path / "photos.zip", SMALL, store=tmp_path / "store", engine="ray", address=cluster)
    assert [hits + computed for hits, computed, _ in counts(done)] == [73]
    assert counts(featstore.extract(photos, SMALL, store=tmp_path / "store")) == [(73, 0, 1)]


@takes_long
def test_a_store_in_which_no_worker_can_write_ends_the_run(cluster: str, photos: Path, tmp_path: Path) -> None:
    Store.open(tmp_path / "store", create=True)
    (tmp_path / "store" / "ns").write_bytes(b"")  # root may write anywhere: so something is in the way
    with pytest.raises(InputError, match=rf"cannot make a folder(.|\n)* on node {os.uname().nodename}") as caught:
        featstore.extract(photos, SMALL, store=tmp_path / "store", engine="ray", address=cluster)
    assert str(tmp_path / "store" / "ns") in str(caught.value)


@takes_long
def test_a_bug_in_a_worker_is_a_fault_of_ours_and_no_failure_of_the_cluster(
    cluster: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.exceptions import UserCodeException

    def read(table: Any, plan: Any) -> Any:
        return 1 // 0

    monkeypatch.setattr(on_ray, "read", read)
    with pytest.raises(UserCodeException, match="ZeroDivisionError"):
        featstore.extract(photos, SMALL, store=tmp_path / "store", engine="ray", address=cluster)


@takes_long
@pytest.mark.parametrize(("dies", "told"), [(True, "WorkerCrashedError"), (False, "ExecutionTimeoutError")])
def test_a_block_that_no_worker_survives_or_ends_is_told(
    cluster: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies: bool, told: str
) -> None:
    def read(table: Any, plan: Any) -> Any:
        os._exit(1) if dies else time.sleep(60)

    monkeypatch.setattr(on_ray, "read", read)
    monkeypatch.setattr(on_ray, "_RETRIES", 1)
    if not dies:
        monkeypatch.setattr(ray_cluster, "_STALLED_SECONDS", 2.0)
    with pytest.raises(StorageError, match=rf"the cluster did not go on \({told}") as caught:
        featstore.extract(photos, SMALL, store=tmp_path / "store", engine="ray", address=cluster)
    assert "run the same command again" in str(caught.value)


# ---- without a cluster -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nobody", "ray://127.0.0.1:10001"])
def test_an_address_where_no_cluster_is_is_told(photos: Path, tmp_path: Path, address: str) -> None:
    pytest.importorskip("ray")
    done = run("extract", photos, *_LINES, 32, "--store", tmp_path / "s", "--engine", "ray", "--address", address)
    assert done.code == 2
    assert "there is no Ray cluster" in done.message


def test_another_engine_is_unknown_and_an_address_alone_means_nothing() -> None:
    with pytest.raises(InputError, match="did you mean"):
        engine_named("rya")
    with pytest.raises(InputError, match="--engine ray"):
        engine_named("local", "head:6379")


def nodes(*resources: dict[str, float]) -> list[dict[str, Any]]:
    """As Ray tells of them, and one that is gone."""
    gone = {"Alive": False, "Resources": {"CPU": 1.0, "GPU": 8.0}}
    return [*({"Alive": True, "Resources": one} for one in resources), gone]


@pytest.mark.parametrize(
    ("cores", "expected"), [([1, 1], (2, 1)), ([8, 8, 0], (2, 8)), ([64, 32], (6, 16)), ([4, 6], (2, 4))]
)
def test_nodes_are_shared_out_in_slices_of_one_size(
    photos: Path, tmp_path: Path, bases: Bases, cores: list[int], expected: tuple[int, int]
) -> None:
    jobs = [one.job for one in work_on(photos, tmp_path / "store").missing]
    pool = on_ray._pool(nodes(*({"CPU": float(count)} for count in cores)), jobs)
    assert (pool.size, pool.cores) == expected
    assert pool.device == "cpu"


def test_gpus_are_taken_where_tensorflow_computes_and_nobody_said_cpu(
    photos: Path, tmp_path: Path, bases: Bases
) -> None:
    [missing] = work_on(photos, tmp_path / "store").missing
    ours, two = replace(missing.job, runtime="tensorflow"), nodes({"CPU": 4.0, "GPU": 1.0}, {"CPU": 4.0, "GPU": 1.0})
    assert on_ray._pool(two, [ours]) == on_ray._Pool(2, None)
    assert on_ray._pool(two, [ours]).device == "gpu"
    assert on_ray._pool(two, [replace(ours, device="CPU")]) == on_ray._Pool(2, 4)
    assert on_ray._pool(two, [replace(ours, runtime="openvino")]) == on_ray._Pool(2, 4)
    with pytest.raises(InputError, match="cannot compute on GPUs"):
        on_ray._pool(nodes({"CPU": 4.0}), [replace(ours, device="gpu:0")])
    with pytest.raises(InputError, match="one runtime"):
        on_ray._pool(two, [ours, replace(ours, runtime="openvino")])
    with pytest.raises(InputError, match="no node of the cluster offers a CPU"):
        on_ray._pool(nodes({}), [ours])


def asked_for(work: Work) -> tuple[int, int]:
    """The bytes that a reading task, and an actor, asks Ray for."""
    stages: list[int] = []

    class Rows:
        def map_batches(self, *_: Any, memory: int, **__: Any) -> Rows:
            stages.append(memory)
            return self

        def iter_batches(self, **_: Any) -> Iterator[Any]:
            yield from ()

    data = SimpleNamespace(from_items=lambda *_, **__: Rows(), ActorPoolStrategy=dict)
    ray = SimpleNamespace(data=data, nodes=lambda: nodes({"CPU": 4.0}))
    assert [*on_ray._compute(ray, work)] == []
    reading, computing = stages
    return reading, computing


def test_what_looks_rows_up_asks_for_the_memory_of_their_index(photos: Path, tmp_path: Path, bases: Bases) -> None:
    work = work_on(photos, tmp_path / "store")
    empty = asked_for(work)
    assert empty == (3 * 32 * 32 * 32 * 3 + on_ray._READER_BYTES, 0)
    store = Store.open(tmp_path / "store")
    for job in (work.missing[0].job, work_on(photos, tmp_path / "store", pooling="map").missing[0].job):
        with store.namespace(job.spec).writer({}) as writer:
            for number in range(500):
                writer.reject(number.to_bytes(32), 0, Reason.CORRUPT)
    held = asked_for(work_on(photos, tmp_path / "store"))
    index = 1000 * INDEX_BYTES_A_ROW
    assert held == (empty[0] + index, index), "of the maps, too, which rows are derived from"


def test_an_index_that_no_node_has_memory_for_is_told() -> None:
    two = nodes({"CPU": 4.0, "memory": 2.0**30}, {"CPU": 4.0, "memory": 2.0**31})
    on_ray._check_room(two, 2**31)
    on_ray._check_room(nodes({"CPU": 4.0}), 2**40)
    with pytest.raises(InputError, match="no node of the cluster has the memory") as caught:
        on_ray._check_room(two, 5 * 2**30)
    assert (caught.value.expected, caught.value.received) == ("a node that offers Ray 5.0 GiB", "2.0 GiB at most")


def test_a_run_leaves_no_token_and_one_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path / "store")
    with on_ray._token(store, "a-run") as place:
        assert place.has_token("run-a-run")
    assert not place.has_token("run-a-run")

    def touch(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "touch", touch)
    with pytest.raises(featstore.errors.NoSpaceError), on_ray._token(store, "a-run"):
        pass


def test_rows_that_are_not_to_be_kept_are_refused(photos: Path, tmp_path: Path, bases: Bases) -> None:
    from featstore.extraction.sink import MemorySink

    work = replace(work_on(photos, tmp_path / "store"), memory=MemorySink())
    with pytest.raises(InputError, match="not to be kept"):
        next(on_ray.compute(work))
