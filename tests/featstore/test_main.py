from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT

BEGIN = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background has it ignored
from featstore.__main__ import main
main()
"""

WHILE_IT_IS_IMPORTED = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
BEFORE_A_COMMAND_HAS_BEGUN = "def app(prog_name): raise KeyboardInterrupt"


@pytest.mark.parametrize(
    ("command_line", "code"), [(WHILE_IT_IS_IMPORTED, -signal.SIGINT), (BEFORE_A_COMMAND_HAS_BEGUN, 130)]
)
def test_an_interrupt_is_quiet_from_the_start(command_line: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "cli.py").write_text(command_line)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", BEGIN], cwd=tmp_path, capture_output=True, text=True, env=env, timeout=50
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_the_package_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "featstore", "frob"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "Usage: featstore " in done.stderr
    assert "No such command 'frob'" in done.stderr
