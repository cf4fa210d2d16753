from __future__ import annotations

import io

import pytest

from featstore import progress


def test_silent_progress_takes_every_call() -> None:
    with progress.silent("x", 3) as advance:
        advance(3)


def test_off_a_terminal_progress_is_plain_lines_with_rate_and_remaining_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 6.0, 12.0, 18.0, 24.0, 30.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    with progress.for_stream(stream)("extract", 24) as advance:
        advance(4)  # after 2 s: too early for a line
        advance(8)
        advance(6)
    assert stream.getvalue().splitlines() == [
        "extract: 12/24 images, 2.0 images/s, 6 s left",
        "extract: 18/24 images, 1.5 images/s, 4 s left",
    ]


def test_a_download_is_announced_before_it_begins() -> None:
    stream = io.StringIO()
    with progress.for_stream(stream)("fetch vgg16 weights", 61, "MB"):
        assert stream.getvalue() == "fetch vgg16 weights …\n"


def test_a_slow_start_is_forgotten_by_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 100.0, 106.0, 112.0, 118.0, 124.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    with progress.for_stream(stream)("extract", 1000) as advance:
        for _ in range(5):
            advance(60)
    assert "0.6 images/s" in stream.getvalue().splitlines()[0]
    assert "10.0 images/s" in stream.getvalue().splitlines()[-1]


def test_on_a_terminal_progress_is_a_bar_that_leaves_nothing_behind(capfd: pytest.CaptureFixture[str]) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    with progress.for_stream(Terminal())("extract", 4) as advance:
        advance(4)
    assert capfd.readouterr().out == ""


def test_a_label_commands_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    with progress.for_stream(stream)("fetch \x1b[2J\nx", 61, "MB"):
        assert stream.getvalue() == "fetch \\x1b[2J\\nx …\n"


def test_without_stderr_progress_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    assert progress.for_stream() is progress.silent
