"""A comparison that is killed or interrupted leaves no process behind, and says no more than it must."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.commands import finish, start
from tests.pictures import class_folders
from tests.waiting import is_alive

SECONDS = 120


@pytest.fixture
def comparing(tmp_path: Path, shared_cache: Path) -> subprocess.Popen[str]:
    photos = class_folders(tmp_path / "photos")
    small = ("--weights", "random:0", "--image-size", "32", "--precision", "float32", "--scratch-epochs", "1000")
    return start(
        "compare", photos, *small, "--out", tmp_path / "out", env={"XDG_CACHE_HOME": shared_cache}, own_group=True
    )


def worker_of(process: subprocess.Popen[str]) -> int:
    """The process of the way that is being run, once there is one."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until and process.poll() is None:
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        time.sleep(0.05)
    pytest.fail(f"no way was run: {finish(process).err}")


def gone(pid: int) -> bool:
    until = time.monotonic() + SECONDS
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return not is_alive(pid)


def test_no_process_outlives_a_comparison_that_was_killed(comparing: subprocess.Popen[str]) -> None:
    worker = worker_of(comparing)
    time.sleep(2)  # well into it
    comparing.kill()
    finish(comparing)
    assert gone(worker)


def test_ctrl_c_ends_a_comparison_in_one_sentence(comparing: subprocess.Popen[str]) -> None:
    worker = worker_of(comparing)
    time.sleep(2)
    os.killpg(comparing.pid, signal.SIGINT)
    done = finish(comparing)
    assert done.code == 130, done.err
    assert "Traceback" not in done.err, done.err
    assert gone(worker)


def test_an_interrupt_of_the_comparison_alone_ends_its_worker_too(comparing: subprocess.Popen[str]) -> None:
    worker = worker_of(comparing)  # at once: it is still importing
    comparing.send_signal(signal.SIGINT)
    done = finish(comparing)
    assert done.code == 130, done.err
    assert "Traceback" not in done.err, done.err
    assert gone(worker)
