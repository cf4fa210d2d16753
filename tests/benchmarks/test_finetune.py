"""The benchmark of fine-tuning on stored maps: both of its sides compute the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.reliability.campaign import takes_long


@pytest.mark.real
@takes_long
@pytest.mark.usefixtures("linked_cache")
def test_both_sides_have_the_same_losses(few_photographs: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "finetune.py", few_photographs, "--epochs", "2", "--views", "2",
         "--batch-size", "16", "--images", "16", "--json"],
        capture_output=True, text=True, check=False, env=os.environ, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout)["rows"]
    assert row["same_result"]
    ours, baseline = row["losses"]
    np.testing.assert_allclose(ours, baseline, atol=1e-3)
    assert ours[0] != ours[1]
