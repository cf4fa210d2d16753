"""A process for each device of one machine: the same rows, and what was committed stays, come what may.

No GPU is needed: real bases compute on the CPU in several processes, stub bases on GPUs that are not there.
"""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featstore
from featstore import ExtractOptions, Request, Store, machine, rates
from featstore.errors import DamageError, InputError, Interrupted, StorageError
from featstore.extraction import Extraction, engine_named, extract, local, on_devices
from featstore.extraction.sink import MemorySink
from featstore.job import on_gpus, resolve_jobs
from featstore.scan import digest_all
from featstore.store import verify
from tests.buckets import connected
from tests.commands import run
from tests.featstore.extraction import device_work
from tests.featstore.extraction.works import work_on
from tests.pictures import class_folders
from tests.reliability.campaign import takes_long
from tests.stubs import Bases

SMALL = Request("mobilenetv2", weights="random:7", image_size=32)
TWO = ("gpu:0", "gpu:1")

Doing = Callable[[Callable[[Connection], None]], None]


@pytest.fixture
def doing(bases: Bases, monkeypatch: pytest.MonkeyPatch) -> Doing:
    """Have the processes of devices do something else than their own work."""
    return lambda work: monkeypatch.setattr(on_devices, "compute_share", work)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """480 pictures."""
    return class_folders(tmp_path / "many", count=80)


def extracted(photos: Path, store: Path, *requests: Request, devices: tuple[str, ...] = (), **given: Any) -> Extraction:
    """By the local engine, or by one on ``devices``."""
    opened, dataset = Store.open(store, create=True), featstore.open_dataset(photos)
    jobs = resolve_jobs(requests or [Request("vgg16", image_size=32)], opened, dataset)
    return extract(dataset, jobs, opened, engine=on_devices.engine_on(devices) if devices else local.compute, **given)


def rows_of(data: Path, request: Request, store: Path) -> np.ndarray:
    """The features of every image that has some, by their place in the dataset."""
    tables = featstore.load_tables(data, request, store=store)
    return np.concatenate([table.X for _, table in sorted(tables.items())])


def counts(done: Extraction) -> list[tuple[int, int, int]]:
    return [(spec.hits, spec.computed, spec.rejected) for spec in done.report.specs]


def held(store: Path) -> int:
    return sum(len(namespace.snapshot()) for namespace in Store.open(store).namespaces())


def _compared(photos: Path, tmp_path: Path, request: Request) -> tuple[np.ndarray, np.ndarray]:
    """The rows of one process, and of two."""
    here = extracted(photos, tmp_path / "here", request)
    there = extracted(photos, tmp_path / "there", request, devices=("cpu", "cpu"))
    assert (there.digests == here.digests).all()
    assert (there.reasons == here.reasons).all()
    assert verify(Store.open(tmp_path / "there"), read_data=True).sound
    one, two = (rows_of(photos, request, tmp_path / name) for name in ("here", "there"))
    return one, two


def test_the_rows_are_those_of_one_process_to_the_bit(photos: Path, tmp_path: Path) -> None:
    one, two = _compared(photos, tmp_path, SMALL)
    assert one.shape == (73, 1280)
    assert one.tobytes() == two.tobytes()


@takes_long
def test_the_rows_of_tensorflow_are_those_of_one_process_to_the_bit_where_the_batches_are(
    photos: Path, tmp_path: Path
) -> None:
    """In any process the last bits of TensorFlow's rows depend on what else is in their batch."""
    of_tensorflow = replace(SMALL, runtime="tensorflow", precision="float32")
    one, two = _compared(photos, tmp_path / "all", of_tensorflow)
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)
    one, two = _compared(photos / "train", tmp_path / "a batch", of_tensorflow)
    assert len(one) < 32
    assert one.tobytes() == two.tobytes()


