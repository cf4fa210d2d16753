"""What runs on the nodes of a cluster, here in this process: the two stages as Ray calls them."""

from __future__ import annotations

import os
import pickle
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

import featstore
from featstore import ExtractOptions, Store
from featstore.catalog import Backbone
from featstore.cloud import Bucket
from featstore.dataset.sources import FolderSource
from featstore.errors import DamageError, FeatstoreError, InputError, NoSpaceError, ReadOnlyError, StorageError
from featstore.extraction import on_ray, ray_worker
from featstore.extraction.blocks import parts_of
from featstore.extraction.ray_worker import Computer, Done
from featstore.job import Job, resolve_jobs
from featstore.records import Reason
from featstore.scan import digest_all
from featstore.store.writer import Writer
from tests.buckets import connected
from tests.featstore.extraction.ray_blocks import compute, losing_each_block_once, plan_of, read
from tests.featstore.extraction.works import work_on
from tests.stubs import Bases

pytest.importorskip("pyarrow")

NODE = os.uname().nodename


def test_a_block_is_read_computed_and_committed(photos: Path, tmp_path: Path, bases: Bases) -> None:
    work = work_on(photos, tmp_path / "store")
    plan = plan_of(work)
    computer, seen = Computer(plan), []
    for number, part in enumerate(parts_of(work, 1)):
        done = compute(computer, read(work.dataset.select(part), plan, number))
        seen += on_ray._taken(done, part, work)
        assert len([*work.store.path.glob("ns/*/seg/*.h5")]) == number + 1, "a block of a commit is one sealed segment"
    assert [image.index for image in seen] == [*range(74)]
    assert [image.digest for image in seen] == [d.tobytes() for d in digest_all(work.dataset, None).values]
    assert not any(image.pixels for image in seen)
    [tally] = work.tallies
    assert (tally.computed, tally.committed, len(tally.rejected)) == (72, 73, 1)
    assert len(bases.opened) == 1


def test_a_block_whose_result_was_lost_is_counted_like_any_other(photos: Path, tmp_path: Path, bases: Bases) -> None:
    done = featstore.extraction.extract(
        featstore.open_dataset(photos),
        [one.job for one in work_on(photos, tmp_path / "store").missing],
        Store.open(tmp_path / "store"),
        engine=losing_each_block_once,
    )
    [spec] = done.report.specs
    assert (spec.hits, spec.computed, spec.rejected) == (73, 0, 1)
    assert [reject.path for reject in done.report.rejects] == ["train/cats/broken.png"]


def test_a_reject_whose_news_were_lost_ends_a_run_that_is_to_fail(photos: Path, tmp_path: Path, bases: Bases) -> None:
    jobs = [one.job for one in work_on(photos, tmp_path / "store").missing]
    options, store = ExtractOptions(on_error="fail"), Store.open(tmp_path / "store")
    with pytest.raises(DamageError, match="1 image was rejected"):
        featstore.extraction.extract(
            featstore.open_dataset(photos), jobs, store, options, engine=losing_each_block_once
        )


def test_a_block_that_the_same_actor_gets_again_has_its_rejects(photos: Path, tmp_path: Path, bases: Bases) -> None:
    work = work_on(photos, tmp_path / "store")
    plan = plan_of(work)
    computer, table = Computer(plan), read(work.dataset, plan)
    first, second = compute(computer, table), compute(computer, table)
    assert (first.tallies[0].computed, second.tallies[0].computed) == (72, 0)
    assert first.tallies[0].rejected == second.tallies[0].rejected != {}


def test_a_block_without_a_readable_image_is_nothing(photos: Path, tmp_path: Path, bases: Bases) -> None:
    work = work_on(photos, tmp_path / "store")
    plan = plan_of(work)
    shutil.rmtree(photos)
    done = compute(Computer(plan), read(work.dataset, plan))
    images = [*on_ray._taken(done, range(74), work)]
    assert {image.rejected.reason for image in images if image.rejected} == {Reason.UNREADABLE}
    assert work.tallies[0].rejected == {}
    assert len(done.unseen.why) == 74, "files that are gone everywhere are no fault of a node"


