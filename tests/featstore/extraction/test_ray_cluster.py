"""Which cluster is meant, and what Ray's errors mean; without a cluster."""

from __future__ import annotations

import configparser
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import featstore
from featstore.errors import InputError, StorageError
from featstore.extraction import engine_named, ray_cluster
from tests.commands import ROOT
from tests.stubs import Bases

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


@pytest.fixture(autouse=True)
def no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.parametrize("lacking", ["ray", "pandas", "pyarrow"])
def test_without_ray_or_what_it_takes_the_extra_is_named_before_anything_is_done(
    tmp_path: Path, bases: Bases, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == lacking else name)
    with pytest.raises(InputError, match=r'pip install "ray\[data\]'):
        featstore.extract(tmp_path / "there is no such folder", engine="ray")


def test_an_address_is_tried_before_anything_is_done(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(InputError, match="there is no Ray cluster"):
        featstore.extract(tmp_path / "there is no such folder", engine="ray", address="127.0.0.1:1")


def test_rays_own_names_are_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    for name in ("auto", "local"):
        monkeypatch.setenv("RAY_ADDRESS", name)
        engine_named("ray")
        engine_named("ray", name)


class Ray:
    """In place of Ray: what it is asked for, and what it answers."""

    def __init__(self, running_at: str | None = None, error: Exception | None = None) -> None:
        self.asked: list[str] = []
        self.running_at, self.error = running_at, error

    def is_initialized(self) -> bool:
        return self.running_at is not None

    def init(self, address: str, **_: object) -> None:
        if self.error:
            raise self.error
        self.asked.append(address)

    def shutdown(self) -> None:
        self.asked.append("shutdown")

    def get_runtime_context(self) -> SimpleNamespace:
        return SimpleNamespace(gcs_address=self.running_at)


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Ray], Ray]:
    """Put one in the place of Ray."""

    def place(ray: Ray) -> Ray:
        monkeypatch.setattr(ray_cluster, "_imported", lambda: ray)
        return ray

    return place


@pytest.mark.parametrize(
    ("named", "environment", "expected"),
    [(None, None, "local"), (None, "auto", "auto"), ("local", "auto", "local"), (None, "", "local")],
)
def test_without_an_address_a_private_ray_is_started(
    placed: Callable[[Ray], Ray],
    monkeypatch: pytest.MonkeyPatch,
    named: str | None,
    environment: str | None,
    expected: str,
) -> None:
    pytest.importorskip("ray")
    if environment is not None:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    ray = placed(Ray())
    with ray_cluster.connected(named):
        assert ray.asked == [expected]
    assert ray.asked == [expected, "shutdown"]


@pytest.mark.parametrize("address", [None, "auto", "127.0.0.1:6379", "localhost:6379"])
def test_a_connection_that_is_there_is_used_and_left(placed: Callable[[Ray], Ray], address: str | None) -> None:
    ray = placed(Ray(running_at="127.0.0.1:6379"))
    with ray_cluster.connected(address) as found:
        assert found is ray
    assert ray.asked == []


@pytest.mark.parametrize("address", ["127.0.0.1:7777", "head.example:6379", "local"])
def test_a_connection_to_another_cluster_is_told(placed: Callable[[Ray], Ray], address: str) -> None:
    placed(Ray(running_at="127.0.0.1:6379"))
    with pytest.raises(InputError, match="another Ray cluster"), ray_cluster.connected(address):
        pass


def test_a_cluster_that_refuses_is_told(placed: Callable[[Ray], Ray]) -> None:
    pytest.importorskip("ray")
    placed(Ray(error=RuntimeError("Version mismatch: 2.60\nand more")))
    with (
        pytest.raises(InputError, match=r"no Ray cluster: Version mismatch: 2\.60") as caught,
        ray_cluster.connected(None),
    ):
        pass
    assert "--engine ray" in str(caught.value)


@pytest.mark.parametrize("name", ["ActorDiedError", "NodeDiedError", "OutOfMemoryError", "ExecutionTimeoutError"])
def test_what_happens_to_a_cluster_is_an_error_to_go_on_from(name: str) -> None:
    ray: Any = pytest.importorskip("ray.data") and __import__("ray")
    kind = getattr(ray.exceptions, name, None) or getattr(ray.data.exceptions, name)
    error = kind() if name == "ActorDiedError" else kind("a node: it is gone")
    told = rf"did not go on \({name}(.|\n)*run the same command again"
    with pytest.raises(StorageError, match=told), ray_cluster.translated(ray):
        raise error


def test_what_ray_is_told_for_a_run_it_is_told_no_longer_afterwards() -> None:
    ray: Any = pytest.importorskip("ray.data") and __import__("ray")
    names = ("enable_progress_bars", "print_on_execution_start", "execution_no_progress_timeout_s")

    def settings() -> list[object]:
        context = ray.data.DataContext.get_current()
        return [logging.getLogger("ray.data").level, *(getattr(context, name) for name in names)]

    before = settings()
    with ray_cluster.translated(ray):
        assert settings()[:3] == [logging.CRITICAL, False, False]
    assert settings() == before


def test_the_version_that_is_named_is_the_extras() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extra = setup["options.extras_require"]["ray"].split()
    assert ray_cluster._REQUIREMENT in "".join(extra)


def test_our_own_faults_and_errors_stay_what_they_are() -> None:
    ray: Any = pytest.importorskip("ray.data") and __import__("ray")
    wrapped = ray.exceptions.RayTaskError("read", "a traceback", ray.exceptions.UserCodeException("a bug"))
    for error in (wrapped.as_instanceof_cause(), ValueError("a bug"), InputError("wrong"), GeneratorExit()):
        with pytest.raises(type(error)), ray_cluster.translated(ray):
            raise error