@takes_long
def test_a_report_is_that_of_one_process_and_a_zip_is_read_by_all(photos: Path, tmp_path: Path, doing: Doing) -> None:
    doing(device_work.stubbed)
    shutil.make_archive(str(tmp_path / "photos"), "zip", photos)
    requests = [Request(name, image_size=size) for name, size in (("vgg16", 32), ("vgg19", 40))]
    requests[1] = replace(requests[1], views=2, augment="flip")
    here = extracted(photos, tmp_path / "here", *requests)
    there = extracted(tmp_path / "photos.zip", tmp_path / "there", *requests, devices=TWO)
    assert [Path(r.path).name for r in there.report.rejects] == ["broken.png"]
    assert there.digests.tobytes() == here.digests.tobytes()
    for (hits, computed, rejected), (h, c, r) in zip(counts(there), counts(here), strict=True):
        assert (hits + computed, rejected) == (h + c, r)
        assert c <= computed <= c + 2, "a copy may be computed by two processes"


def test_a_process_sees_its_own_device_and_its_error_is_the_run_s(
    photos: Path, tmp_path: Path, doing: Doing, monkeypatch: pytest.MonkeyPatch
) -> None:
    doing(device_work.telling)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-5f2e")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    with pytest.raises(InputError) as caught:
        extracted(photos, tmp_path / "store", devices=TWO)
    order = "PCI_BUS_ID"  # as nvidia-smi counts them
    assert caught.value.received in (f"openvino on gpu:0 of 5 by {order}", f"openvino on gpu:0 of GPU-5f2e by {order}")


def test_the_rate_that_a_plan_goes_by_is_that_of_all_devices(many: Path, tmp_path: Path, doing: Doing) -> None:
    doing(device_work.stubbed)
    done = extracted(many, tmp_path / "store", devices=TWO)
    rate = rates.estimate(done.jobs[0], Store.open(tmp_path / "store"))
    assert rate is not None
    assert rate.images_per_second == pytest.approx(2 * done.report.specs[0].images_per_second)


@takes_long
def test_a_slow_device_gets_less(many: Path, tmp_path: Path, doing: Doing, monkeypatch: pytest.MonkeyPatch) -> None:
    doing(device_work.uneven)
    told, count = [], on_devices._count
    monkeypatch.setattr(on_devices, "_count", lambda ended, work: told.append(ended) or count(ended, work))
    [(hits, computed, _)] = counts(extracted(many, tmp_path / "store", devices=TWO))
    assert (hits, computed) == (0, 480)
    slow, fast = sorted(ended.tallies[0].computed for ended in told)
    assert slow < fast


def test_a_process_that_is_killed_ends_the_run_and_costs_no_row_that_was_committed(
    many: Path, tmp_path: Path, doing: Doing
) -> None:
    doing(device_work.killed)
    with pytest.raises(StorageError, match=r"ended(.|\n)*gpu:0(.|\n)*SIGKILL(.|\n)*run the same command again"):
        extracted(many, tmp_path / "store", devices=TWO)
    assert not multiprocessing.active_children()
    before = held(tmp_path / "store")
    assert 32 <= before < 480
    assert counts(extracted(many, tmp_path / "store")) == [(before, 480 - before, 0)]
    assert verify(Store.open(tmp_path / "store"), read_data=True).sound


@takes_long
def test_a_bug_in_a_process_is_a_fault_with_its_traceback(many: Path, tmp_path: Path, doing: Doing) -> None:
    doing(device_work.at_fault)
    with pytest.raises(RuntimeError, match=r"device_work\.py(.|\n)*ZeroDivisionError"):
        extracted(many, tmp_path / "store", devices=TWO)
    assert held(tmp_path / "store") >= 32


def test_who_stops_has_what_is_complete_committed_and_counted(many: Path, tmp_path: Path, doing: Doing) -> None:
    doing(device_work.uneven)
    seen = 0

    def progress(label: str, total: int, unit: str = "images") -> Any:
        from contextlib import nullcontext

        def advance(count: int) -> None:
            nonlocal seen
            seen += count
            if seen == 100:
                raise KeyboardInterrupt

        return nullcontext(advance)

    with pytest.raises(Interrupted) as caught:
        extracted(many, tmp_path / "store", devices=TWO, progress=progress)
    assert not multiprocessing.active_children()
    kept = held(tmp_path / "store")
    assert 0 < kept < 480
    assert caught.value.what == f"interrupted: {kept} new rows are kept in the store"


