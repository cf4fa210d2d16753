"""Training that several devices share; two logical CPUs stand for two GPUs (:mod:`tests.heads.live.on_devices`)."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from featstore import machine
from featstore.errors import InputError
from heads.live import run as run_module
from heads.live.plan import LiveOptions, LivePlan
from tests.commands import ROOT, run
from tests.pictures import class_folders
from tests.reliability.campaign import takes_long


def _run(*words: object) -> None:
    command = [sys.executable, "-m", "tests.heads.live.on_devices", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.strip() == "the same", done.stderr
    assert "INFO" not in done.stderr


@takes_long
def test_two_devices_share_every_batch_and_learn_what_one_learns(tmp_path: Path) -> None:
    _run("small", tmp_path)


@takes_long
@pytest.mark.parametrize("what", ["stopped", "whole"])
def test_a_checkpoint_and_a_whole_live_run_are_those_of_one_device(what: str, tmp_path: Path) -> None:
    _run(what, tmp_path)


def test_a_batch_that_cannot_be_shared_evenly_is_refused() -> None:
    assert LiveOptions(33, devices=("GPU:0", "GPU:1", "GPU:2")).batch_size == 33
    with pytest.raises(InputError, match="take 33"):
        LiveOptions(32, devices=("GPU:0", "GPU:1", "GPU:2"))


def test_the_command_trains_on_the_gpus_that_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, asked = machine.describe(), list[LivePlan]()

    def train(dataset: object, plan: LivePlan, **_: Any) -> None:
        asked.append(plan)
        raise InputError("no more of it")

    monkeypatch.setattr(run_module, "train_live", train)
    words = ("live", class_folders(tmp_path / "photos"), "--devices", "all")
    assert "no GPU to share the work out to" in run(*words).message
    monkeypatch.setattr(machine, "describe", lambda: replace(here, gpus=("GPU",) * 2))
    assert "no more of it" in run(*words).message
    assert run(*words[:2]).code == 2
    assert [plan.options.devices for plan in asked] == [("GPU:0", "GPU:1"), ()]
    assert asked[0].request.runtime == "tensorflow"
    assert "do not go together" in run(*words, "--runtime", "openvino").message
