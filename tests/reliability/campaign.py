"""How much a campaign tries: a quick seeded part in every run of the tests, all of it when it is asked for.

    python benchmarks/reliability.py [--save]

runs everything and keeps the figures that docs/RELIABILITY.md shows.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.commands import ROOT

FULL = os.environ.get("FEATSTORE_RELIABILITY") == "full"
"""Whether the whole campaign was asked for."""

takes_long = pytest.mark.skipif(not FULL, reason="it takes long; FEATSTORE_RELIABILITY=full runs it")
"""Marks a test of which others, that run every time, show most."""


def amount(quick: int, full: int) -> int:
    """How many to try."""
    return full if FULL else quick


def machine_settings(examples: int, steps: int) -> settings:
    """Of a state machine of hypothesis: so many runs of so many steps, the same every time, however long they take."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )


def run_machine(
    machine: type[RuleBasedStateMachine], happened: Counter[str], names: Sequence[str], examples: int, steps: int
) -> None:
    """Run a state machine of hypothesis, and once or twice more with more examples until all of ``names`` happened:
    runs in which nothing happens prove nothing.
    """
    for more in (1, 2, 4):
        happened.clear()
        run_state_machine_as_test(machine, settings=machine_settings(more * examples, steps))
        missing = [name for name in names if not happened[name]]
        if not missing:
            break
    print(dict(happened))
    assert missing == [], f"never happened: {happened}"


@contextmanager
def deadline(seconds: float, what: str) -> Iterator[None]:
    """A block that takes longer fails: it hangs. What no signal ends ends with the process, and all its tests."""

    def fail(*_: object) -> None:
        pytest.fail(f"{what}: after {seconds} s it is not done")  # no Exception: nothing of ours catches it

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(2 * seconds, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


class Figures:
    """What a campaign tried, for docs/RELIABILITY.md: lines of JSON in a file that ``benchmarks/reliability.py`` names.

    A promise that does not hold fails its test; so what is written down here held.
    """

    def __init__(self, test: str) -> None:
        self._test = test
        self._started = time.monotonic()
        self._file = os.environ.get("FEATSTORE_RELIABILITY_FIGURES")

    def keep(self, tried: str, **counts: float | int | str) -> None:
        """Keep one line: what was tried, and how often, and what came of it."""
        print(tried, counts)
        if self._file is None:
            return
        line = {
            "test": self._test,
            "tried": tried,
            "counts": counts,
            "seconds": round(time.monotonic() - self._started),
        }
        with Path(self._file).open("a") as file:
            file.write(json.dumps(line) + "\n")


def shards(count: int, parts: int) -> Iterator[range]:
    """``range(count)`` in so many parts, for tests that run side by side."""
    for part in range(parts):
        yield range(part, count, parts)


SMALL = ("--image-size", "32")
"""Options of an extraction that costs little to decode."""


def has_lines(file: Path) -> bool:
    """Whether something is in a file that a program writes, such as $REPORTED."""
    return file.exists() and file.stat().st_size > 0


PROGRAM = (sys.executable, "-m", "tests.reliability.program")
"""featstore with a stub base: see program.py."""


def program_environment() -> dict[str, str]:
    """What that program needs: where it is, and the same digests of stub bases in every process."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}


def start_program(*words: object, env: Mapping[str, object] | None = None) -> subprocess.Popen[str]:
    """Start ``featstore WORDS`` with a stub base (see program.py), as the leader of a group of its own."""
    return subprocess.Popen(
        [*PROGRAM, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={
            **program_environment(),
            **{name: str(value) for name, value in (env or {}).items()},
        },
    )
