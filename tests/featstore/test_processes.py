"""A process of its own gives what the work gives, raises what it raises; test_kill interrupts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from featstore.errors import InputError
from featstore.processes import EndedError, child, in_a_process
from tests.commands import ROOT
from tests.waiting import is_alive, until


def refuse(what: str) -> None:
    raise InputError(what, todo="do something else")


def ctrl_c() -> bool:
    os.kill(os.getpid(), signal.SIGINT)
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_it_gives_what_the_work_gives() -> None:
    assert in_a_process(divmod, 17, 5) == (3, 2)
    assert in_a_process(os.getpid) != os.getpid()


def test_it_raises_what_the_work_raises() -> None:
    with pytest.raises(InputError, match="not like this") as caught:
        in_a_process(refuse, "not like this")
    assert caught.value.todo == "do something else"


def test_a_process_that_is_killed_is_told_from_work_that_fails() -> None:
    with pytest.raises(EndedError):
        in_a_process(os._exit, 9)


def test_ctrl_c_is_not_its_business_whichever_thread_asks() -> None:
    assert in_a_process(ctrl_c)
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(in_a_process, ctrl_c).result()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def twice(connection: Connection, most: int) -> None:
    while (number := connection.recv()) < most:
        connection.send(2 * number)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_child_is_talked_with_and_told_of_once_it_has_ended() -> None:
    with child(twice, 100) as process:
        for number in (1, 50):
            process.tell(number)
            assert process.hear() == 2 * number
        process.tell(100)
        with pytest.raises(EndedError, match="SIGKILL, perhaps for want of memory"):
            process.hear()
        with pytest.raises(EndedError, match="SIGKILL"):
            process.tell(1)


def test_a_child_ends_with_its_context_whatever_it_does() -> None:
    with child(twice, 100) as process:
        pass
    assert process.process.exitcode == -signal.SIGTERM


def asleep(connection: Connection) -> None:
    """Hear nothing, not even that nobody is there any more."""
    time.sleep(600)


PARENT = """
import time
from featstore.processes import child
from tests.featstore.test_processes import asleep
with child(asleep) as process:
    print(process.process.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="no /proc")
def test_a_child_does_not_outlive_a_process_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        try:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            assert is_alive(pid)
        finally:
            parent.kill()
    until(lambda: not is_alive(pid))
