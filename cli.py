"""The command line: a thin adapter from words to calls. The commands are in featstore/cli.py and heads/cli.py."""

from __future__ import annotations

import os
from typing import Annotated

import typer

import featstore
import featstore.cli
import heads.cli
from featstore.command import Group

app = typer.Typer(cls=Group, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
app.add_typer(featstore.cli.app)
app.add_typer(heads.cli.app)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"featstore {featstore.__version__}")
        raise typer.Exit


def _debug(wanted: bool) -> None:
    if wanted:
        os.environ["FEATSTORE_DEBUG"] = "1"


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", callback=_debug, help="Show tracebacks.")] = False,
) -> None:
    """Extract image features once, keep them for ever, train classifiers on them in seconds.

    Start with: [bold]featstore demo[/bold]
    """
