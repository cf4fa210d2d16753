from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from featstore import Store, machine
from featstore.doctor import examine


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "not" / "made" / "yet")


def pretend(monkeypatch: pytest.MonkeyPatch, **facts: object) -> None:
    about = replace(machine.describe(), **facts)
    monkeypatch.setattr(machine, "describe", lambda: about)


def test_it_says_what_this_machine_will_use(store: Store) -> None:
    facts = examine(store).facts
    assert {"CPU", "memory", "GPU", "runtimes", "will run on", "weights here", "store", "versions"} <= set(facts)
    assert "not made yet" in facts["store"]
    assert "GiB free" in facts["store"]
    assert not store.exists


def test_a_cpu_without_half_precision_is_told_what_would_help(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, flags=("avx2",), gpus=(), runtimes=("openvino", "tensorflow"))
    result = examine(store)
    assert "float32" in result.facts["will run on"]
    assert any("AVX512_BF16" in line for line in result.advice)


def test_a_machine_without_openvino_is_told_to_install_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, gpus=(), runtimes=("tensorflow",))
    assert any("pip install openvino" in line for line in examine(store).advice)


def test_a_gpu_is_used_in_half_precision(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, gpus=("Some GPU",), runtimes=("openvino", "tensorflow"))
    assert examine(store).facts["will run on"] == "tensorflow, float16"


def test_several_gpus_are_worth_an_option(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for count, told in ((1, False), (2, True)):
        pretend(monkeypatch, gpus=("Some GPU",) * count, runtimes=("openvino", "tensorflow"))
        assert any("--devices all" in line for line in examine(store).advice) == told


def test_a_nearly_full_disk_is_a_warning(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featstore.doctor._free_bytes", lambda path: 1000)
    assert any("nearly full" in line for line in examine(store).advice)


def test_without_weights_it_says_how_to_fetch_them(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    result = examine(store)
    assert result.facts["weights here"] == "none yet"
    assert any("weights pull" in line for line in result.advice)


def test_offline_is_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATSTORE_OFFLINE", "1")
    assert "forbidden" in examine(store).facts["network"]


def test_json_holds_facts_and_advice(store: Store) -> None:
    assert set(examine(store).to_json()) == {"facts", "advice"}
