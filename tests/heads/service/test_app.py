from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featstore import online
from featstore.store import verify
from heads.service.bodies import MAX_PICTURES
from tests.commands import good
from tests.heads.service.conftest import Serve
from tests.pictures import png
from tests.stubs import Bases


def zipped(**pictures: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in pictures.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def line(name: str, data: bytes) -> str:
    return json.dumps({"name": name, "image": base64.b64encode(data).decode()}) + "\n"


def test_a_picture_is_answered_as_the_command_line_predicts_it(serve: Serve, tmp_path: Any) -> None:
    running = serve()
    file = running.photos / "test" / "cats" / "0.png"
    answer = running.ask("POST", "/v1/predict", content=file.read_bytes(), headers={"content-type": "image/png"})
    assert answer.status_code == 200
    [found] = answer.json()["predictions"]
    words = ("predict", running.bundle, file, "--store", running.store.path, "--json")
    [told] = good(*words).json["predictions"]
    assert found["digest"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (found["from_cache"], found["rejected"]) == (True, None)
    [head] = found["heads"]
    assert (head["head"], head["label"]) == (running.bundle.name, told["label"])
    assert head["probabilities"] == pytest.approx(told["probabilities"], abs=1e-12)


def test_a_known_picture_opens_no_base_and_a_new_one_is_kept(serve: Serve, bases: Bases) -> None:
    running = serve()
    computed = bases.computed
    known = running.photos / "train" / "dogs" / "1.png"
    running.ask("POST", "/v1/predict", content=known.read_bytes())
    assert bases.computed == computed
    [first] = running.ask("POST", "/v1/predict", content=png(500)).json()["predictions"]
    [again] = running.ask("POST", "/v1/predict", content=png(500)).json()["predictions"]
    assert (first["from_cache"], again["from_cache"]) == (False, True)
    assert first["heads"] == again["heads"]
    assert bases.computed == computed + 1


def test_many_pictures_come_in_their_order_as_a_zip_or_as_lines(serve: Serve) -> None:
    running = serve()
    pictures = {f"{seed}.png": png(600 + seed) for seed in (3, 1, 2)}
    by_zip = running.ask(
        "POST", "/v1/predict", content=zipped(**pictures), headers={"content-type": "application/zip"}
    ).json()["predictions"]
    lines = "".join(line(name, data) for name, data in pictures.items())
    by_lines = running.ask(
        "POST", "/v1/predict", content=lines.encode(), headers={"content-type": "application/x-ndjson"}
    ).json()["predictions"]
    assert [one["name"] for one in by_zip] == [*pictures]
    assert [one["heads"] for one in by_zip] == [one["heads"] for one in by_lines]
    assert [one["from_cache"] for one in by_lines] == [True] * 3


def test_a_broken_picture_among_good_ones_is_a_reason_and_no_failure(serve: Serve) -> None:
    running = serve()
    lines = line("good", png(1)) + line("broken", png(2)[:50]) + line("empty", b"")
    found = running.ask(
        "POST", "/v1/predict", content=lines.encode(), headers={"content-type": "application/x-ndjson"}
    ).json()["predictions"]
    assert [one["rejected"] for one in found] == [None, "truncated", "empty-file"]
    assert [len(one["heads"]) for one in found] == [1, 0, 0]


def test_features_are_those_of_the_store(serve: Serve) -> None:
    running = serve()
    file = running.photos / "train" / "cats" / "2.png"
    [found] = running.ask("POST", "/v1/features", content=file.read_bytes()).json()["pictures"]
    [namespace] = running.store.namespaces()
    assert [*found["features"]] == [namespace.fingerprint]
    import numpy as np

    digest = np.frombuffer(bytes.fromhex(found["digest"]), np.uint8).reshape(1, -1)
    expected = namespace.snapshot().read(digest)[0]
    assert np.array_equal(np.array(found["features"][namespace.fingerprint], np.float32), expected)


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("text/html", b"x", 415),
        ("image/png", b"", 400),
        ("application/zip", b"no zip", 400),
        ("application/zip", zipped(a=b"x")[:-9], 400),
        ("application/zip", zipped(), 400),
        ("application/zip", zipped(**{str(n): b"x" for n in range(MAX_PICTURES + 1)}), 413),
        ("application/zip", zipped(bomb=bytes(70 * 2**20)), 413),
        ("application/x-ndjson", b"{", 400),
        ("application/x-ndjson", b'{"name": "x"}', 400),
        ("application/x-ndjson", b'{"image": 7}', 400),
        ("application/x-ndjson", b'{"image": "%%%"}', 400),
        ("application/x-ndjson", b"[" * 100_000, 400),
        ("application/x-ndjson", b"7", 400),
        ("application/x-ndjson", b"\xff\xfe", 400),
        ("application/x-ndjson", b'{"image": "eA=="}\n' * (MAX_PICTURES + 1), 413),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # a zip holds the time: no name of a test
)
def test_a_body_that_is_not_what_it_says_is_refused(serve: Serve, kind: str, body: bytes, status: int) -> None:
    answer = serve().ask("POST", "/v1/predict", content=body, headers={"content-type": kind})
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]
    assert "Traceback" not in answer.text


