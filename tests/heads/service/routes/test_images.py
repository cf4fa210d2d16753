from __future__ import annotations

import hashlib
import io
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from featstore.cached import CachedRows, joined
from tests.commands import good
from tests.heads.service.conftest import Serve
from tests.pictures import png
from tests.stubs import StubRuntime
from tests.waiting import until


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


def test_a_thumbnail_waits_for_a_permit_like_any_picture_that_is_decoded(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heads.service.routes.asking._ANSWER_SECONDS", 0.3)
    running = serve()
    digest = hashlib.sha256((running.photos / "train" / "cats" / "0.png").read_bytes()).hexdigest()
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(running.served.decoding.one("127.0.0.1", time.monotonic() + 1))
        answer = running.ask("GET", f"/v1/images/{digest}/thumbnail")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert running.ask("GET", f"/v1/images/{digest}/thumbnail").status_code == 200


@pytest.mark.parametrize("path", ["/v1/neighbours/{digest}", "/v1/stores", "/v1/heads/{head}"])
def test_what_looks_through_all_of_the_store_or_a_head_waits_for_a_permit(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr("heads.service.routes.asking._ANSWER_SECONDS", 0.3)
    running = serve()
    digest = hashlib.sha256((running.photos / "train" / "cats" / "0.png").read_bytes()).hexdigest()
    path = path.format(digest=digest, head=running.head)
    with running.served.searching.one("127.0.0.1", time.monotonic() + 1):  # all that one address may have
        answer = running.ask("GET", path)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2"), timeout=30) as another:
            assert another.get(running.url + path).status_code == 200
    assert running.ask("GET", path).status_code == 200


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


def test_neighbours_of_a_head_on_two_bases_are_near_in_the_features_of_both(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = StubRuntime.__call__

    def another(self: StubRuntime, images: np.ndarray) -> np.ndarray:
        return real(self, images) * ([1, -2, 3, 4, -5, 60] if self.graph.base.spec_name == "resnet50" else 1)

    monkeypatch.setattr(StubRuntime, "__call__", another)
    running = serve()
    options = ("--image-size", "32", "--out", tmp_path / "bundles", "--store", running.store.path)
    good("train", running.photos, "-b", "vgg16+resnet50", "--head", "logreg", *options)
    until(lambda: len(running.served.bundles) == 2)
    [name] = {*running.served.bundles} - {running.head}
    bundle = running.served.bundles[name]
    data = (running.photos / "test" / "dogs" / "0.png").read_bytes()
    digest = hashlib.sha256(data)
    told = running.ask("GET", f"/v1/neighbours/{digest.hexdigest()}", params={"head": name, "count": 100}).json()
    assert told["fingerprints"] == [spec.fingerprint for spec in bundle.card.specs]
    rows = [CachedRows(running.store, spec) for spec in bundle.card.specs]
    trained = joined(rows, bundle.fitted.digests)
    [mine] = joined(rows, np.frombuffer(digest.digest(), np.uint8).reshape(1, -1))
    assert trained.shape == (12, 12)
    cosines = trained @ mine / np.linalg.norm(trained, axis=1) / np.linalg.norm(mine)
    expected = {bundle.fitted.digests[at].tobytes().hex(): cosines[at] for at in np.argsort(-cosines, kind="stable")}
    assert [one["digest"] for one in told["neighbours"]] == [*expected]
    assert [one["cosine"] for one in told["neighbours"]] == pytest.approx([*expected.values()], abs=1e-5)


def test_neighbours_are_found_among_rows_that_follow_from_stored_maps(serve: Serve, tmp_path: Path) -> None:
    running = serve()
    options: Any = ("--image-size", "48", "--store", running.store.path)
    good("extract", running.photos, "--pooling", "map", *options)
    good("train", running.photos, "--head", "logreg", "--out", tmp_path / "bundles", *options)
    until(lambda: len(running.served.bundles) == 2)
    [name] = {*running.served.bundles} - {running.head}
    bundle = running.served.bundles[name]
    assert not running.store.namespace(bundle.card.specs[0]).exists, "there are only maps"
    digest = hashlib.sha256((running.photos / "test" / "dogs" / "0.png").read_bytes()).hexdigest()
    told = running.ask("GET", f"/v1/neighbours/{digest}", params={"head": name, "count": 100}).json()["neighbours"]
    assert {one["digest"] for one in told} == {one.tobytes().hex() for one in bundle.fitted.digests}
