"""A process of its own gives what the work gives, raises what it raises; test_kill interrupts it."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from featstore.errors import InputError
from heads.process import EndedError, in_a_process


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
