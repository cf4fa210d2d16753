from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from featstore import machine
from featstore.errors import InputError


@pytest.fixture
def cpu_only(monkeypatch: pytest.MonkeyPatch) -> machine.Machine:
    plain = machine.Machine("a CPU", 2, (), 8 << 30, (), ("openvino", "tensorflow"))
    monkeypatch.setattr(machine, "describe", lambda: plain)
    return plain


def _change(monkeypatch: pytest.MonkeyPatch, plain: machine.Machine, **changes: object) -> None:
    changed = replace(plain, **changes)  # type: ignore[arg-type]
    monkeypatch.setattr(machine, "describe", lambda: changed)


@pytest.mark.parametrize(
    ("own", "files", "limits"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "4096\n"}, [4096]),
        ("0::/a/b\n", {"memory.max": "1024\n"}, [1024]),  # in a container, whose own group is the root
        ("2:cpu,memory:/x\n0::/\n", {"memory/x/memory.limit_in_bytes": "77\n"}, [77]),
        ("1:cpu:/x\n", {"memory.max": "5\n"}, []),
        ("0::/\n", {}, []),
    ],
)
def test_the_memory_of_a_container_is_what_its_control_groups_leave(
    own: str, files: dict[str, str], limits: list[int], tmp_path: Path
) -> None:
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        file = tmp_path / "groups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert list(machine._memory_limits(tmp_path / "own", tmp_path / "groups")) == limits


def test_the_least_limit_is_the_memory_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    there = machine._memory()
    assert there > 2**30
    monkeypatch.setattr(machine, "_memory_limits", lambda: iter([2**62, 2**20]))
    assert machine._memory() == 2**20


