"""A process of its own gives what the work gives, raises what it raises, and ends when nobody waits for it any more."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from threading import Thread, Timer

import pytest

from featstore.errors import InputError
from heads.contest.process import EndedError, in_a_process


def refuse(what: str) -> None:
    raise InputError(what, todo="do something else")


def report_and_sleep(file: Path) -> None:
    file.write_text(str(os.getpid()))
    time.sleep(600)


def ctrl_c() -> object:
    return signal.getsignal(signal.SIGINT)


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


def test_ctrl_c_is_not_its_business() -> None:
    before = signal.getsignal(signal.SIGINT)
    assert in_a_process(ctrl_c) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_here_ends_it_at_once(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def interrupt() -> None:
        while not (file.exists() and file.read_text()):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    Timer(0, interrupt).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            in_a_process(report_and_sleep, file)
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)


def test_it_works_in_any_thread() -> None:
    found: list[object] = []
    thread = Thread(target=lambda: found.append(in_a_process(divmod, 17, 5)))
    thread.start()
    thread.join()
    assert found == [(3, 2)]