def test_a_node_that_does_not_see_an_image_that_the_driver_sees_ends_the_run(
    photos: Path, tmp_path: Path, bases: Bases
) -> None:
    work = work_on(photos, tmp_path / "store")
    plan = plan_of(work)
    (tmp_path / "mount").mkdir()
    unmounted = replace(work.dataset, source=FolderSource(str(tmp_path / "mount")))
    done = compute(Computer(plan), read(unmounted, plan))
    with pytest.raises(InputError, match="does not see an image that is here") as caught:
        next(on_ray._taken(done, range(74), work))
    assert f"{photos / work.dataset.paths[0]} on node {NODE}" in str(caught.value)
    assert "No such file" in str(caught.value)


def test_a_list_of_files_needs_no_common_folder(photos: Path, tmp_path: Path, bases: Bases) -> None:
    work = work_on(sorted(photos.rglob("*.png")), tmp_path / "store")
    plan = plan_of(work)
    elsewhere = replace(work.dataset, source=FolderSource("/a folder of the driver alone"))
    done = compute(Computer(plan), read(elsewhere, plan))
    assert (done.unseen.why, done.tallies[0].computed) == ({}, 72)


def test_objects_are_waited_for_side_by_side_and_come_in_their_order(
    photos: Path, s3: str, tmp_path: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected(s3).put(str(photos), f"{s3}/photos", recursive=True)
    here, there = (work_on(place, tmp_path / "store") for place in (photos, f"{s3}/photos"))
    read_object, under_way, most = Bucket.read, 0, 0
    lock = threading.Lock()

    def waited(self: Bucket, name: str, count: int) -> bytes:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.01)
        data = read_object(self, name, count)
        with lock:
            under_way -= 1
        return data

    monkeypatch.setattr(Bucket, "read", waited)
    ours, theirs = (ray_worker.loads(read(work.dataset, plan_of(work))["images"][0].as_py()) for work in (here, there))
    assert most == 4
    assert [(image.index, image.digest) for image in theirs.images] == [(i.index, i.digest) for i in ours.images]
    assert [image.rejected and image.rejected.reason for image in theirs.images] == [
        image.rejected and image.rejected.reason for image in ours.images
    ]
    assert sum(image.rejected is not None for image in theirs.images) == 1
    assert theirs.orders == ours.orders


def test_what_is_missing_is_looked_up_anew_in_every_run(photos: Path, tmp_path: Path, bases: Bases) -> None:
    work = work_on(photos, tmp_path / "store")
    one, other = plan_of(work), plan_of(work, "another-run")
    assert ray_worker._missing_here(one) is ray_worker._missing_here(plan_of(work))
    compute(Computer(one), read(work.dataset, one))
    assert read(work.dataset, other)["pixels"][0].as_py() == b"", "no picture is wanted again"


def test_a_node_that_sees_another_store_computes_nothing(photos: Path, tmp_path: Path, bases: Bases) -> None:
    work = work_on(photos, tmp_path / "store")
    plan = plan_of(work)
    Store.open(tmp_path / "other", create=True)
    for place, received in (("other", "another folder"), ("nothing", "no store")):
        elsewhere = replace(plan, store_path=str(tmp_path / place))
        error = compute(Computer(elsewhere), read(work.dataset, elsewhere))
        assert isinstance(error, InputError)
        assert "does not see the store" in str(error)
        assert f"{tmp_path / place} on node {NODE}" in str(error)
        assert received in str(error)


def test_a_node_with_other_versions_computes_nothing(photos: Path, tmp_path: Path, bases: Bases) -> None:
    plan = replace(plan_of(work_on(photos, tmp_path / "store")), versions=(("featstore", "0.0.1"), ("pillow", "1")))
    with pytest.raises(InputError, match=r"other versions(.|\n)*featstore 0.0.1, pillow 1(.|\n)*openvino \d"):
        plan.missing()


