from __future__ import annotations

import shutil

from tests.heads.service.conftest import Serve
from tests.pictures import png
from tests.waiting import until

_TOKEN = "0123456789abcdef-token"


def test_what_a_monitor_asks_for(serve: Serve) -> None:
    running = serve()
    running.ask("POST", "/v1/predict", content=png(700))
    assert running.ask("GET", "/healthz").json() == {"status": "ok", "problems": []}
    assert running.ask("GET", "/readyz").json() == {"status": "ok", "problems": []}
    told = running.ask("GET", "/v1/stores").json()
    assert [namespace["rows"] for namespace in told["namespaces"]] == [36]
    assert told["answered"] == {"cached": 0, "computed": 1, "rejected": 0}
    metrics = running.ask("GET", "/metrics").text
    assert 'featstore_pictures_total{outcome="computed"} 1.0' in metrics
    assert "featstore_waiting 0.0" in metrics


def test_what_is_wrong_is_told_to_who_bears_the_token_and_to_others_how_much(serve: Serve) -> None:
    running = serve(token=_TOKEN)
    assert running.ask("GET", "/readyz").json() == {"status": "ok", "problems": []}
    broken = running.bundle.with_name("broken")
    shutil.copytree(running.bundle, broken)
    (broken / "head.npz").write_bytes(b"broken")
    until(lambda: bool(running.served.problems))
    for headers in ({}, {"authorization": "Bearer wrong"}):
        told = running.ask("GET", "/readyz", headers=headers).json()
        assert told == {"status": "ok", "problems": ["1 problem; with the token more is told"]}
    [problem] = running.ask("GET", "/readyz", headers={"authorization": f"Bearer {_TOKEN}"}).json()["problems"]
    assert problem == running.served.problems[str(broken)]


def test_without_a_token_what_is_wrong_is_told(serve: Serve) -> None:
    running = serve()
    (running.bundle / "card.json").write_text("{")
    until(lambda: bool(running.served.problems))
    assert running.ask("GET", "/readyz").json()["problems"] == [*running.served.problems.values()]
