"""Hold the documentation against the code: the README's two commands, the CLI reference, the links, the tables."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "CLI.md"
_TITLE = """# The command line

What every command says with `--help`. Exit codes: 0 done; 1 a check found damage, or an image was rejected under
`--on-error fail`; 2 usage or bad input; 3 no permission or read-only; 4 no space; 130 interrupted.
"""
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


def readme_commands() -> list[str]:
    """The first two fenced ``sh`` blocks of the README, each exactly one line."""
    blocks = [block.strip() for block in _BLOCK.findall((ROOT / "README.md").read_text())[:2]]
    if len(blocks) != 2 or any("\n" in block for block in blocks):
        sys.exit("README.md: the first two sh blocks must be one line each: the demo, then the tests")
    return blocks


def reference() -> str:
    """Every command's own help, one section each."""
    os.environ.update(TERMINAL_WIDTH="100", NO_COLOR="1")  # read by Typer when it is imported
    sys.path.insert(0, str(ROOT))
    import typer
    from typer.testing import CliRunner

    from cli import app

    def sections(command: Any, words: list[str]) -> Iterator[str]:
        help_text = CliRunner().invoke(app, [*words, "--help"], prog_name="featstore").stdout
        lines = "\n".join(line.rstrip() for line in help_text.strip().splitlines())
        yield f"## featstore {' '.join(words)}".rstrip() + f"\n\n```text\n{lines}\n```\n"
        for name, inner in sorted(getattr(command, "commands", {}).items()):
            yield from sections(inner, [*words, name])

    return "\n".join([_TITLE, *sections(typer.main.get_command(app), [])])


def broken_links() -> list[str]:
    """Links in our own pages that lead to no file."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages
        for link in _LINK.findall(page.read_text())
        if "://" not in link and not (page.parent / link).exists()
    ]


def tables_hold() -> bool:
    """Whether the pages show what the benchmarks have kept."""
    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
    harness, needs = map(importlib.import_module, ("harness", "needs"))
    pages = [page.read_text() for page in harness.PAGES]
    promises, scale = ((ROOT / "docs" / name).read_text() for name in ("RELIABILITY.md", "SCALE.md"))
    return (
        all(harness.with_tables(page) == page for page in pages)
        and harness.with_figures(promises) == promises
        and needs.with_needs(scale) == scale
    )


def main() -> None:
    """Check everything, or do one thing that is asked for."""
    if "--print-test-command" in sys.argv:
        print(readme_commands()[1])
        return
    if "--write" in sys.argv:
        REFERENCE.write_text(reference())
        return
    readme_commands()
    problems = [f"link to nowhere: {link}" for link in broken_links()]
    if not REFERENCE.exists() or REFERENCE.read_text() != reference():
        problems.append("docs/CLI.md is not what the commands say: run python .ci/check_docs.py --write")
    if not tables_hold():
        problems.append(
            "the tables are not what benchmarks/results/ holds: run the benchmark (or needs.py) with --save"
        )
    if problems:
        sys.exit("\n".join(problems))
    print("docs: the commands, the reference, the links and the tables hold")


if __name__ == "__main__":
    main()