def test_more_than_an_eighth_of_the_memory_is_large_and_of_unknown_memory_nothing_is(
    cpu_only: machine.Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not machine.is_large(1 << 30)
    assert machine.is_large((1 << 30) + 1)
    _change(monkeypatch, cpu_only, memory=0)
    assert not machine.is_large(1 << 60)


def test_the_peak_of_a_process_is_its_own_and_not_that_of_its_parent() -> None:
    large = bytearray(400 << 20)
    large[:: 1 << 12] = b"x" * len(large[:: 1 << 12])
    assert machine.peak_memory() > 400 << 20
    code = "from featstore import machine; print(machine.peak_memory())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 10 << 20 < int(child.stdout) < 300 << 20


def test_this_machine_is_described_within_reason() -> None:
    here = machine.describe()
    assert here.cores >= 1
    assert here.cpu
    assert set(here.runtimes) <= set(machine.RUNTIMES)


def test_openvino_is_chosen_on_a_cpu(cpu_only: machine.Machine) -> None:
    assert machine.choose_runtime() == "openvino"


def test_tensorflow_is_chosen_where_there_is_a_gpu(cpu_only: machine.Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    _change(monkeypatch, cpu_only, gpus=("GPU",))
    assert machine.choose_runtime() == "tensorflow"
    assert machine.fastest_safe_precision("tensorflow") == "float16"


def test_tensorflow_is_chosen_where_openvino_is_missing(
    cpu_only: machine.Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _change(monkeypatch, cpu_only, runtimes=("tensorflow",))
    assert machine.choose_runtime("auto") == "tensorflow"


def test_a_runtime_that_is_not_installed_is_an_input_error(
    cpu_only: machine.Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _change(monkeypatch, cpu_only, runtimes=("tensorflow",))
    with pytest.raises(InputError, match="pip install openvino"):
        machine.choose_runtime("openvino")


def test_an_unknown_runtime_is_an_input_error(cpu_only: machine.Machine) -> None:
    with pytest.raises(InputError, match="unknown runtime 'onnx'"):
        machine.choose_runtime("onnx")


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_bfloat16_is_chosen_on_cpus_that_have_it(
    flag: str, cpu_only: machine.Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _change(monkeypatch, cpu_only, flags=("avx2", flag))
    assert machine.fastest_safe_precision("openvino") == "bfloat16"


def test_float32_is_chosen_elsewhere(cpu_only: machine.Machine) -> None:
    assert machine.fastest_safe_precision("openvino") == "float32"
    assert machine.fastest_safe_precision("tensorflow") == "float32"


@pytest.mark.parametrize("device", [None, "cpu", "CPU", "gpu", "GPU", "gpu:0", "Gpu:11"])
def test_every_name_of_a_device_passes_whether_it_is_here_or_not(device: str | None, cpu_only: machine.Machine) -> None:
    machine.check_device(device)


@pytest.mark.parametrize("device", ["TPU", "gpu:", "gpu:x", "gpu:-1", "cpu:0", "cuda", "", "cpu ", "gpu:٣"])
def test_what_is_no_name_of_a_device_is_an_input_error(device: str) -> None:
    with pytest.raises(InputError, match="one of cpu, gpu") as caught:
        machine.check_device(device)
    assert caught.value.where == "--device"


def test_hidden_gpus_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert machine._gpus() == ()


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ("A", "B", "C")),
        ("2,0", ("C", "A")),
        ("1", ("B",)),
        ("0,3,1", ("A",)),
        ("0, -1, 1", ("A",)),
        ("GPU-5f2e,2", ("GPU", "C")),
        ("none", ()),
    ],
)
def test_gpus_are_those_that_cuda_is_left_in_that_order(
    visible: str | None, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(machine.sys, "platform", "linux")
    monkeypatch.setattr(machine.shutil, "which", lambda _: "nvidia-smi")
    found = subprocess.CompletedProcess([], 0, stdout="A\nB\nC\n")
    monkeypatch.setattr(machine.subprocess, "run", lambda *given, **named: found)
    assert machine._gpus() == expected


def test_a_gpu_is_shown_alone_by_the_name_that_cuda_knows_it_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [machine.gpu_id(number) for number in (0, 3)] == ["0", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-5f2e")
    assert [machine.gpu_id(number) for number in (0, 1)] == ["2", "GPU-5f2e"]


@pytest.mark.parametrize(
    ("devices", "expected"), [("all", (0, 1, 2)), ("ALL", (0, 1, 2)), ("2", (0, 1)), ("2,0", (2, 0)), ("3", (0, 1, 2))]
)
def test_several_gpus_are_all_so_many_or_a_list(
    devices: str, expected: tuple[int, ...], cpu_only: machine.Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _change(monkeypatch, cpu_only, gpus=("GPU",) * 3)
    assert machine.gpus_named(devices) == expected


@pytest.mark.parametrize("devices", ["0", "4", "0,3", "1,1", "0,", "gpu:1", "two", "", "-1", "٣"])
def test_gpus_that_are_not_there_are_an_input_error(
    devices: str, cpu_only: machine.Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _change(monkeypatch, cpu_only, gpus=("GPU",) * 3)
    with pytest.raises(InputError, match=r"1 to 3\), or a list of some of 0 to 2") as caught:
        machine.gpus_named(devices)
    assert caught.value.received == devices


@pytest.mark.parametrize("devices", ["all", "2", "0,1"])
def test_without_a_gpu_there_is_nothing_to_share_out(devices: str, cpu_only: machine.Machine) -> None:
    with pytest.raises(InputError, match="no GPU to share"):
        machine.gpus_named(devices)


def test_a_broken_nvidia_smi_means_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machine.shutil, "which", lambda _: "nvidia-smi")

    def run(*args: object, **options: object) -> None:
        raise OSError("gone")

    monkeypatch.setattr(machine.subprocess, "run", run)
    assert machine._gpus() == ()


def test_looking_at_the_machine_loads_no_heavy_library() -> None:
    code = (
        "import sys; from featstore import machine; machine.describe(); machine.choose_runtime();"
        "print({'keras', 'tensorflow', 'openvino'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