@takes_long
def test_a_broken_image_ends_a_run_that_is_to_fail(photos: Path, tmp_path: Path, doing: Doing) -> None:
    doing(device_work.stubbed)
    with pytest.raises(DamageError, match="1 image was rejected"):
        extracted(photos, tmp_path / "store", devices=TWO, options=ExtractOptions(on_error="fail"))


def test_few_images_start_no_more_processes_than_they_are_blocks(
    photos: Path, tmp_path: Path, doing: Doing, monkeypatch: pytest.MonkeyPatch
) -> None:
    doing(device_work.stubbed)
    started, real = [], on_devices.child
    monkeypatch.setattr(on_devices, "child", lambda work: started.append(work) or real(work))
    work = replace(work_on(photos, tmp_path / "store"), todo=range(50, 70))
    images = [*on_devices.compute(work, [f"gpu:{number}" for number in range(8)])]
    assert [image.index for image in images] == [*range(50, 70)]
    digests = digest_all(work.dataset, None).values
    assert all(image.digest == digests[image.index].tobytes() for image in images)
    assert len(started) == 1


def test_rows_that_are_not_to_be_kept_are_refused(photos: Path, tmp_path: Path, bases: Bases) -> None:
    work = replace(work_on(photos, tmp_path / "store"), memory=MemorySink())
    with pytest.raises(InputError, match="not to be kept"):
        next(on_devices.compute(work, TWO))


def test_a_store_that_is_in_the_memory_of_one_process_is_refused(photos: Path, bases: Bases, own_cache: None) -> None:
    with pytest.raises(InputError, match="each process has a memory of its own"):
        extracted(photos, "memory://somewhere/store", devices=TWO)


def test_images_that_are_in_the_memory_of_one_process_are_refused(photos: Path, tmp_path: Path, bases: Bases) -> None:
    connected("memory://").put(str(photos), "/photos", recursive=True)
    work = work_on("memory://photos", tmp_path / "store")
    with pytest.raises(InputError, match="each process has a memory of its own") as caught:
        next(on_devices.compute(work, TWO))
    assert caught.value.where == "memory://photos"
    connected("memory://").store.clear()


# ---- which devices ---------------------------------------------------------------------------------------------------


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    here = replace(machine.describe(), gpus=("GPU",) * 3, runtimes=("openvino", "tensorflow"))
    monkeypatch.setattr(machine, "describe", lambda: here)


@pytest.mark.usefixtures("three_gpus")
def test_an_engine_is_on_the_gpus_that_are_named_and_on_one_it_is_the_local_one(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[tuple[str, ...]] = []
    monkeypatch.setattr(on_devices, "compute", lambda work, devices: chosen.append(tuple(devices)))
    for named in ("all", "2", "2,0"):
        engine_named(devices=named)(work=None)  # type: ignore[arg-type]
    assert chosen == [("gpu:0", "gpu:1", "gpu:2"), ("gpu:0", "gpu:1"), ("gpu:2", "gpu:0")]
    assert engine_named(devices="1") is local.compute
    with pytest.raises(InputError, match="or --engine ray"):
        engine_named("ray", devices="all")


def test_what_several_gpus_compute_is_computed_in_tensorflow() -> None:
    assert on_gpus(SMALL) == replace(SMALL, runtime="tensorflow", device="gpu")
    for request in (replace(SMALL, runtime="openvino"), replace(SMALL, device="gpu:1"), replace(SMALL, device="cpu")):
        with pytest.raises(InputError, match="do not go together"):
            on_gpus(request)


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize("words", [("--runtime", "openvino"), ("--device", "gpu:1"), ("--precision", "int8")])
def test_the_command_refuses_what_does_not_go_together(photos: Path, words: tuple[str, str]) -> None:
    done = run("extract", photos, "--weights", "random:0", "--devices", "all", *words)
    assert done.code == 2
    assert "--runtime" in done.message or "do not go together" in done.message


def test_without_gpus_the_command_says_so_before_anything_is_done(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = replace(machine.describe(), gpus=())
    monkeypatch.setattr(machine, "describe", lambda: here)
    done = run("extract", photos, "--backbone", "there is no such base", "--devices", "all")
    assert done.code == 2
    assert "no GPU to share the work out to" in done.message
