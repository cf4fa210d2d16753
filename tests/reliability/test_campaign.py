"""The campaign itself: it says what it cannot do, and its own deadlines hold."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time

import pytest

from tests.commands import ROOT
from tests.reliability.campaign import deadline


def test_a_file_that_there_is_not_is_an_error_that_names_those_that_there_are() -> None:
    words = [sys.executable, ROOT / "benchmarks" / "reliability.py", "--only", "test_kills", "--only", "TYPO"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no TYPO; there are" in done.stderr
    assert "test_kills" in done.stderr
    assert done.stdout == ""


def test_what_is_larger_than_one_machine_or_its_memory_is_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    campaign = importlib.import_module("reliability").promised()
    names = ("test_elsewhere", "test_on_ray", "test_on_devices", "test_devices", "test_streamed", "test_large")
    assert {*names, "test_parquet"} <= {file.stem for file in campaign}


def test_what_takes_too_long_fails_even_where_errors_are_caught() -> None:
    def hang() -> None:
        try:
            time.sleep(60)
        except Exception:
            time.sleep(60)

    with pytest.raises(pytest.fail.Exception, match="hanging: after"), deadline(0.05, "hanging"):
        hang()
    with deadline(0.05, "nothing"):
        pass
    time.sleep(0.15)
