"""The command line as tests use it: inside this process, or as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

import cli

ROOT = Path(__file__).parent.parent

_PROGRAM = """
import atexit, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background has it ignored
networks = {"tensorflow", "keras", "openvino"}
atexit.register(lambda: print("LOADED", *sorted(networks & set(sys.modules)), file=sys.stderr))
sys.argv = ["featstore", *sys.argv[1:]]
from cli import app
app()
"""


@dataclass(frozen=True)
class Done:
    """A command that has ended. ``loaded`` is known of a process of its own: the network libraries it imported."""

    code: int
    out: str
    err: str
    loaded: tuple[str, ...] | None = None

    @property
    def json(self) -> dict[str, Any]:
        """What was printed on stdout: one JSON object, and nothing else."""
        value = json.loads(self.out)
        assert isinstance(value, dict), self.out
        return value

    @property
    def message(self) -> str:
        """The one message of a command that failed as expected: the end of stderr, without "featstore: "."""
        before, *messages = f"\n{self.err}".split("\nfeatstore: ")
        assert len(messages) == 1, self.err
        assert "Traceback" not in self.err, self.err
        assert "a fault in featstore itself" not in self.err, self.err
        assert self.out == "", f"{before}: a failure with results"
        return messages[0]


def run(*arguments: object) -> Done:
    """Run ``featstore ARGUMENTS`` in this process."""
    result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


def good(*arguments: object) -> Done:
    """:func:`run`, and it must succeed."""
    done = run(*arguments)
    assert done.code == 0, done.err
    return done


def start(
    *arguments: object, env: Mapping[str, object] | None = None, own_group: bool = False
) -> subprocess.Popen[str]:
    """Start ``featstore ARGUMENTS`` as a process, with ``env`` beside the environment that there is.

    own_group : as the leader of a group, which a terminal's Ctrl-C reaches as a whole.
    """
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="surrogateescape",
        start_new_session=own_group,
        env={**os.environ, "PYTHONPATH": str(ROOT), **{k: str(v) for k, v in (env or {}).items()}},
    )


def finish(process: subprocess.Popen[str], timeout: float = 600) -> Done:
    """Wait for a process that :func:`start` started."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    err, _, loaded = err.rpartition("LOADED") if "LOADED" in err else (err, "", "")
    return Done(process.returncode, out, err, tuple(loaded.split()))


def spawn(*arguments: object, env: Mapping[str, object] | None = None) -> Done:
    """Run ``featstore ARGUMENTS`` in a process of its own."""
    return finish(start(*arguments, env=env))


def segments(store: Path) -> int:
    """How many segments are visible in ``store``."""
    return len(list(store.glob("ns/*/seg/*.h5")))


def wait_for(process: subprocess.Popen[str], store: Path, count: int) -> bool:
    """Wait until ``store`` has ``count`` segments; False if the process ended before."""
    while process.poll() is None:
        if segments(store) >= count:
            return True
        time.sleep(0.002)
    return False


def paths_of(value: Any, path: str = "") -> Iterator[str]:
    """Every place in a JSON value, as docs/JSON.md writes it: ``specs[].hits``. Containers are places too."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths_of(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for item in value:
            yield from paths_of(item, f"{path}[]")
    if path:
        yield path
