"""What this machine can do, found out without loading TensorFlow or OpenVINO."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from featstore.errors import InputError, unknown_name
from featstore.spec import Precision

RUNTIMES = ("openvino", "tensorflow")
LARGE_SHARE = 8
_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


@dataclass(frozen=True, slots=True)
class Machine:
    """A CPU with the cores that this process may use, its memory in bytes (0: unknown), GPUs, and installed runtimes.

    ``flags`` are those that the CPU has of the ones that decide how fast it computes, by their names in /proc/cpuinfo.
    """

    cpu: str
    cores: int
    flags: tuple[str, ...]
    memory: int
    gpus: tuple[str, ...]
    runtimes: tuple[str, ...]


@cache
def describe() -> Machine:
    """The machine that this process runs on; looked at once."""
    name, flags = _cpu()
    return Machine(
        cpu=name,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        flags=tuple(flag for flag in _FLAGS if flag in flags),
        memory=_memory(),
        gpus=_gpus(),
        runtimes=tuple(name for name in RUNTIMES if importlib.util.find_spec(name) is not None),
    )


def is_large(count: int) -> bool:
    """Whether so many bytes are more than an eighth of this machine's memory: too many to hold beside all else."""
    memory = describe().memory
    return bool(memory) and count > memory // LARGE_SHARE


def peak_memory() -> int:
    """The most bytes that this process has held.

    Where /proc tells it, without what the process that started it had held: getrusage counts that as well.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        [kilobytes] = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
        return int(kilobytes) * 1024
    except (OSError, ValueError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def choose_runtime(name: str = "auto", precision: str = "auto") -> str:
    """The runtime for ``name``: "auto" is TensorFlow where there is a GPU, else OpenVINO, else TensorFlow.

    Only OpenVINO computes in the ``precision`` "int8". Raises InputError if the runtime is unknown or not installed.
    """
    machine = describe()
    if name not in ("auto", *RUNTIMES):
        raise InputError(
            f"unknown runtime {name!r}", where="--runtime", expected=f"auto, {', '.join(RUNTIMES)}", received=name
        )
    if name == "auto":
        preferred = ("tensorflow", "openvino") if machine.gpus and precision != "int8" else RUNTIMES
        name = next((runtime for runtime in preferred if runtime in machine.runtimes), RUNTIMES[0])
    if name not in machine.runtimes:
        raise InputError(
            f"the runtime {name} is not installed",
            where="--runtime",
            expected="one of " + (", ".join(machine.runtimes) or "none"),
            received=name,
            todo=f"pip install {name}",
        )
    return name


def check_device(device: str | None) -> None:
    """Raise InputError unless ``device`` is None, "cpu", "gpu" or "gpu:N", in any case.

    Whether this machine has it is found out when a runtime is opened.
    """
    if device is not None and not re.fullmatch(r"cpu|gpu(:[0-9]+)?", device.lower()):
        raise unknown_name("device", device, ("cpu", "gpu", "gpu:0"), "--device")


def gpus_named(devices: str) -> tuple[int, ...]:
    """The numbers of the GPUs that ``--devices`` names: "all", how many ("2"), or a list of them ("0,2").

    Raises InputError if it names none, or one that this machine does not have.
    """
    count = len(describe().gpus)
    if not count:
        raise InputError(
            "there is no GPU to share the work out to",
            where=f"--devices {devices}",
            expected="GPUs that nvidia-smi lists and $CUDA_VISIBLE_DEVICES does not hide",
            received="none",
            todo="leave the option out: one process computes on all cores of the CPU",
        )
    if devices.lower() == "all":
        return tuple(range(count))
    listed = [int(word) for word in devices.split(",")] if re.fullmatch(r"[0-9]{1,4}(,[0-9]{1,4})*", devices) else []
    if len(listed) == 1:
        listed = list(range(listed[0]))
    if not listed or len(set(listed)) < len(listed) or max(listed) >= count:
        raise InputError(
            "these GPUs are not to be had",
            where="--devices",
            expected=f"all, how many (1 to {count}), or a list of some of 0 to {count - 1}, each once",
            received=devices,
            todo="one alone is named by --device, as gpu:0",
        )
    return tuple(listed)


def gpu_id(number: int) -> str:
    """What ``$CUDA_VISIBLE_DEVICES`` is where GPU ``number`` of those that are visible here is the only one."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return str(number) if visible is None else visible.split(",")[number].strip()


def fastest_safe_precision(runtime: str, device: str | None = None) -> Precision:
    """The fastest precision whose features are as good as float32's here.

    ``runtime`` is "openvino" or "tensorflow", ``device`` what was asked for (None: a GPU if there is one).
    """
    machine = describe()
    if runtime == "tensorflow" and machine.gpus and (device or "gpu").lower() != "cpu":
        return "float16"
    return "bfloat16" if {"avx512_bf16", "amx_bf16"} & set(machine.flags) else "float32"


def _cpu() -> tuple[str, frozenset[str]]:
    """The CPU's name and its instruction flags as Linux spells them; no flags where they cannot be read."""
    name, flags = platform.processor() or platform.machine(), frozenset[str]()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return name, flags
    pairs = (line.partition(":") for line in reversed(lines))
    facts = {key.strip(): value.strip() for key, _, value in pairs}
    return facts.get("model name", name), frozenset(facts.get("flags", "").split())


def _memory() -> int:
    """What the machine has, or what a container or a service manager leaves of it, if that is less."""
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        there = 0
    return min([limit for limit in (there, *_memory_limits()) if limit], default=0)


def _memory_limits(own: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """The limits of this process's control groups, of Linux (version 2 and 1): its own, and those of the groups above.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
    """
    try:
        lines = own.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, name = (groups / "memory", "memory.limit_in_bytes") if controllers else (groups, "memory.max")
        inside = PurePosixPath(place.lstrip("/"))
        for folder in (inside, *inside.parents):  # in a container its own group is the root
            try:
                yield int((root / folder / name).read_text(encoding="ascii"))
            except (OSError, ValueError):  # none there, or "max"
                continue


def _gpus() -> tuple[str, ...]:
    """The names of NVIDIA GPUs that ``$CUDA_VISIBLE_DEVICES`` leaves visible; on Macs Apple's own with its plugin."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in ("", "-1"):
        return ()
    if sys.platform == "darwin":
        return ("Apple GPU",) if importlib.util.find_spec("tensorflow-plugins") else ()
    query = shutil.which("nvidia-smi")
    if query is None:
        return ()
    try:
        command = [query, "--query-gpu=name", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    names = [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []
    return tuple(names if visible is None else _left_visible(names, visible.split(",")))


def _left_visible(names: Sequence[str], visible: Sequence[str]) -> Iterator[str]:
    """As CUDA does it: by number or by UUID, up to the first that is neither."""
    for word in map(str.strip, visible):
        if word.isdecimal() and int(word) < len(names):
            yield names[int(word)]
        elif names and word.startswith(("GPU-", "MIG-")):
            yield names[0] if len(set(names)) == 1 else "GPU"
        else:
            return
