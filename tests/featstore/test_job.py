from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featstore import job as module
from featstore.dataset import Dataset, open_dataset
from featstore.errors import InputError
from featstore.job import Request, job_for, parse_image_size, resolve_jobs
from featstore.records import Digests
from featstore.spec import Precision, Spec
from featstore.store import Store
from tests.pictures import png
from tests.stubs import Bases

Auto = Callable[[Digests], Precision]

NONE = np.zeros((0, 32), np.uint8)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


@pytest.fixture
def never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """An image whose digest nobody may ask for."""
    monkeypatch.setattr(module, "digest_all", lambda *given: pytest.fail("the digests were asked for"))
    (tmp_path / "image.png").write_bytes(png(1))
    return open_dataset([tmp_path / "image.png"])


def rows(store: Store, spec: Spec, keys: Digests) -> None:
    with store.namespace(spec).writer({}) as writer:
        for key in keys:
            writer.add(key.tobytes(), 0, np.ones(6, np.float32))


def test_defaults_are_the_bases_own_size_last_layer_and_preprocessing(
    store: Store, bases: Bases, never: Dataset
) -> None:
    [vgg, xception] = resolve_jobs([Request("vgg16"), Request("xception")], store, never)
    assert vgg.spec.image_size == (224, 224)
    assert xception.spec.image_size == (299, 299)
    assert vgg.spec.layer == "block5_pool"
    assert (vgg.spec.preprocessing, vgg.spec.pooling) == ("keras", "avg")
    assert (vgg.spec.resize, vgg.spec.fit) == ("bilinear", "stretch")


def test_the_same_request_twice_is_one_job(store: Store, bases: Bases, never: Dataset) -> None:
    assert len(resolve_jobs([Request("vgg16"), Request("VGG16")], store, never)) == 1


@pytest.mark.parametrize(
    ("text", "size"), [("150", 150), ("150x200", (150, 200)), ("150X200", (150, 200)), (None, None)]
)
def test_image_sizes_are_read(text: str | None, size: object) -> None:
    assert parse_image_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-3", "150x", "1x2x3", "wide", "1.5", "²"])
def test_what_is_no_image_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no image size"):
        parse_image_size(text)


def test_a_size_below_the_bases_least_is_refused(store: Store, bases: Bases, never: Dataset) -> None:
    with pytest.raises(InputError, match="71"):
        resolve_jobs([Request("xception", image_size=70)], store, never)


def test_an_unknown_layer_is_answered_with_the_nearest(store: Store, bases: Bases, never: Dataset) -> None:
    with pytest.raises(InputError, match="did you mean block4_pool"):
        resolve_jobs([Request("vgg16", layer="block4_pol")], store, never)


def test_an_unknown_precision_is_refused(store: Store, bases: Bases, never: Dataset) -> None:
    with pytest.raises(InputError, match="float64"):
        resolve_jobs([Request("vgg16", precision="float64")], store, never)  # type: ignore[arg-type]


def test_an_unknown_device_is_refused_even_if_nothing_is_to_be_computed(
    store: Store, bases: Bases, never: Dataset
) -> None:
    with pytest.raises(InputError, match="TPU"):
        resolve_jobs([Request("vgg16", device="TPU")], store, never)


@pytest.fixture
def auto(store: Store, bases: Bases, never: Dataset, monkeypatch: pytest.MonkeyPatch) -> Auto:
    """The precision that is chosen for images of these digests, where bfloat16 is the machine's fastest."""
    monkeypatch.setattr(module.machine, "fastest_safe_precision", lambda runtime, device: "bfloat16")
    return lambda keys: resolve_jobs([Request("vgg16")], store, never, digests=keys)[0].spec.precision


def test_auto_precision_is_the_machines_fastest_in_an_empty_store(auto: Auto) -> None:
    assert auto(NONE) == "bfloat16"


def test_auto_precision_is_the_one_that_holds_most_of_the_dataset(store: Store, never: Dataset, auto: Auto) -> None:
    keys = np.random.default_rng(0).integers(0, 256, (10, 32), dtype=np.uint8)
    [job] = resolve_jobs([Request("vgg16", precision="float32")], store, never)
    rows(store, job.spec, keys[:6])
    rows(store, job.spec.but(precision="bfloat16"), keys[6:])
    assert auto(keys) == "float32"
    assert auto(keys[6:]) == "bfloat16"
    assert auto(NONE) == "bfloat16"


def test_auto_never_chooses_int8_whatever_is_stored(store: Store, never: Dataset, auto: Auto) -> None:
    keys = np.random.default_rng(0).integers(0, 256, (3, 32), dtype=np.uint8)
    [job] = resolve_jobs([Request("vgg16", precision="float32")], store, never)
    rows(store, job.spec.but(precision="int8", calibration="ab" * 32), keys)
    assert auto(keys) == "bfloat16"


def test_int8_is_computed_by_openvino_with_the_calibration_of_its_graph(
    store: Store, bases: Bases, never: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(module, "calibration_for", lambda graph, *rest: asked.append(graph) or "ab" * 32)
    [job] = resolve_jobs([Request("vgg16", precision="int8", pooling="max")], store, never, digests=NONE)
    assert (job.runtime, job.spec.precision, job.spec.calibration) == ("openvino", "int8", "ab" * 32)
    assert [(graph.pooling, graph.precision) for graph in asked] == [("map", "float32")]
    with pytest.raises(InputError, match="computed by OpenVINO"):
        resolve_jobs([Request("vgg16", precision="int8", runtime="tensorflow")], store, never, digests=NONE)


def test_auto_precision_that_this_machine_cannot_compute_needs_every_row(
    store: Store, never: Dataset, auto: Auto
) -> None:
    keys = np.random.default_rng(0).integers(0, 256, (10, 32), dtype=np.uint8)
    [job] = resolve_jobs([Request("vgg16", precision="float16")], store, never)
    rows(store, job.spec, keys[:9])
    assert auto(keys[:9]) == "float16"
    assert auto(keys) == "bfloat16"


def test_auto_precision_counts_rows_that_follow_from_a_map(store: Store, never: Dataset, auto: Auto) -> None:
    keys = np.random.default_rng(0).integers(0, 256, (3, 32), dtype=np.uint8)
    [job] = resolve_jobs([Request("vgg16", precision="float32", pooling="map")], store, never)
    rows(store, job.spec, keys)
    assert auto(keys) == "float32"


def test_a_job_for_a_spec_needs_the_weights_of_that_spec(store: Store, bases: Bases, never: Dataset) -> None:
    [job] = resolve_jobs([Request("vgg16", image_size=64)], store, never)
    assert job_for(job.spec, "vgg16").spec == job.spec
    with pytest.raises(InputError, match="not the ones"):
        job_for(job.spec, "vgg16", "random:3")


def test_a_job_for_a_spec_needs_images_that_its_base_takes(store: Store, bases: Bases, never: Dataset) -> None:
    """Before the base is opened, which is after pictures were decoded."""
    [job] = resolve_jobs([Request("xception")], store, never)
    with pytest.raises(InputError, match="too small for xception"):
        job_for(job.spec.but(image_size=(71, 70)), "xception")
