"""What tests have the processes of devices do: their own work with stub bases, and what may happen to them.

Stub bases know nothing of GPUs; which one a process is of is told by $CUDA_VISIBLE_DEVICES, as CUDA is told.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection

import numpy as np
import pytest

from featstore.errors import InputError
from featstore.extraction import device_worker, lane
from featstore.store import writer
from tests.stubs import StubRuntime, put_in_place


def stubbed(connection: Connection, before: Callable[[StubRuntime], object] = lambda _: None) -> None:
    """Stub bases compute; ``before`` each batch something may happen. Every batch is committed at once."""
    patch, real = pytest.MonkeyPatch(), StubRuntime.__call__
    put_in_place(patch)

    def compute(self: StubRuntime, images: np.ndarray) -> np.ndarray:
        before(self)
        return real(self, images)

    patch.setattr(StubRuntime, "__call__", compute)
    patch.setattr(writer, "ROWS_PER_COMMIT", 32)
    device_worker.compute_share(connection)


def uneven(connection: Connection) -> None:
    """GPU 0 takes half a second for a batch."""
    stubbed(connection, lambda _: time.sleep(0.5 * (_gpu() == 0)))


def killed(connection: Connection) -> None:
    """GPU 0's is killed at its third batch, as for want of memory. The other is slow."""
    stubbed(connection, partial(_third, happens=lambda: os.kill(os.getpid(), signal.SIGKILL)))


def at_fault(connection: Connection) -> None:
    """GPU 0's has a bug at its third batch. The other is slow."""
    stubbed(connection, partial(_third, happens=lambda: 1 // 0))


def telling(connection: Connection) -> None:
    """No base can be opened, and why tells which GPUs there are, and which is meant."""

    def refuse(graph: object, runtime: str, device: str, **_: object) -> None:
        which, order = os.environ["CUDA_VISIBLE_DEVICES"], os.environ["CUDA_DEVICE_ORDER"]
        raise InputError("no", received=f"{runtime} on {device} of {which} by {order}")

    lane.open_runtime = refuse  # type: ignore[assignment] # for as long as this process lives
    device_worker.compute_share(connection)


def _third(runtime: StubRuntime, happens: Callable[[], object]) -> None:
    if _gpu():
        time.sleep(0.5)
    elif len(runtime.batches) == 2:
        happens()


def _gpu() -> int:
    return int(os.environ["CUDA_VISIBLE_DEVICES"])
