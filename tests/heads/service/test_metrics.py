from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from heads.service.metrics import Metrics


def counting(*waiting: int) -> Metrics:
    """Counters of a service with so many pictures waiting for each of its bases."""
    served: Any = SimpleNamespace(rows={str(n): SimpleNamespace(waiting=count) for n, count in enumerate(waiting)})
    return Metrics(served)


def test_a_picture_is_cached_computed_or_rejected() -> None:
    metrics = counting()
    metrics.count(rejected=False, from_cache=True)
    metrics.count(rejected=False, from_cache=False)
    metrics.count(rejected=True, from_cache=False)
    metrics.count(rejected=True, from_cache=True)
    assert metrics.answered == {"cached": 1, "computed": 1, "rejected": 2}
    assert b'featstore_pictures_total{outcome="rejected"} 2.0' in metrics.text()


def test_what_has_not_happened_is_a_zero() -> None:
    assert counting().answered == {"cached": 0, "computed": 0, "rejected": 0}


def test_what_waits_is_told_as_it_is_now_of_all_bases_together() -> None:
    assert b"featstore_waiting 7.0" in counting(3, 4).text()


def test_refusals_and_seconds_are_counted() -> None:
    metrics = counting()
    metrics.busy.inc()
    with metrics.seconds.time():
        pass
    text = metrics.text()
    assert b"featstore_refused_total 1.0" in text
    assert b"featstore_answer_seconds_count 1.0" in text


def test_two_services_do_not_share_their_counters() -> None:
    first, second = counting(), counting()
    first.count(rejected=False, from_cache=True)
    assert second.answered["cached"] == 0
