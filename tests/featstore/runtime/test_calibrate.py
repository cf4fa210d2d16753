from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featstore.cached import pool
from featstore.calibration import find_calibration
from featstore.errors import InputError, StorageError
from featstore.runtime import BATCH_SIZE, GraphSpec, calibrate, open_runtime, openvino
from featstore.weights import resolve

KEY = "ab" * 32


@pytest.fixture
def graph(private_cache: Path, tiny_file: Path) -> GraphSpec:
    return GraphSpec(resolve(str(tiny_file)), "second", (40, 48), "rescale", "map", "float32")


@pytest.fixture
def many() -> np.ndarray:
    """40 pictures of soft blobs: noise has no ranges worth the name."""
    coarse = np.random.default_rng(3).integers(0, 256, (40, 5, 6, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def int8(graph: GraphSpec, digest: str, pooling: str = "map") -> GraphSpec:
    return replace(graph, precision="int8", calibration=digest, pooling=pooling)


def test_features_are_close_to_those_of_float32_and_of_every_pooling(graph: GraphSpec, many: np.ndarray) -> None:
    digest = calibrate.calibrate(graph, KEY, many, {})
    rows = {p: open_runtime(int8(graph, digest, p))(many[:BATCH_SIZE]) for p in ("map", "avg", "max")}
    exact = open_runtime(graph)(many[:BATCH_SIZE])
    cosine = (rows["map"] * exact).sum() / np.linalg.norm(rows["map"]) / np.linalg.norm(exact)
    assert 0.99 < cosine < 1
    for pooling in ("avg", "max"):
        np.testing.assert_allclose(rows[pooling], pool(rows["map"], pooling), rtol=1e-5, atol=1e-6)


def test_a_row_does_not_depend_on_its_batch(graph: GraphSpec, many: np.ndarray) -> None:
    opened = open_runtime(int8(graph, calibrate.calibrate(graph, KEY, many, {}), "avg"))
    together = opened(many[:BATCH_SIZE])
    for row in (0, 17, 31):
        np.testing.assert_array_equal(opened(many[row : row + 1])[0], together[row])


def test_the_same_images_give_the_same_digest_in_another_process_and_nothing_is_said(
    graph: GraphSpec, many: np.ndarray, tiny_file: Path, tmp_path: Path, private_cache: Path
) -> None:
    digest = calibrate.calibrate(graph, KEY, many, {})
    np.save(tmp_path / "many.npy", many)
    code = f"""
import numpy as np
from featstore.runtime import GraphSpec, calibrate
from featstore.weights import resolve
graph = GraphSpec(resolve({str(tiny_file)!r}), "second", (40, 48), "rescale", "map", "float32")
digest = calibrate.calibrate(graph, {KEY!r}, np.load({str(tmp_path / "many.npy")!r}), {{}})
print(digest)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [digest]
    assert [path.name for path in (private_cache / "calibrated").iterdir()] == [digest]


def test_other_images_give_another_digest(graph: GraphSpec, many: np.ndarray) -> None:
    assert calibrate.calibrate(graph, KEY, many, {}) != calibrate.calibrate(graph, KEY, many // 4, {})


def test_the_first_of_several_is_found_again_and_its_images_are_noted(
    graph: GraphSpec, many: np.ndarray, private_cache: Path
) -> None:
    assert find_calibration(KEY) is None
    first = calibrate.calibrate(graph, KEY, many, {"images": ["1", "2"]})
    calibrate.calibrate(graph, KEY, many // 4, {})
    assert find_calibration(KEY) == first
    assert find_calibration("cd" * 32) is None
    card = json.loads((private_cache / "calibrated" / first / "graph.json").read_text())
    assert card["images"] == ["1", "2"]
    assert "nncf" in card["versions"]


@pytest.mark.parametrize("name", ["graph.bin", "graph.xml", "graph.json"])
def test_a_damaged_graph_is_not_used_and_calibrating_mends_it(
    name: str, graph: GraphSpec, many: np.ndarray, private_cache: Path
) -> None:
    digest = calibrate.calibrate(graph, KEY, many, {})
    path = private_cache / "calibrated" / digest / name
    path.write_bytes(path.read_bytes()[:-20])
    assert find_calibration(KEY) is None
    with pytest.raises(InputError, match="the calibrated graph of these int8 features is not here"):
        open_runtime(int8(graph, digest))
    assert calibrate.calibrate(graph, KEY, many, {}) == digest
    assert find_calibration(KEY) == digest


def test_without_nncf_it_is_named(graph: GraphSpec, many: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="NNCF, which is not installed") as refused:
        calibrate.calibrate(graph, KEY, many, {})
    assert refused.value.todo == "pip install nncf"


def test_a_graph_that_cannot_be_kept_is_an_error_for_its_rows_would_be_orphans(
    graph: GraphSpec, many: np.ndarray, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_runtime(graph)  # converted and kept

    def fail(*given: object, **options: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(openvino.openvino, "save_model", fail)
    with pytest.raises(StorageError, match="cannot be kept"):
        calibrate.calibrate(graph, KEY, many, {})
    assert list((private_cache / "calibrated").iterdir()) == []


def test_tensorflow_does_not_compute_in_int8(graph: GraphSpec) -> None:
    with pytest.raises(InputError, match="computed by OpenVINO"):
        open_runtime(int8(graph, KEY), "tensorflow")