def test_a_bundle_that_is_added_replaced_or_broken_is_noticed(serve: Serve) -> None:
    running = serve()
    [name] = [head["name"] for head in running.ask("GET", "/v1/heads").json()["heads"]]
    copy = running.bundle.with_name("a-second-head")
    shutil.copytree(running.bundle, copy)
    time.sleep(1.1)
    assert [h["name"] for h in running.ask("GET", "/v1/heads").json()["heads"]] == sorted([name, copy.name])
    (copy / "head.npz").write_bytes(b"broken")
    (copy / "card.json").touch()
    time.sleep(1.1)
    told = running.ask("GET", "/v1/heads").json()
    assert copy.name in [head["name"] for head in told["heads"]], "what could be used before goes on being served"
    assert [*told["problems"]] == [str(copy)]
    shutil.rmtree(copy)
    time.sleep(1.1)
    assert [head["name"] for head in running.ask("GET", "/v1/heads").json()["heads"]] == [name]
    assert running.ask("POST", "/v1/predict", content=png(1)).json()["predictions"][0]["heads"]


def test_a_folder_that_is_emptied_leaves_no_head_and_no_fault(serve: Serve) -> None:
    running = serve()
    [answer] = running.ask("POST", "/v1/predict", content=png(1)).json()["predictions"]
    shutil.rmtree(running.bundle)
    running.bundle.mkdir()
    time.sleep(1.1)
    running.ask("GET", "/v1/heads")
    assert running.ask("POST", "/v1/predict", content=png(1)).status_code in (200, 503)
    assert running.ask("GET", f"/v1/neighbours/{answer['digest']}").status_code in (200, 404)
    assert running.ask("GET", "/readyz").status_code in (200, 503)


def test_a_name_with_half_a_character_is_answered(serve: Serve) -> None:
    body = json.dumps({"name": "\ud800.png", "image": base64.b64encode(png(1)).decode()})
    answer = serve().ask("POST", "/v1/predict", content=body, headers={"content-type": "application/x-ndjson"})
    assert answer.json()["predictions"][0]["name"] == "\\ud800.png"


def test_a_head_whose_files_come_one_after_the_other_is_served_in_the_end(serve: Serve) -> None:
    running = serve()
    copy = running.bundle.with_name("copied-slowly")
    copy.mkdir()
    for name in ("card.json", "rows.npz", "held-out.npz", "head.npz"):
        shutil.copyfile(running.bundle / name, copy / name)
        time.sleep(1.1)
        told = running.ask("GET", "/v1/heads").json()
        assert (copy.name in [head["name"] for head in told["heads"]]) == (name == "head.npz")


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


