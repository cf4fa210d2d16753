from __future__ import annotations

from tests.heads.service.conftest import Serve
from tests.pictures import png


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
