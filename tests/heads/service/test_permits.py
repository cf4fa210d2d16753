from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from featstore.online import Busy
from heads.service.permits import Permits
from tests.waiting import until


def soon() -> float:
    return time.monotonic() + 0.1


@contextmanager
def asking(permits: Permits, *askers: str) -> Iterator[list[str]]:
    """Each asks in a thread of its own, one after another; who had a permit, in this order."""
    let_in: list[str] = []

    def ask(asker: str) -> None:
        with permits.one(asker, time.monotonic() + 20):
            let_in.append(asker)

    threads = [threading.Thread(target=ask, args=(asker,)) for asker in askers]
    for number, thread in enumerate(threads, start=1):
        thread.start()
        until(lambda number=number: len(permits._waiting) == number)  # type: ignore[misc]
    yield let_in
    for thread in threads:
        thread.join(20)


def test_one_who_asks_has_at_most_half_and_the_others_find_some() -> None:
    permits = Permits(4)
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(permits.one("one", soon()))
        with pytest.raises(Busy), permits.one("one", soon()):
            pass
        for asker in ("other", "third"):
            held.enter_context(permits.one(asker, soon()))
        with pytest.raises(Busy), permits.one("fourth", soon()):
            pass
    with permits.one("one", soon()):
        pass


def test_who_has_the_fewest_is_next_and_of_these_who_came_first() -> None:
    permits = Permits(4)
    with ExitStack() as held, ExitStack() as one_of_them:
        held.enter_context(permits.one("one", soon()))
        for asker in ("other", "other", "third"):
            one_of_them.enter_context(permits.one(asker, soon()))
        with asking(permits, "one", "fourth", "third", "fifth") as let_in:
            one_of_them.pop_all().close()
            until(lambda: len(let_in) == 4)
    assert let_in.index("fourth") < let_in.index("one")


def test_whose_time_is_over_gets_none_though_some_are_free() -> None:
    with pytest.raises(Busy), Permits(4).one("one", time.monotonic()):
        pass


def test_a_permit_is_given_back_whatever_happens() -> None:
    permits = Permits(2)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), permits.one("one", soon()):
            _ = 1 / 0