def test_the_reference_names_every_route_with_its_bodies(serve: Serve) -> None:
    paths = serve().ask("GET", "/openapi.json").json()["paths"]
    assert {"/v1/predict", "/v1/features", "/v1/heads", "/v1/stores", "/healthz", "/readyz", "/metrics"} <= {*paths}
    assert "application/zip" in paths["/v1/predict"]["post"]["requestBody"]["content"]


def test_too_much_waiting_is_a_503_with_the_time_to_come_back(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "MAX_WAITING", 0)
    answer = serve().ask("POST", "/v1/predict", content=png(800))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


def test_the_end_commits_what_is_new(serve: Serve) -> None:
    running = serve()
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: running.ask("POST", "/v1/predict", content=png(900 + n)), range(24)))
    assert {answer.status_code for answer in answers} == {200}
    running.served.close()
    assert running.store.namespaces()[0].summary().rows == 36 + 24
    assert verify(running.store, read_data=True).sound
    for rows in running.served.rows.values():
        rows.__init__(rows.job, running.store)  # type: ignore[misc]


def test_neighbours_are_stored_images_with_their_folders_and_thumbnails(serve: Serve) -> None:
    running = serve()
    file = running.photos / "train" / "cats" / "0.png"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    found = running.ask("GET", f"/v1/neighbours/{digest}", params={"count": 5}).json()["neighbours"]
    assert {one["label"] for one in found} == {None}, "of no head"
    cosines = [one["cosine"] for one in found]
    assert len(found) == 5
    assert cosines == sorted(cosines, reverse=True)
    assert digest not in [one["digest"] for one in found]
    assert {one["folder"] for one in found} <= {"cats", "dogs"}
    small = running.ask("GET", f"/v1/images/{found[0]['digest']}/thumbnail", params={"size": 32})
    assert small.headers["content-type"] == "image/jpeg"
    assert max(Image.open(io.BytesIO(small.content)).size) <= 32


def test_neighbours_of_a_head_are_its_training_images_with_the_labels_of_its_training(serve: Serve) -> None:
    running = serve()
    file = running.photos / "test" / "dogs" / "0.png"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    given = {"head": running.head, "count": 100}
    found = running.ask("GET", f"/v1/neighbours/{digest}", params=given).json()["neighbours"]
    trained = {
        hashlib.sha256(path.read_bytes()).hexdigest(): path.parent.name
        for path in (running.photos / "train").rglob("*.png")
    }
    assert {one["digest"]: one["label"] for one in found} == trained


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
    with running.served.gallery._drawing:
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


def test_a_new_picture_has_neighbours_too_once_it_was_predicted(serve: Serve) -> None:
    running = serve()
    [answer] = running.ask("POST", "/v1/predict", content=png(1234)).json()["predictions"]
    assert running.ask("GET", f"/v1/neighbours/{answer['digest']}").json()["neighbours"]


@pytest.mark.parametrize(
    "path",
    [f"/v1/neighbours/{'0' * 64}", f"/v1/neighbours/{'0' * 64}?head=none", "/v1/images/../thumbnail",
     f"/v1/images/{'0' * 64}/thumbnail", "/v1/heads/none", "/v1/heads/none/map"],
)  # fmt: skip
def test_what_is_not_known_is_not_found(serve: Serve, path: str) -> None:
    assert serve().ask("GET", path).status_code == 404


@pytest.mark.parametrize(
    "path", ["/v1/neighbours/x", f"/v1/neighbours/{'A' * 64}", f"/v1/neighbours/{'0' * 64}?count=101",
             f"/v1/images/{'0' * 64}/thumbnail?size=x"],
)  # fmt: skip
def test_a_part_that_is_not_what_it_should_be_is_named(serve: Serve, path: str) -> None:
    answer = serve().ask("GET", path)
    assert answer.status_code == 422
    assert answer.json()["detail"].split(":")[0] in ("digest", "count", "size")


def test_an_image_that_changed_has_no_thumbnail(serve: Serve) -> None:
    running = serve()
    file = running.photos / "train" / "cats" / "0.png"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    file.write_bytes(png(4321))
    assert running.ask("GET", f"/v1/images/{digest}/thumbnail").status_code == 404