def test_after_an_error_the_other_specs_keep_their_rows_and_the_actor_goes_on(
    photos: Path, tmp_path: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = work_on(photos, tmp_path / "store", "vgg16", "vgg19")
    plan = plan_of(work)
    computer, table = Computer(plan), read(work.dataset, plan)
    real, (fails, other) = Writer.flush, plan.jobs

    def flush(writer: Writer) -> object:
        if writer.spec == fails.spec:
            raise NoSpaceError("the disk is full", where=tmp_path)
        return real(writer)

    with monkeypatch.context() as broken:
        broken.setattr(Writer, "flush", flush)
        error = compute(computer, table)
    assert isinstance(error, NoSpaceError)
    assert error.where == f"{tmp_path} on node {NODE}"
    assert len(Store.open(work.store.path).namespace(other.spec).snapshot()) == 65, "two batches and the reject"
    done = compute(computer, table)
    assert [tally.computed for tally in done.tallies] == [72, 8]


@pytest.mark.parametrize("kind", [InputError, DamageError, ReadOnlyError, NoSpaceError, StorageError])
def test_what_fails_on_a_worker_comes_to_the_driver_as_it_was(kind: type[FeatstoreError]) -> None:
    error = kind("it is full", where=Path("there"), expected="room", received=3, todo="make some")
    came = pickle.loads(pickle.dumps(ray_worker._at_this_node(error)))
    assert type(came) is kind
    assert str(came) == str(error)
    assert came.where == f"there on node {NODE}"
    assert ray_worker._at_this_node(kind("nowhere")).where == f"node {NODE}"


def test_weights_that_a_node_does_not_have_are_found_anew(tmp_path: Path, photos: Path) -> None:
    opened = Store.open(tmp_path / "store", create=True)
    request = featstore.Request("mobilenetv2", weights="random:7", image_size=32)
    [job] = resolve_jobs([request], opened, featstore.open_dataset(photos))
    away = replace(job, base=replace(job.base, tensors=tmp_path / "not-here.npz"))
    assert ray_worker._job_here(away).base == job.base


def own(job: Job, tmp_path: Path) -> Job:
    """The job of somebody's own base that was cached on another machine."""
    backbone = Backbone("mine@0123456789abcdef", "", "", 32, 1, "own", 6, "last")
    base = replace(job.base, backbone=backbone, origin=str(tmp_path / "mine.keras"), tensors=tmp_path / "own-1.keras")
    return replace(job, base=base, spec=job.spec.but(backbone=backbone.name))


def test_an_own_base_is_looked_for_where_it_came_from(
    photos: Path, tmp_path: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    [missing] = work_on(photos, tmp_path / "store").missing
    ours, asked = own(missing.job, tmp_path), []

    def job_for(spec: featstore.Spec, name: str, weights: str, runtime: str) -> Job:
        asked.append((name, weights))
        return missing.job

    monkeypatch.setattr(ray_worker, "job_for", job_for)
    assert ray_worker._job_here(ours).base == missing.job.base
    assert asked == [(str(tmp_path / "mine.keras"), "imagenet")]


def test_an_own_base_that_a_node_cannot_have_is_told(photos: Path, tmp_path: Path) -> None:
    opened = Store.open(tmp_path / "store", create=True)
    request = featstore.Request("mobilenetv2", weights="random:7", image_size=32)
    [job] = resolve_jobs([request], opened, featstore.open_dataset(photos))
    with pytest.raises(InputError, match=r"cannot have the base mine@(.|\n)*mine.keras(.|\n)*own-1.keras"):
        ray_worker._job_here(own(job, tmp_path))


def test_the_done_is_all_that_a_driver_gets(photos: Path, tmp_path: Path, bases: Bases) -> None:
    work = work_on(photos, tmp_path / "store")
    plan = plan_of(work)
    done = compute(Computer(plan), read(work.dataset, plan))
    assert isinstance(done, Done)
    assert len(pickle.dumps(done)) < 74 * 400, "bytes an image"
