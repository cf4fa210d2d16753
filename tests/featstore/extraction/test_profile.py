"""A profile names the stage that was the limit, and says what would help against it."""

from __future__ import annotations

from pathlib import Path

import pytest

from featstore.extraction import ExtractReport, SpecReport, profile
from featstore.machine import Machine

LAPTOP = Machine("a CPU", 2, ("avx2", "avx512_bf16"), 2**34, (), ("openvino",))
OLD = Machine("an old CPU", 2, ("avx2",), 2**34, (), ("openvino",))
SERVER = Machine("a CPU", 32, ("avx2",), 2**38, ("GPU:0",), ("tensorflow",))


def report(seconds: float, computed: int = 100, precision: str = "float32", **stages: float) -> ExtractReport:
    spec = SpecReport(
        "vgg16", "ab" * 32, "keras", "avg", precision, "openvino", None, 1, 100 - computed, computed, 0,
        stages.get("backbone", 0.0), 10.0,
    )  # fmt: skip
    return ExtractReport(100, (spec,), (), seconds, stages, 2, Path("store"), 0, 0)


@pytest.mark.parametrize(
    ("expected", "stages"),
    [
        ("scan", {"scan": 6.0, "backbone": 3.0}),
        ("startup", {"startup": 7.0, "backbone": 2.0}),
        ("prepare", {"prepare": 6.0, "backbone": 3.0}),
        ("backbone", {"prepare": 4.0, "backbone": 5.8, "decode": 8.0}),
        ("backbone", {"backbone": 9.0, "decode": 9.0}),
        ("decode", {"backbone": 4.0, "decode": 18.0, "read": 2.0}),
        ("read", {"backbone": 4.0, "decode": 1.0, "read": 18.0}),
        ("write", {"backbone": 2.0, "decode": 1.0, "write": 8.0}),
        ("backbone", {"startup": 4.0, "backbone": 5.8, "decode": 2.0}),
    ],
)
def test_the_limit_is_the_stage_that_the_run_waited_for(expected: str, stages: dict[str, float]) -> None:
    found = profile(report(10.0, **stages), LAPTOP)
    assert found.limit == expected
    assert found.advice


def test_threads_share_reading_and_decoding() -> None:
    found = profile(report(10.0, backbone=9.5, decode=4.0, read=1.0), LAPTOP)
    stages = {stage.name: stage for stage in found.stages}
    assert (stages["decode"].seconds, stages["decode"].share, stages["decode"].images_per_second) == (2.0, 0.2, 50.0)
    assert stages["read"].seconds == 0.5
    assert stages["backbone"].images_per_second == pytest.approx(100 / 9.5)
    assert found.busy == 0.95


@pytest.mark.parametrize(
    ("machine", "precision", "expected"),
    [(LAPTOP, "float32", "--precision bfloat16"), (LAPTOP, "bfloat16", "a GPU"),
     (LAPTOP, "bfloat16", "--precision int8"), (LAPTOP, "int8", "a GPU"), (OLD, "float32", "a GPU"),
     (SERVER, "float32", "--image-size")],
)  # fmt: skip
def test_what_would_help_a_base_depends_on_the_machine(machine: Machine, precision: str, expected: str) -> None:
    advice = " ".join(profile(report(10.0, precision=precision, backbone=9.5), machine).advice)
    assert expected in advice
    if machine is not LAPTOP or precision != "float32":
        assert "bfloat16" not in advice
    if machine is SERVER:
        assert "a GPU" not in advice


def test_a_run_that_computed_nothing_says_so() -> None:
    found = profile(report(1.0, computed=0, scan=0.9), LAPTOP)
    assert found.advice == ("nothing was left to compute: the time went into looking at files",)
    assert found.to_json()["limit"] == "scan"
