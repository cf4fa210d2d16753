"""What every command shares: errors as one message and an exit code, and option bags shared by several commands."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints

import typer
from typer.core import TyperGroup

from featstore.errors import FeatstoreError, InputError, from_os_error
from featstore.wording import shortened, visible


class Group(TyperGroup):
    """A command group that turns an expected failure into its message on stderr and its exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command. ``$FEATSTORE_DEBUG`` or ``featstore --debug`` let the traceback through."""
        try:
            return super().invoke(ctx)
        except FeatstoreError as error:
            if _debugging():
                raise
            _say(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            print("featstore: interrupted; what was committed is kept", file=sys.stderr)
            raise typer.Exit(130) from error
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except OSError as error:
            failure = _explained(error)
            _say(failure)
            raise typer.Exit(failure.exit_code) from error
        except Exception as error:
            if _is_usage_error(error):
                _tame(error)
                raise
            if _debugging():
                raise
            todo = "run it again as `featstore --debug …` and report the traceback; the store is not harmed"
            _say(FeatstoreError(f"a fault in featstore itself: {type(error).__name__}: {error}", todo=todo))
            raise typer.Exit(1) from error


def _say(error: FeatstoreError) -> None:
    """The message on stderr; names in it that came from elsewhere cannot command the terminal, nor fill it."""
    print("featstore: " + "\n".join(shortened(visible(line)) for line in error.lines()), file=sys.stderr)


def _debugging() -> bool:
    return os.environ.get("FEATSTORE_DEBUG", "") not in ("", "0")


def _is_usage_error(error: Exception) -> bool:
    """Typer's own complaints about the command line know how to show themselves."""
    return hasattr(error, "exit_code") and hasattr(error, "format_message")


def _explained(error: OSError) -> FeatstoreError:
    """What to say of a failure of the system that nobody met on its way."""
    if isinstance(error, FileNotFoundError) and error.filename is None:
        try:
            os.getcwd()
        except FileNotFoundError:
            return InputError("the current folder has been removed", todo="go to one that is there (cd)")
    return from_os_error(error, "do this", error.filename or "the output")


def _tame(error: Any) -> None:
    """A complaint about the command line quotes it: names that a shell's pattern put there may be anybody's."""
    if type(error).__name__ != "NoArgsIsHelpError":  # whose message is the help
        error.message = shortened(visible(error.message))


def with_option_bags(function: Callable[..., None]) -> Callable[..., None]:
    """Let a command take dataclasses: their fields become its options, and it is called with the dataclasses filled.

    So a group of options that several commands share is written once, and its annotations are Typer's own.
    """
    hints = get_type_hints(function, include_extras=True)
    parameters: list[inspect.Parameter] = []
    bags: dict[str, type] = {}
    for parameter in inspect.signature(function).parameters.values():
        kind = hints[parameter.name]
        if inspect.isclass(kind) and is_dataclass(kind):
            bags[parameter.name] = kind
            parameters.extend(_options(kind))
        else:
            parameters.append(parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(function)
    def command(**given: Any) -> None:
        filled = {name: bag(**{f.name: given.pop(f.name) for f in fields(bag)}) for name, bag in bags.items()}
        function(**given, **filled)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # what Typer reads
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _options(bag: type) -> list[inspect.Parameter]:
    hints = get_type_hints(bag, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_default(field),
            annotation=hints[field.name],
        )
        for field in fields(bag)
    ]


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is MISSING else field.default
