from __future__ import annotations

import hashlib
import shutil

import numpy as np
import pytest

from tests.heads.service.conftest import Serve


def test_a_head_is_told_in_full(serve: Serve) -> None:
    running = serve()
    [bundle] = running.served.bundles.values()
    told = running.ask("GET", f"/v1/heads/{running.head}").json()
    metrics = bundle.card.held_out
    assert told["confusion"] == {
        "classes": ["cats", "dogs"],
        "counts": [*map(list, metrics.confusion)],
        "more_classes": 0,
    }
    assert told["held_out"]["accuracy"] == {"value": metrics.accuracy.value, "interval": [*metrics.accuracy.interval]}
    assert sum(told["reliability"]["counts"]) == metrics.n
    gap = np.abs(np.subtract(told["reliability"]["confidence"], told["reliability"]["accuracy"]))
    assert np.average(gap, weights=told["reliability"]["counts"]) == pytest.approx(metrics.ece.value, abs=1e-6)
    wrong = metrics.n - sum(metrics.confusion[i][i] for i in range(2))
    assert told["all_mistakes"] == len(told["mistakes"]) == wrong


def test_mistakes_are_the_pictures_that_the_head_called_wrongly(serve: Serve) -> None:
    running = serve()
    [bundle] = running.served.bundles.values()
    digests = {
        hashlib.sha256(path.read_bytes()).hexdigest(): path.parent.name
        for path in (running.photos / "validation").rglob("*.png")
    }
    said = np.array(1 - bundle.judged.truth)  # a head that is always wrong
    object.__setattr__(bundle.judged, "said", said)
    told = running.ask("GET", f"/v1/heads/{running.head}").json()["mistakes"]
    assert {one["digest"]: one["truth"] for one in told} == digests
    chances = [one["of_truth"] for one in told]
    assert chances == sorted(chances)


def test_the_map_has_the_images_of_a_head_and_no_test_image(serve: Serve) -> None:
    running = serve()
    found = running.ask("GET", f"/v1/heads/{running.head}/map").json()
    expected = {
        hashlib.sha256(path.read_bytes()).hexdigest(): path.parent.name
        for split in ("train", "validation")
        for path in (running.photos / split).rglob("*.png")
    }
    assert {point["digest"]: point["label"] for point in found["points"]} == expected
    assert found["total"] == len(expected)
    places = np.array([(point["x"], point["y"]) for point in found["points"]])
    assert places.min() == 0
    assert places.max() == 1
    held_out = {digest for digest, said in ((p["digest"], p["said"]) for p in found["points"]) if said}
    assert len(held_out) == 12


def test_a_map_is_drawn_once_and_one_at_a_time(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    running = serve()
    path = f"/v1/heads/{running.head}/map"
    with running.served.gallery._drawing, monkeypatch.context() as patch:
        patch.setattr("heads.service.routes.asking._ANSWER_SECONDS", 0.5)
        answer = running.ask("GET", path)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    first = running.ask("GET", path).json()
    monkeypatch.setattr("heads.service.gallery._draw", None)  # calling it would be an error
    assert running.ask("GET", path).json() == first


def test_features_that_are_gone_leave_no_map(serve: Serve) -> None:
    running = serve()
    shutil.rmtree(running.store.path / "ns")
    answer = running.ask("GET", f"/v1/heads/{running.head}/map")
    assert answer.status_code == 404
    assert "too few features" in answer.json()["detail"]
