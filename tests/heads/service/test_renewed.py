from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from heads.service.renewed import Renewed


def test_what_is_young_is_not_made_again() -> None:
    count = itertools.count()
    value = Renewed(lambda _: next(count), 60)
    assert [value.get(), value.get()] == [0, 0]


def test_what_is_old_is_made_again() -> None:
    count = itertools.count()
    value = Renewed(lambda _: next(count), 0)
    assert [value.get(), value.get()] == [0, 1]


def test_what_was_made_before_is_given_to_what_makes_it_again() -> None:
    value: Renewed[list[int]] = Renewed(lambda before: [*(before or []), 7], 0)
    assert value.made is None
    assert [value.get(), value.get()] == [[7], [7, 7]]
    assert value.made == [7, 7]


def test_while_it_is_made_again_the_others_get_what_was_before() -> None:
    count, begun, free = itertools.count(), threading.Event(), threading.Event()

    def make(_: int | None) -> int:
        number = next(count)
        if number:
            begun.set()
            assert free.wait(20)
        return number

    value = Renewed(make, 0)
    assert value.get() == 0
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(value.get)
        assert begun.wait(20)
        assert value.get() == 0
        free.set()
        assert first.result() == 1


def test_what_was_never_made_is_made_once_for_all_who_ask() -> None:
    count, free = itertools.count(), threading.Event()
    value = Renewed(lambda _: (free.wait(20), next(count))[1], 60)
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(value.get) for _ in range(4)]
        free.set()
        assert [one.result() for one in asked] == [0] * 4


def test_a_failure_is_the_one_askers_and_the_next_tries_again() -> None:
    values = iter([1, 0, 2])
    value = Renewed(lambda _: 2 // next(values), 0)
    assert value.get() == 2
    with pytest.raises(ZeroDivisionError):
        value.get()
    assert value.get() == 1


def test_what_is_outdated_is_made_again_even_if_it_was_just_being_made() -> None:
    count, begun, free = itertools.count(), threading.Event(), threading.Event()
    value = Renewed(lambda _: (begun.set(), free.wait(20), next(count))[-1], 60)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(value.get)
        assert begun.wait(20)
        value.outdate()
        free.set()
        assert first.result() == 0
    assert [value.get(), value.get()] == [1, 1]
    value.outdate()
    assert [value.get(), value.get()] == [2, 2]
