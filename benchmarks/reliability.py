"""The whole reliability campaign: every promise of docs/RELIABILITY.md tried as often as it says there.

    python benchmarks/reliability.py [--only NAME …] [--json | --save]

Runs tests/reliability in full (the tests of every day try a small part of it). Needs strace, the right to mount (tmpfs,
in a container often root), and the test photographs. A promise that does not hold fails its test, and then nothing is
kept. NAME is the name of a file there, as in `test_kills`; the other figures stay as they were.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import RESULTS, ROOT, machine_of

DOCS = ROOT / "docs" / "RELIABILITY.md"
_MARK = "<!-- figures -->\n"


def run(names: list[str]) -> list[dict[str, Any]]:
    """The figures of the campaign, or of some of its files. Ends the program if a promise was broken."""
    folder = ROOT / "tests" / "reliability"
    files = [folder / f"{name}.py" for name in names] or [folder]
    with tempfile.TemporaryDirectory() as place:
        figures = Path(place, "figures")
        figures.touch()
        environment = {**os.environ, "FEATSTORE_RELIABILITY": "full", "FEATSTORE_RELIABILITY_FIGURES": str(figures)}
        words = [sys.executable, "-m", "pytest", "-n", "2", "-q", "-p", "no:cacheprovider", *map(str, files)]
        done = subprocess.run(words, check=False, cwd=ROOT, env=environment, stdout=sys.stderr)
        if done.returncode:
            sys.exit("a promise does not hold: see above")
        return added([json.loads(line) for line in figures.read_text().splitlines()])


def added(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of the same test and trial as one: numbers that begin with "most" are the largest, others the sum."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for line in sorted(lines, key=lambda line: (line["test"], line["tried"])):
        first = found.setdefault((line["test"], line["tried"]), line)
        if first is line:
            continue
        for name, value in line["counts"].items():
            if not isinstance(value, str):
                old = first["counts"][name]
                first["counts"][name] = max(old, value) if name.startswith("most") else old + value
        first["seconds"] += line["seconds"]
    return list(found.values())


def with_figures(page: str) -> str:
    """The ``page`` with the table of the kept figures below its mark."""
    before, _, after = page.partition(_MARK)
    rest = after.lstrip("\n")
    while rest.startswith("|"):
        rest = rest.partition("\n")[2]
    kept = json.loads((RESULTS / "reliability.json").read_text())["figures"]
    lines = ["| tried | how often, and what came of it | test |", "|---|---|---|"]
    for one in kept:
        counts = ", ".join(f"{name.replace('_', ' ')}: {_number(value)}" for name, value in one["counts"].items())
        file, _, test = one["test"].partition("::")
        lines.append(f"| {one['tried']} | {counts} | [{test}](../{file}) |")
    return before + _MARK + "\n" + "\n".join(lines) + "\n" + ("\n" if rest.strip() else "") + rest.lstrip("\n")


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,}"


def main() -> None:
    """Try everything and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--json", action="store_true", help="print the figures and the machine as JSON")
    parser.add_argument("--save", action="store_true", help="keep them, and write their table into docs/RELIABILITY.md")
    given = parser.parse_args()
    figures = run(given.only)
    kept = RESULTS / "reliability.json"
    if given.only and kept.exists():
        others = json.loads(kept.read_text())["figures"]
        figures = added(
            [*(one for one in others if Path(one["test"].partition("::")[0]).stem not in given.only), *figures]
        )
    found = {"benchmark": "reliability", "machine": machine_of(("h5py", "pillow")), "figures": figures}
    if given.save:
        kept.write_text(json.dumps(found, indent=2) + "\n")
        DOCS.write_text(with_figures(DOCS.read_text()))
    if given.json:
        print(json.dumps(found, indent=2))
        return
    for one in figures:
        print(f"{one['tried']}: {one['counts']}")


if __name__ == "__main__":
    main()
