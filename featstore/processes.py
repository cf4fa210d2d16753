"""Something to run in a process of its own, which ends with the process that asked for it.

A new process imports the program's main module again, as multiprocessing does it: a script of one's own does its work
under ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any, Concatenate, ParamSpec, TypeVar

_P = ParamSpec("_P")
_Result = TypeVar("_Result")

_SOON = 5.0
"""Seconds in which a process that has let go of its connection is gone."""


class EndedError(Exception):
    """The process ended without a result: killed from outside, perhaps for want of memory."""


@dataclass(frozen=True, slots=True)
class Child:
    """A process of ours, and our end of the connection to it. Both ways of talking raise EndedError if it has ended."""

    connection: Connection
    process: BaseProcess

    def hear(self) -> Any:
        """What it says next."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            raise self._ended() from None

    def tell(self, what: object) -> None:
        """Say something to it."""
        try:
            self.connection.send(what)
        except OSError:
            raise self._ended() from None

    def _ended(self) -> EndedError:
        self.process.join(_SOON)
        code = self.process.exitcode
        if code is None or code >= 0:
            return EndedError(f"exit code {code}")
        return EndedError(f"ended by {signal.Signals(-code).name}, perhaps for want of memory")


@contextmanager
def child(work: Callable[Concatenate[Connection, _P], object], *given: _P.args, **named: _P.kwargs) -> Iterator[Child]:
    """``work``, a function of a module, in a new process with the other end of a connection; it ends with the context.

    Ctrl-C is this process's alone: an interrupt here ends the other one, which says nothing of its own.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(work, theirs, given, named), daemon=True)
    with _ctrl_c_blocked():  # the new process begins with it blocked, and leaves it so
        process.start()
    try:
        theirs.close()
        yield Child(ours, process)
    finally:
        process.terminate()
        process.join()
        ours.close()


def in_a_process(work: Callable[_P, _Result], *given: _P.args, **named: _P.kwargs) -> _Result:
    """What ``work`` gives, a function of a module, in a new process; what it raises is raised here.

    Raises EndedError if it ends without a result.
    """
    with child(_tell_result, work, given, named) as process:
        failed, result = process.hear()
    if failed:
        raise result
    return result  # type: ignore[no-any-return]


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """In this thread, whichever it is; what comes meanwhile comes afterwards."""
    resource_tracker.ensure_running()  # starting it would unblock
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _tell_result(
    connection: Connection, work: Callable[..., object], given: tuple[Any, ...], named: dict[str, Any]
) -> None:
    try:
        found = False, work(*given, **named)
    except Exception as error:
        found = True, error
    connection.send(found)


def _work(work: Callable[..., object], connection: Connection, given: tuple[Any, ...], named: dict[str, Any]) -> None:
    """In the new process."""
    Thread(target=_end_with_parent, daemon=True).start()
    work(connection, *given, **named)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
