"""Streams that a process was started with and that are closed or full, as daemons, cron and full disks have them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT
from tests.pictures import class_folders


def in_shell(redirections: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``featstore ARGUMENTS`` with streams that a shell has closed or led elsewhere."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-m", "featstore", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=100)


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_fault(closed: str) -> None:
    done = in_shell(closed, "store", "ls")
    told = "" if ">&-" in closed.split() else "this store holds nothing yet: featstore extract DATA --backbone vgg16\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, told, "")


@pytest.mark.parametrize("lost", ["2>&-", "2>/dev/full"])
def test_with_stderr_lost_stdout_has_the_json_alone(lost: str) -> None:
    done = in_shell(lost, "store", "ls", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"namespaces": []})


@pytest.mark.parametrize("lost", ["2>&-", "2>/dev/full"])
def test_a_failure_that_cannot_be_told_keeps_its_exit_code(lost: str) -> None:
    done = in_shell(lost, "extract", "no-such-folder", "--json")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_a_log_on_a_full_disk_ends_nothing(tmp_path: Path) -> None:
    photos = class_folders(tmp_path / "photos", count=1)
    done = in_shell("2>/dev/full", "extract", str(photos), "--weights", "random:0", "--image-size", "32", "--json")
    assert (done.returncode, json.loads(done.stdout)["specs"][0]["computed"]) == (0, 6)


def test_results_on_a_full_disk_are_an_error_that_says_so() -> None:
    done = in_shell(">/dev/full", "store", "ls")
    assert done.returncode == 4
    assert "No space left on device" in done.stderr


def test_a_file_never_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    (tmp_path / "cli.py").write_text("def app(prog_name): print(open(__file__).fileno() > 2)")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    code = "from featstore.__main__ import main; main()"
    command = ["sh", "-c", 'exec "$@" <&- 2>&-', "sh", sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env, timeout=50)
    assert (done.returncode, done.stdout) == (0, "True\n")
