"""Something to run in a process of its own, which ends with the process that asked for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_Result = TypeVar("_Result")


class EndedError(Exception):
    """The process ended without a result: killed from outside, perhaps for want of memory."""


def in_a_process(work: Callable[_P, _Result], *given: _P.args, **named: _P.kwargs) -> _Result:
    """What ``work`` gives, a function of a module, in a new process; what it raises is raised here.

    Ctrl-C is this process's alone: an interrupt here ends the other one at once, which says nothing of its own.
    Raises EndedError if it ends without a result.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, work, given, named), daemon=True)
    try:
        with _ctrl_c_blocked():  # the new process begins with it blocked, and leaves it so
            process.start()
        sender.close()
        try:
            failed, result = receiver.recv()
        except EOFError:
            raise EndedError from None
        if failed:
            raise result
        return result  # type: ignore[no-any-return]
    finally:
        process.terminate()
        process.join()
        receiver.close()


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """In this thread, whichever it is; what comes meanwhile comes afterwards."""
    resource_tracker.ensure_running()  # starting it would unblock
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(sender: Connection, work: Callable[..., object], given: tuple[Any, ...], named: dict[str, Any]) -> None:
    """In the new process."""
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        found = False, work(*given, **named)
    except Exception as error:
        found = True, error
    sender.send(found)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
