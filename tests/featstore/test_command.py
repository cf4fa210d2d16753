from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from featstore.command import Group, with_option_bags
from featstore.errors import InputError, Interrupted, NoSpaceError

runner = CliRunner()


def app_that(raises: BaseException) -> typer.Typer:
    app = typer.Typer(cls=Group, pretty_exceptions_enable=False)

    @app.callback()
    def main() -> None:
        """Group."""

    @app.command()
    def go() -> None:
        raise raises

    return app


@pytest.mark.parametrize(
    ("error", "code"), [(InputError("bad"), 2), (NoSpaceError("full"), 4), (Interrupted("stopped"), 130)]
)
def test_an_expected_failure_is_its_message_on_stderr_and_its_exit_code(error: BaseException, code: int) -> None:
    result = runner.invoke(app_that(error), ["go"])
    assert result.exit_code == code
    assert result.stderr == f"featstore: {error}\n"
    assert result.stdout == ""


def test_ctrl_c_exits_with_130_and_no_traceback() -> None:
    result = runner.invoke(app_that(KeyboardInterrupt()), ["go"])
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_fault_of_our_own_is_one_message_that_says_how_to_see_more() -> None:
    result = runner.invoke(app_that(ZeroDivisionError("oops")), ["go"])
    assert result.exit_code == 1
    assert "ZeroDivisionError: oops" in result.stderr
    assert "--debug" in result.stderr
    assert "Traceback" not in result.stderr


def test_debugging_lets_the_exception_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATSTORE_DEBUG", "1")
    result = runner.invoke(app_that(InputError("bad")), ["go"])
    assert isinstance(result.exception, InputError)


HOSTILE = "\x1b]0;pwn\a\x9b31m\nfeatstore: all is well\u202e"


def test_a_name_in_a_message_neither_commands_the_terminal_nor_begins_a_line() -> None:
    result = runner.invoke(app_that(InputError(HOSTILE, where=HOSTILE, received=HOSTILE, todo=HOSTILE)), ["go"])
    assert [line[:12] for line in result.stderr.splitlines()] == [
        "featstore: \\",
        "  where:    ",
        "  received: ",
        "  to do:    ",
    ]
    assert result.stderr.replace("\n", "").isprintable()


def test_a_fault_with_several_lines_is_one_line() -> None:
    result = runner.invoke(app_that(ZeroDivisionError(HOSTILE)), ["go"])
    assert len(result.stderr.splitlines()) == 2  # and what to do


def test_names_in_a_complaint_about_the_command_line_command_nothing() -> None:
    result = runner.invoke(app_that(InputError("never")), ["go", HOSTILE])
    assert result.exit_code == 2
    assert r"\x1b]0;pwn\x07" in result.stderr
    assert result.stderr.replace("\n", "").isprintable()


def test_what_is_echoed_does_not_fill_the_screen() -> None:
    result = runner.invoke(app_that(InputError("bad", received="random:" + "9" * 5000)), ["go"])
    assert len(result.stderr) < 1100
    assert "characters) … 999" in result.stderr


def test_that_the_current_folder_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    lost = FileNotFoundError(2, "No such file or directory")
    result = runner.invoke(app_that(lost), ["go"])
    monkeypatch.chdir(tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith("featstore: the current folder has been removed\n")
    assert "No such file" in runner.invoke(app_that(lost), ["go"]).stderr


def test_wrong_usage_keeps_typers_own_message_and_exits_with_2() -> None:
    result = runner.invoke(app_that(InputError("never")), ["go", "--nonsense"])
    assert result.exit_code == 2
    assert "--nonsense" in result.stderr


@dataclass(frozen=True)
class Flags:
    size: Annotated[int, typer.Option(min=1, help="A size.")] = 3
    name: Annotated[str | None, typer.Option()] = None


def bag_app(seen: list[object]) -> typer.Typer:
    app = typer.Typer(cls=Group)

    @app.command()
    @with_option_bags
    def go(data: Annotated[str, typer.Argument()], flags: Flags, loud: bool = False) -> None:
        """Do it."""
        seen.extend([data, flags, loud])

    return app


def test_the_fields_of_a_bag_become_options_and_come_back_as_the_bag() -> None:
    seen: list[object] = []
    assert runner.invoke(bag_app(seen), ["photos", "--size", "7", "--loud"]).exit_code == 0
    assert seen == ["photos", Flags(size=7), True]


def test_the_annotations_of_a_bag_are_checked_and_shown() -> None:
    assert runner.invoke(bag_app([]), ["photos", "--size", "0"]).exit_code == 2
    help_text = runner.invoke(bag_app([]), ["--help"]).stdout
    assert "A size." in help_text
    assert "Do it." in help_text
