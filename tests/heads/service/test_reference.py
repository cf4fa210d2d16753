"""The service held to its own reference: schemathesis makes up requests, fitting and not, and checks every answer."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    ignored_auth,
    negative_data_rejection,
    positive_data_acceptance,
    unsupported_method,
)

from tests.heads.service.conftest import Running, Serve
from tests.pictures import png
from tests.reliability.campaign import amount

_EXAMPLES = amount(6, 400)
_LEFT_OUT = [not_a_server_error, negative_data_rejection, positive_data_acceptance, unsupported_method, ignored_auth]
"""503 is an answer here; of bytes no schema says whether they are a picture; there is no token."""


@contextmanager
def beside(running: Running) -> Iterator[Counter[int]]:
    """What a healthy client is answered meanwhile, that asks twice a second."""
    answered: Counter[int] = Counter()
    done = threading.Event()

    def ask() -> None:
        while True:
            answered[running.ask("POST", "/v1/predict", content=png(1)).status_code] += 1
            if done.wait(0.5):
                return

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield answered
    finally:
        done.set()
        asking.join()


@pytest.mark.filterwarnings("ignore")  # of the libraries that make the requests up
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fitting", "unfitting"])
def test_every_answer_is_one_that_the_reference_tells_of(serve: Serve, mode: GenerationMode) -> None:
    running = serve()
    schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    tried = set()
    with beside(running) as healthy:
        for found in schema.get_all_operations():
            operation = found.ok()

            @settings(max_examples=_EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy(generation_mode=mode))
            def hold(case: Any) -> None:
                answer = case.call()
                assert answer.status_code != 500
                assert "Traceback" not in answer.text
                case.validate_response(answer, excluded_checks=_LEFT_OUT)

            with suppress(Unsatisfiable):  # there is nothing about this one that could be unfitting
                hold()
                tried.add(operation.label)
    assert healthy[200] >= 0.99 * healthy.total() > 0, healthy
    assert len(tried) == (11 if mode is GenerationMode.POSITIVE else 2)
