"""How much memory something takes, for tests of what is refused before memory is taken for it."""

from __future__ import annotations

import subprocess
import sys

from tests.commands import ROOT


def mib_taken_by(prepare: str, work: str, *words: object) -> float:
    """By how many MiB the peak of a process grows that runs ``prepare`` and then ``work``; ``words`` are argv[1:]."""
    code = f"""
from featstore.machine import peak_memory
{prepare}
before = peak_memory()
{work}
print((peak_memory() - before) / 2**20)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout.split()[-1])
