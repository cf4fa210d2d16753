from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featstore import machine
from featstore.errors import InputError, NoSpaceError
from featstore.runtime import GraphSpec, graph_files, openvino
from featstore.runtime.openvino import OpenVinoRuntime
from featstore.spec import Precision
from featstore.weights import resolve


@pytest.fixture
def graph(private_cache: Path, tiny_file: Path) -> GraphSpec:
    return GraphSpec(resolve(str(tiny_file)), "second", (40, 48), "rescale", "avg", "float32")


@pytest.fixture
def never_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "_convert", lambda graph: pytest.fail("the graph was converted again"))


def _cached(private_cache: Path) -> Path:
    (folder,) = (private_cache / "graphs").iterdir()
    return folder


def test_a_graph_is_converted_once(
    graph: GraphSpec, images: np.ndarray, monkeypatch: pytest.MonkeyPatch, private_cache: Path
) -> None:
    first = OpenVinoRuntime(graph)(images)
    monkeypatch.setattr(openvino, "_convert", lambda graph: pytest.fail("the graph was converted again"))
    assert np.array_equal(OpenVinoRuntime(graph)(images), first)
    assert sorted(p.name for p in _cached(private_cache).iterdir()) == ["graph.bin", "graph.json", "graph.xml"]


def test_a_cold_run_with_a_cached_graph_loads_neither_keras_nor_tensorflow(graph: GraphSpec, tiny_file: Path) -> None:
    OpenVinoRuntime(graph)
    code = f"""
import sys, numpy as np
from featstore.runtime import GraphSpec, open_runtime
from featstore.weights import resolve
graph = GraphSpec(resolve({str(tiny_file)!r}), "second", (40, 48), "rescale", "avg", "float32")
print(open_runtime(graph, "openvino")(np.zeros((2, 40, 48, 3), np.uint8)).shape)
print({{"keras", "tensorflow", "h5py"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(2, 8)", "set()"]


@pytest.mark.parametrize("name", ["graph.bin", "graph.xml", "graph.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_graph_is_converted_again(
    name: str, damage: str, graph: GraphSpec, images: np.ndarray, private_cache: Path
) -> None:
    expected = OpenVinoRuntime(graph)(images)
    path = _cached(private_cache) / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 0x20
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
    assert graph_files.read_graph(_cached(private_cache)) is None
    assert np.array_equal(OpenVinoRuntime(graph)(images), expected)
    assert graph_files.read_graph(_cached(private_cache)) is not None


def test_another_version_of_a_library_means_another_graph(
    graph: GraphSpec, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    OpenVinoRuntime(graph)
    monkeypatch.setattr(openvino, "installed_versions", lambda: {"openvino": "9"})
    OpenVinoRuntime(graph)
    assert len(list((private_cache / "graphs").iterdir())) == 2


def test_what_a_killed_run_left_a_day_ago_is_swept(graph: GraphSpec, private_cache: Path) -> None:
    old, young = (private_cache / "graphs" / name for name in (".tmp-old", ".tmp-young"))
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "graph.bin").write_bytes(b"half")
    os.utime(old, times=(time.time() - 90_000,) * 2)
    OpenVinoRuntime(graph)
    assert not old.exists()
    assert young.exists()


@pytest.mark.parametrize("failing", ["mkdtemp", "save_model", "replace"])
def test_a_cache_that_cannot_be_written_does_not_stop_the_run(
    failing: str, graph: GraphSpec, images: np.ndarray, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = {"mkdtemp": graph_files.tempfile, "save_model": openvino.openvino, "replace": graph_files.os}[failing]
    real = getattr(owner, failing)

    def fail(*args: object, **options: object) -> object:
        if failing == "mkdtemp" and "dir" not in options:  # the system's own temporary folder
            return real(*args, **options)
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(owner, failing, fail)
    assert OpenVinoRuntime(graph)(images).shape == (5, 8)
    assert list((private_cache / "graphs").iterdir()) == []


def test_a_full_temporary_folder_is_one_message(
    graph: GraphSpec, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> object:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(openvino.tempfile, "mkdtemp", fail)
    with pytest.raises(NoSpaceError, match="cannot convert the base"):
        OpenVinoRuntime(graph)


def test_converting_tells_nobody(tmp_path: Path, tiny_file: Path) -> None:
    """OpenVINO by itself reports imports and conversions over the network, whatever FEATSTORE_OFFLINE says."""
    code = (
        "from featstore.runtime import GraphSpec, open_runtime; from featstore.weights import resolve;"
        f"base = resolve({str(tiny_file)!r});"
        "open_runtime(GraphSpec(base, 'second', (40, 48), 'none', 'avg', 'float32'), 'openvino');"
        "import sys; print([m for m in sys.modules if m.startswith('openvino_telemetry.')], end='')"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (0, "[]"), done.stderr
    assert not (tmp_path / "intel").exists()


@pytest.mark.parametrize(("gpus", "advice"), [((), "leave --device out"), (("a GPU",), "use --runtime tensorflow")])
def test_another_runtime_is_advised_only_where_it_has_a_gpu(
    gpus: tuple[str, ...], advice: str, graph: GraphSpec, never_converted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = replace(machine.describe(), gpus=gpus)
    monkeypatch.setattr(machine, "describe", lambda: here)
    with pytest.raises(InputError) as caught:
        OpenVinoRuntime(graph, "GPU")
    assert advice in str(caught.value)
    assert ("tensorflow" in str(caught.value)) == bool(gpus)


def test_float16_is_refused_before_any_work(graph: GraphSpec, never_converted: None) -> None:
    half = GraphSpec(graph.base, "second", (40, 48), "rescale", "avg", "float16")
    with pytest.raises(InputError, match="float32 or bfloat16"):
        OpenVinoRuntime(half)


def test_a_precision_that_the_cpu_does_not_grant_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Granted:
        def get_property(self, name: str) -> object:
            return type("Type", (), {"get_type_name": lambda self: "f32"})()

    monkeypatch.setattr(openvino.openvino, "Core", lambda: type("Core", (), {"compile_model": lambda *_: Granted()})())
    with pytest.raises(InputError, match="cannot compute in bfloat16"):
        openvino._compile(openvino.openvino.Model, "bfloat16", 1)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_row_does_not_depend_on_the_size_of_the_batch(
    graph: GraphSpec, images: np.ndarray, precision: Precision
) -> None:
    graph = replace(graph, precision=precision)
    try:
        whole = OpenVinoRuntime(graph)(images)
    except InputError:
        pytest.skip(f"this CPU does not compute in {precision}")
    for size in (1, 8):
        small = OpenVinoRuntime(graph, batch_size=size)
        pieces = [small(images[start : start + size]) for start in range(0, len(images), size)]
        assert np.concatenate(pieces).tobytes() == whole.tobytes()
