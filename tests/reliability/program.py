"""featstore's command line with a stub base, as a process of its own: it starts soon, and a row costs little.

    python -m tests.reliability.program WORDS…

Environment: COMPUTED, a file that gets a line with its name and the number of images whenever a base begins a batch;
REPORTED, one that gets the digests of every commit once it was reported; ROWS, the rows of a commit, if not as usual;
BASE_SECONDS, how long a base takes for a batch; SEGMENT_BYTES, of a compacted segment, if not as usual;
REAL, if set: real bases instead of the stub.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from importlib import import_module
from typing import Any

import numpy as np

from featstore import job, online
from featstore.extraction import lane
from featstore.runtime import BATCH_SIZE
from featstore.store import writer
from featstore.store.writer import Writer
from tests.stubs import StubRuntime, stub_base


def main() -> None:
    """Put the stubs in place, then be featstore."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background has it ignored
    computed, reported = (_appender(name) for name in ("COMPUTED", "REPORTED"))
    seconds = float(os.environ.get("BASE_SECONDS", "0"))

    class Counted:
        """A base that says when it begins a batch."""

        def __init__(self, name: str, base: Any) -> None:
            self._name = name
            self._base = base

        def __getattr__(self, name: str) -> Any:
            return getattr(self._base, name)

        def __call__(self, images: np.ndarray) -> Any:
            computed(f"{self._name} {len(images)}\n".encode())
            time.sleep(seconds)
            return self._base(images)

    def flush(self: Writer) -> int:
        digests = [digest for digest, *_ in self._pending]
        done = real_flush(self)
        reported(b"".join(digest.hex().encode() + b"\n" for digest in digests))
        return done

    def resolve(name: str, weights: str = "imagenet", *, progress: Any = None) -> Any:
        return stub_base(name, weights)

    def open_runtime(
        graph: Any,
        runtime: str = "auto",
        device: str | None = None,
        batch_size: int = BATCH_SIZE,
        cores: int | None = None,
    ) -> Counted:
        real = os.environ.get("REAL")
        base = real_open(graph, runtime, device) if real else StubRuntime(graph, batch_size)
        return Counted(graph.base.backbone.name, base)

    real_flush, real_open = Writer.flush, lane.open_runtime
    Writer.flush = flush  # type: ignore[method-assign]
    writer.ROWS_PER_COMMIT = int(os.environ.get("ROWS", writer.ROWS_PER_COMMIT))
    compaction = import_module("featstore.store.compact")  # the package has a function of that name
    compaction.SEGMENT_BYTES = int(os.environ.get("SEGMENT_BYTES", compaction.SEGMENT_BYTES))
    lane.open_runtime = online.open_runtime = open_runtime  # type: ignore[assignment]
    if not os.environ.get("REAL"):
        job.resolve = resolve
    sys.argv = ["featstore", *sys.argv[1:]]
    from cli import app

    app()


def _appender(name: str) -> Any:
    """A function that appends bytes to the file named by this variable, in one call; one that does nothing if unset."""
    path = os.environ.get(name)
    if path is None:
        return lambda data: None
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    return lambda data: os.write(handle, data)


if __name__ == "__main__":
    main()
